# Demand paging in S-mode: loads, stores and fetches fault on pages that are not there; the handler maps them and
# goes back. Then the rights: SUM, MXR, a page of U-mode's, dirty bits without Svadu and with it.
# exit: 0
#include "bare.inc"
#define BASE    0x40000000
#define V 1
#define R 2
#define W 4
#define X 8
#define U 16
#define A 64
#define D 128

_start:
    la      t0, machine_trap
    csrw    mtvec, t0
    li      t0, -1
    csrw    pmpaddr0, t0
    li      t0, 0x1f
    csrw    pmpcfg0, t0
    csrw    0x30a, zero                 # menvcfg: no Svadu yet

    # Root: gigapage of the program itself; a table for BASE.
    la      t0, root
    li      t1, (0x80000000 >> 2) | V | R | W | X | A | D
    sd      t1, 16(t0)
    la      t1, middle
    srli    t1, t1, 2
    ori     t1, t1, V
    sd      t1, 8(t0)
    la      t0, middle
    la      t1, lowest
    srli    t1, t1, 2
    ori     t1, t1, V
    sd      t1, 0(t0)
    la      t0, root
    srli    t0, t0, 12
    li      t1, 8 << 60
    or      t0, t0, t1
    csrw    satp, t0
    sfence.vma

    li      t0, (1 << 12) | (1 << 13) | (1 << 15)
    csrw    medeleg, t0
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
    li      s0, 0                       # faults
    li      s1, V | R | W | A | D       # what the handler maps with
    la      s2, frames
    li      s3, BASE

    # A store to a page that is not there, then a load of what it stored.
    li      t0, 0x1234567
    sd      t0, 0(s3)
    expect  1, s0, 1
    expect  2, s7, 15
    expect_equal 3, s8, s3
    ld      t1, 0(s3)
    expect_equal 4, t0, t1
    expect  5, s0, 1

    # A misaligned load across two pages: the second fault is the second page's.
    li      t0, BASE + 0x1ffc
    ld      t1, 0(t0)
    expect  6, s0, 3
    expect  7, s7, 13
    expect  8, s8, BASE + 0x2000

    # A fetch: the page is mapped without X first, and with it on the second fault.
    li      t0, BASE + 0x3000
    li      t1, 0x00008067              # ret
    sw      t1, 0(t0)
    expect  9, s0, 4
    li      s1, V | R | W | X | A | D
    jalr    t0
    expect  10, s0, 5
    expect  11, s7, 12

    # A page of U-mode's: not without SUM, with it yes.
    li      s1, V | R | W | U | A | D
    li      t0, 1 << 18
    csrs    sstatus, t0
    li      t1, BASE + 0x4000
    sd      t1, 0(t1)
    expect  12, s0, 6
    csrc    sstatus, t0
    li      s1, V | R | W | A | D       # the handler makes it S-mode's
    ld      t2, 0(t1)
    expect  13, s0, 7

    # Execute-only: not readable without MXR, with it yes.
    li      s1, V | X | A | D
    li      t0, 1 << 19
    csrs    sstatus, t0
    li      t1, BASE + 0x5000
    ld      t2, 0(t1)
    expect  14, s0, 8
    csrc    sstatus, t0
    li      s1, V | R | W | A | D
    ld      t2, 0(t1)
    expect  15, s0, 9

    # Without Svadu a page that was not written faults on the first store.
    li      s1, V | R | W | A
    li      t1, BASE + 0x6000
    ld      t2, 0(t1)
    expect  16, s0, 10
    li      s1, V | R | W | A | D
    sd      t2, 0(t1)
    expect  17, s0, 11

    # With it (the ecall turns it on) the hart sets the bits itself.
    ecall
    li      s1, V | R | W
    li      t1, BASE + 0x7000
    sd      t1, 0(t1)
    expect  18, s0, 12
    la      t2, lowest
    ld      t3, 7 * 8(t2)
    andi    t3, t3, A | D
    expect  19, t3, A | D
    pass

# Maps the page of stval to the frame of the same number with the rights in s1.
    .balign 4
supervisor_trap:
    addi    s0, s0, 1
    csrr    s7, scause
    csrr    s8, stval
    sub     s9, s8, s3
    srli    s9, s9, 12
    slli    s10, s9, 12
    add     s10, s10, s2
    srli    s10, s10, 2
    or      s10, s10, s1
    slli    s9, s9, 3
    la      s11, lowest
    add     s11, s11, s9
    sd      s10, 0(s11)
    sfence.vma s8
    sret

    .balign 4
machine_trap:
    csrr    t6, mcause
    li      t5, 9
    beq     t5, t6, 1f
    fail    99
1:  li      t5, 1 << 61
    csrs    0x30a, t5
    csrr    t5, mepc
    addi    t5, t5, 4
    csrw    mepc, t5
    mret

    .bss
    .balign 4096
root:
    .space  4096
middle:
    .space  4096
lowest:
    .space  4096
frames:
    .space  8 * 4096
