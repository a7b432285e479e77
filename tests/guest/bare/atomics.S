# Two harts in two processes: AMOs lose no update, LR/SC neither, and a lock taken with amoswap keeps plain loads
# and stores together.
# run: --harts 2
# exit: 0
#include "bare.inc"
#define ROUNDS 20000

_start:
    mv      s10, a0                     # hart
    la      s0, by_amo
    la      s1, by_lr_sc
    la      s2, lock
    la      s3, by_lock
    li      s4, ROUNDS
    li      s5, 1
1:  amoadd.d zero, s5, (s0)

2:  lr.w    t0, (s1)
    addi    t0, t0, 1
    sc.w    t1, t0, (s1)
    bnez    t1, 2b

3:  amoswap.w.aq t0, s5, (s2)
    bnez    t0, 3b
    ld      t0, 0(s3)
    addi    t0, t0, 1
    sd      t0, 0(s3)
    ld      t1, 8(s3)
    addi    t1, t1, -1
    sd      t1, 8(s3)
    amoswap.w.rl zero, zero, (s2)

    addi    s4, s4, -1
    bnez    s4, 1b

    la      t0, finished
    fence   rw, rw
    amoadd.w zero, s5, (t0)
    beqz    s10, 4f
    j       bare_park

4:  lw      t1, 0(t0)
    li      t2, 2
    bne     t1, t2, 4b
    fence   rw, rw
    ld      t1, 0(s0)
    expect  1, t1, 2 * ROUNDS
    lwu     t1, 0(s1)
    expect  2, t1, 2 * ROUNDS
    ld      t1, 0(s3)
    expect  3, t1, 2 * ROUNDS
    ld      t1, 8(s3)
    expect  4, t1, -2 * ROUNDS

    # A store of the other hart's would end a reservation; without one, SC to another address must fail.
    lr.d    t0, (s0)
    sc.d    t1, s5, (s3)
    expect  5, t1, 1
    sc.d    t1, s5, (s0)
    expect  6, t1, 1
    pass

    .data
    .balign 64
by_amo:
    .dword  0
    .balign 64
by_lr_sc:
    .dword  0
    .balign 64
lock:
    .dword  0
by_lock:
    .dword  0, 0
    .balign 64
finished:
    .dword  0
