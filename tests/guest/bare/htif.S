# The host-target interface: a byte to the console, a write system call, and an exit code.
# output: Hi, host
# exit: 7
#include "bare.inc"

_start:
    la      s0, tohost
    la      s1, fromhost
    li      t0, 0x0101000000000000 | 'H'
    sd      t0, 0(s0)
1:  ld      t1, 0(s0)
    bnez    t1, 1b

    la      t0, call
    fence
    sd      t0, 0(s0)
2:  ld      t1, 0(s1)
    beqz    t1, 2b
    sd      zero, 0(s1)
    ld      t1, 0(t0)
    expect  1, t1, 7                    # bytes written
    li      a0, 7
    j       bare_exit

    .data
    .balign 64
call:
    .dword  64, 1, text, 7
text:
    .ascii  "i, host"
