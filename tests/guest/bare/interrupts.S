# External and software interrupts: the UART's "transmitter empty" by the PLIC to M-mode, with claim and complete;
# priority 0 and a threshold keep it away; MSIP of the CLINT to oneself.
# output: U
# exit: 0
#include "bare.inc"
#define UART_IRQ 10

_start:
    la      t0, machine_trap
    csrw    mtvec, t0
    li      s0, 0                       # interrupts
    li      s1, 0                       # last claim
    li      s2, PLIC
    li      s3, PLIC + 0x200000         # context 0: hart 0, M-mode
    li      s4, UART
    li      t0, 1 << 11
    csrs    mie, t0
    csrsi   mstatus, 8

    # Enabled at the UART and in context 0, but of priority 0: nothing comes.
    li      t0, 1 << UART_IRQ
    li      t1, PLIC + 0x2000
    sw      t0, 0(t1)
    sw      zero, UART_IRQ * 4(s2)
    sw      zero, 0(s3)
    li      t0, 'U'
    sb      t0, 0(s4)
    li      t0, 2
    sb      t0, 1(s4)                   # IER: transmitter empty
    li      t2, 2000
1:  addi    t2, t2, -1
    bnez    t2, 1b
    expect  1, s0, 0

    # Below the threshold: nothing either.
    li      t0, 3
    sw      t0, 0(s3)
    sw      t0, UART_IRQ * 4(s2)
    li      t2, 2000
1:  addi    t2, t2, -1
    bnez    t2, 1b
    expect  2, s0, 0

    # Above it: it comes; the claim names the source, reading IIR takes the cause away.
    li      t0, 2
    sw      t0, 0(s3)
1:  beqz    s0, 1b
    expect  3, s1, UART_IRQ
    expect  4, s0, 1
    li      t2, 2000
1:  addi    t2, t2, -1
    bnez    t2, 1b
    expect  5, s0, 1
    lw      t0, 4(s3)
    expect  6, t0, 0                    # nothing left to claim

    # Software interrupt to oneself.
    li      t0, 1 << 3
    csrw    mie, t0
    li      s5, CLINT
    li      t0, 1
    sw      t0, 0(s5)
1:  li      t1, 2
    bne     s0, t1, 1b
    lw      t0, 0(s5)
    expect  7, t0, 0
    pass

    .balign 4
machine_trap:
    csrr    t5, mcause
    li      t6, (1 << 63) | 3
    beq     t5, t6, 1f
    li      t6, (1 << 63) | 11
    beq     t5, t6, 2f
    fail    99
1:  sw      zero, 0(s5)
    addi    s0, s0, 1
    mret
2:  lw      s1, 4(s3)
    lbu     t5, 2(s4)                   # IIR
    sb      zero, 1(s4)                 # IER
    sw      s1, 4(s3)
    addi    s0, s0, 1
    mret
