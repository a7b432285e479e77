# Timer interrupts: the CLINT's mtimecmp in M-mode, stimecmp (Sstc) delegated to S-mode; wfi ends for both.
# exit: 0
#include "bare.inc"

_start:
    la      t0, machine_trap
    csrw    mtvec, t0
    li      t0, -1
    csrw    pmpaddr0, t0
    li      t0, 0x1f
    csrw    pmpcfg0, t0
    li      s0, 0                       # machine timer interrupts
    li      s1, 0                       # supervisor timer interrupts
    li      s2, MTIME
    li      s3, MTIMECMP
    li      s4, 10                      # rounds

1:  ld      t0, 0(s2)
    addi    s5, t0, 1000
    sd      s5, 0(s3)
    li      t0, 1 << 7
    csrs    mie, t0
    mv      t1, s0
2:  wfi                                 # with interrupts off: one that comes before it is not lost
    csrsi   mstatus, 8
    csrci   mstatus, 8
    beq     s0, t1, 2b
    ld      t0, 0(s2)
    bgeu    t0, s5, 3f
    fail    1                           # too early
3:  rdtime  t1
    bgeu    t1, t0, 4f
    fail    2                           # time and mtime are one clock
4:  addi    s4, s4, -1
    bnez    s4, 1b
    expect  3, s0, 10

    # The same for S-mode, by stimecmp.
    li      t0, 1 << 63
    csrs    0x30a, t0                   # menvcfg.STCE
    li      t0, 2
    csrs    mcounteren, t0
    li      t0, 1 << 5
    csrw    mideleg, t0
    li      t0, -1
    csrw    0x14d, t0                   # stimecmp
    la      t0, supervisor_trap
    csrw    stvec, t0
    li      t0, 3 << 11
    csrc    mstatus, t0
    li      t0, 1 << 11
    csrs    mstatus, t0
    la      t0, supervisor
    csrw    mepc, t0
    mret
supervisor:
    li      s4, 10
5:  rdtime  t0
    addi    s5, t0, 1000
    csrw    0x14d, s5
    li      t0, 1 << 5
    csrs    sie, t0
    mv      t1, s1
6:  wfi
    csrsi   sstatus, 2
    csrci   sstatus, 2
    beq     s1, t1, 6b
    rdtime  t0
    bgeu    t0, s5, 7f
    fail    4
7:  addi    s4, s4, -1
    bnez    s4, 5b
    expect  5, s1, 10
    csrr    t0, sip
    andi    t0, t0, 1 << 5
    expect  6, t0, 0
    pass

    .balign 4
machine_trap:
    csrr    t5, mcause
    li      t6, (1 << 63) | 7
    beq     t5, t6, 1f
    fail    98
1:  li      t6, -1
    sd      t6, 0(s3)
    addi    s0, s0, 1
    mret

    .balign 4
supervisor_trap:
    csrr    t5, scause
    li      t6, (1 << 63) | 5
    beq     t5, t6, 1f
    fail    99
1:  li      t6, -1
    csrw    0x14d, t6
    addi    s1, s1, 1
    sret
