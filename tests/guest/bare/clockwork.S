# Timer and external interrupts at whatever instruction they come: where and when is noted in memory, where the hash
# of a deterministic run sees it (tests/determinism.rs). Time, mtime and the real-time clock are noted as well.
# exit: 0
#include "bare.inc"
#define UART_IRQ        10
#define RTC             0x101000

_start:
    la      t0, machine_trap
    csrw    mtvec, t0
    la      s0, notes
    li      s1, MTIME
    li      s2, MTIMECMP
    li      s3, PLIC
    li      s4, PLIC + 0x200000         # context 0: hart 0, M-mode
    li      s5, UART
    li      s6, 2000                    # interrupts of the timer
    li      s8, RTC
    li      t0, 1 << UART_IRQ
    li      t1, PLIC + 0x2000
    sw      t0, 0(t1)
    li      t0, 1
    sw      t0, UART_IRQ * 4(s3)
    sw      zero, 0(s4)
    sd      zero, 0(s2)                 # the first one is due
    li      t0, 1 << 11 | 1 << 7
    csrs    mie, t0
    csrsi   mstatus, 8

    # Work without end, a step of 64 instructions or so, with a wait now and then.
1:  mul     s9, s9, s6
    add     s9, s9, s6
    xor     s10, s10, s9
    rdtime  t0
    add     s11, s11, t0
    .rept   14
    srli    t1, s9, 7
    add     s10, s10, t1
    slli    t1, s10, 3
    xor     s9, s9, t1
    .endr
    andi    t0, s9, 15
    bnez    t0, 2f
    wfi
2:  bgtz    s6, 1b                      # the timer goes on: no wait is the last one
    csrci   mstatus, 8
    sd      s9, 0(s0)
    sd      s10, 8(s0)
    sd      s11, 16(s0)
    csrr    t0, minstret
    sd      t0, 24(s0)
    pass

# Notes: cause, pc, time, instructions.
    .balign 4
machine_trap:
    csrr    t3, mcause
    csrr    t4, mepc
    csrr    t5, minstret
    rdtime  t6
    sd      t3, 0(s0)
    sd      t4, 8(s0)
    sd      t5, 16(s0)
    sd      t6, 24(s0)
    addi    s0, s0, 32
    andi    t3, t3, 15
    li      t4, 7
    beq     t3, t4, 3f
    # The UART's: claimed, its cause taken away, completed.
    lw      t4, 4(s4)
    lbu     t5, 2(s5)
    sb      zero, 1(s5)
    sw      t4, 4(s4)
    mret
    # The timer's: again after a time that varies. Every fourth one sends a byte and has the UART interrupt for it,
    # from within the handler, so that it comes right after mret.
3:  addi    s6, s6, -1
    ld      t4, 0(s1)
    andi    t5, s6, 63
    slli    t5, t5, 2
    addi    t5, t5, 3
    add     t4, t4, t5
    sd      t4, 0(s2)
    andi    t5, s6, 3
    bnez    t5, 4f
    lw      t5, 0(s8)                   # seconds and nanoseconds of the day
    sw      t5, 0(s0)
    lw      t5, 4(s8)
    sw      t5, 4(s0)
    addi    s0, s0, 8
    li      t5, '\n'
    sb      t5, 0(s5)
    li      t5, 2
    sb      t5, 1(s5)
4:  mret

    .bss
    .balign 16
notes:
    .skip   1 << 20
