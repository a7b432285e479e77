# A program that changes its own instructions: after fence.i the new ones run, in the same place, again and again;
# and across a page boundary.
# exit: 0
#include "bare.inc"

_start:
    la      s0, patched
    li      s1, 0                       # round
    li      s2, 200
    li      s3, 0x00000513              # li a0, 0
1:  slli    t0, s1, 20
    or      t0, t0, s3                  # li a0, round
    sw      t0, 0(s0)
    fence.i
    jalr    s0
    expect_equal 1, a0, s1
    addi    s1, s1, 1
    bne     s1, s2, 1b

    # An instruction of which half is in one page and half in the next.
    la      s0, crossing
    li      s1, 0
2:  slli    t0, s1, 20
    or      t0, t0, s3
    sh      t0, 0(s0)
    srli    t0, t0, 16
    sh      t0, 2(s0)
    fence.i
    jalr    s0
    expect_equal 2, a0, s1
    addi    s1, s1, 1
    bne     s1, s2, 2b

    # Only the second page's half.
    li      t0, 0x0550                  # upper half of li a0, 0x55
    sh      t0, 2(s0)
    fence.i
    jalr    s0
    expect  3, a0, 0x55
    pass

    .balign 4
patched:
    .word   0
    ret

    .balign 4096
    .space  4094
crossing:
    .half   0, 0
    ret
