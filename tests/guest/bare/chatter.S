# A kernel that fills its serial port with lines for ever, for whoever needs a guest that talks without a boot.
    .text
    .globl _start
_start:
    li      s0, 0x10000000              # the UART
1:  la      s1, line
2:  lbu     t0, 0(s1)
    beqz    t0, 1b
3:  lbu     t1, 5(s0)                   # its line status: room in the transmitter
    andi    t1, t1, 0x20
    beqz    t1, 3b
    sb      t0, 0(s0)
    addi    s1, s1, 1
    li      t2, 2000
4:  addi    t2, t2, -1
    bnez    t2, 4b
    j       2b
line:
    .asciz  "and so on\n"
