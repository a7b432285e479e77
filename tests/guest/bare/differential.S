# Harness of the differential test: for each generated case set the hart up as the case says, enter it with mret,
# and when it traps store what it left. Layout: tests/tests/differential/layout.rs, whose constants arrive as
# preprocessor symbols. Ends through the test finisher, which this machine and QEMU's have in common.

#define MSTATUS_FS  0x6000
#define MENVCFG     0xa000000000000000  /* STCE, ADUE */
#define FINISHER    0x100000
#define FINISH      0x5555
#define MTIMECMP    0x2004000

    .option norelax
    .section .text.start, "ax"
    .globl _start
_start:
    csrr    t0, mhartid
    beqz    t0, 2f
1:  wfi
    j       1b
2:  la      t0, trap
    csrw    mtvec, t0
    la      t0, supervisor_trap
    ori     t0, t0, 1
    csrw    stvec, t0
    csrw    mie, zero
    csrw    satp, zero
    li      t0, -1
    li      t1, MTIMECMP
    sd      t0, 0(t1)
    li      t1, MENVCFG
    csrw    0x30a, t1                   # menvcfg
    csrw    0x14d, t0                   # stimecmp

    # The fixed pointers: 511 of Sv39's root to the table of 2 MiB entries; 0 and 511 of the larger roots to the
    # next smaller one.
    li      t0, TABLES
    li      t1, ((TABLES + 0x1000) >> 2) | 1
    li      t2, 511 * 8
    add     t3, t0, t2
    sd      t1, 0(t3)
    li      t1, (TABLES >> 2) | 1
    li      t3, TABLES + 0x3000
    sd      t1, 0(t3)
    add     t3, t3, t2
    sd      t1, 0(t3)
    li      t1, ((TABLES + 0x3000) >> 2) | 1
    li      t3, TABLES + 0x4000
    sd      t1, 0(t3)
    add     t3, t3, t2
    sd      t1, 0(t3)

    li      s0, CASES
    ld      s2, 0(s0)
    addi    s0, s0, CASES_HEADER
    li      s1, OUTPUT

next:
    beqz    s2, done
    la      t0, state
    sd      s0, 0(t0)
    sd      s1, 8(t0)
    sd      s2, 16(t0)

    # A store over the end of RAM may leave a part of it: no case shall see that of another.
    li      t0, RAM_END - 64
    .irp    n, 0,8,16,24,32,40,48,56
    sd      zero, \n(t0)
    .endr

    li      a0, DATA
    addi    a1, s0, CASE_DATA
    li      a2, DATA_PAGES
1:  mv      a3, a0
    call    window_in
    li      t0, 4096 - WINDOW
    add     a3, a0, t0
    call    window_in
    li      t0, 4096
    add     a0, a0, t0
    addi    a2, a2, -1
    bnez    a2, 1b

    addi    a1, s0, CASE_PTE
    li      a3, TABLES + 0x2000
    li      a4, SMALL_PTES
    call    words_in
    li      a3, TABLES + 0x1000
    li      a4, LARGE_PTES
    call    words_in
    li      a3, TABLES
    li      a4, HUGE_PTES
    call    words_in
    fence.i
    sfence.vma

    .macro  setup csr, field
    ld      t0, \field(s0)
    csrw    \csr, t0
    .endm
    setup   medeleg, CASE_MEDELEG
    setup   mideleg, CASE_MIDELEG
    setup   mie, CASE_MIE
    setup   mip, CASE_MIP
    setup   satp, CASE_SATP
    setup   mcounteren, CASE_MCOUNTEREN
    setup   scounteren, CASE_SCOUNTEREN
    csrw    pmpcfg0, zero
    setup   pmpaddr0, CASE_PMPADDR + 0
    setup   pmpaddr1, CASE_PMPADDR + 8
    setup   pmpaddr2, CASE_PMPADDR + 16
    setup   pmpaddr3, CASE_PMPADDR + 24
    setup   pmpaddr4, CASE_PMPADDR + 32
    setup   pmpaddr5, CASE_PMPADDR + 40
    setup   pmpaddr6, CASE_PMPADDR + 48
    setup   pmpaddr7, CASE_PMPADDR + 56
    setup   pmpcfg0, CASE_PMPCFG
    sfence.vma
    li      t0, 0x1234
    csrw    sscratch, t0
    csrw    sepc, zero
    csrw    scause, zero
    csrw    stval, zero
    csrw    mcause, zero
    csrw    mtval, zero

    li      t0, MSTATUS_FS
    csrw    mstatus, t0
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    fld     f\n, CASE_F + 8 * \n (s0)
    .endr
    setup   fcsr, CASE_FCSR
    la      t0, reserved
    sc.d    t1, zero, (t0)              # no reservation is left
    csrw    mscratch, s1
    setup   mepc, CASE_ENTRY
    setup   mstatus, CASE_MSTATUS
    .irp    n, 1,2,3,4,5,6,7,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ld      x\n, CASE_X + 8 * \n (x8)
    .endr
    ld      x8, CASE_X + 8 * 8 (x8)
    mret

    # A case is over: from M-mode directly, or by the ecall of supervisor_trap.
    .balign 4
trap:
    csrrw   x1, mscratch, x1
    .irp    n, 0,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    sd      x\n, OUT_X + 8 * \n (x1)
    .endr
    csrr    t0, mscratch
    sd      t0, OUT_X + 8 (x1)
    .macro  keep csr, field
    csrr    t0, \csr
    sd      t0, \field(x1)
    .endm
    keep    mcause, OUT_MCAUSE
    keep    mepc, OUT_MEPC
    keep    mtval, OUT_MTVAL
    keep    mstatus, OUT_MSTATUS
    keep    scause, OUT_SCAUSE
    keep    sepc, OUT_SEPC
    keep    stval, OUT_STVAL
    keep    sscratch, OUT_SSCRATCH
    keep    satp, OUT_SATP
    csrw    mie, zero
    li      t0, MSTATUS_FS
    csrs    mstatus, t0
    keep    fcsr, OUT_FCSR
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    fsd     f\n, OUT_F + 8 * \n (x1)
    .endr
    csrw    satp, zero
    csrw    mip, zero
    csrw    pmpcfg0, zero               # an access that is partly inside an entry fails in M-mode too

    la      t0, state
    ld      s0, 0(t0)
    ld      s1, 8(t0)
    ld      s2, 16(t0)
    li      a0, DATA
    addi    a1, s1, OUT_DATA
    li      a2, DATA_PAGES
1:  mv      a3, a0
    call    window_out
    li      t0, 4096 - WINDOW
    add     a3, a0, t0
    call    window_out
    li      t0, 4096
    add     a0, a0, t0
    addi    a2, a2, -1
    bnez    a2, 1b
    addi    a1, s1, OUT_PTE
    li      a3, TABLES + 0x2000
    li      a4, SMALL_PTES
    call    words_out
    li      a3, TABLES + 0x1000
    li      a4, LARGE_PTES
    call    words_out
    li      a3, TABLES
    li      a4, HUGE_PTES
    call    words_out

    li      t0, CASE_BYTES
    add     s0, s0, t0
    li      t0, OUT_BYTES
    add     s1, s1, t0
    addi    s2, s2, -1
    j       next

done:
    fence
    li      t0, FINISHER
    li      t1, FINISH
    sw      t1, 0(t0)
1:  j       1b

# Copies doublewords from a1 (advanced) to a3; and the other way round.
window_in:
    li      a4, WINDOW / 8
words_in:
    ld      t0, 0(a1)
    sd      t0, 0(a3)
    addi    a1, a1, 8
    addi    a3, a3, 8
    addi    a4, a4, -1
    bnez    a4, words_in
    ret
window_out:
    li      a4, WINDOW / 8
words_out:
    ld      t0, 0(a3)
    sd      t0, 0(a1)
    addi    a1, a1, 8
    addi    a3, a3, 8
    addi    a4, a4, -1
    bnez    a4, words_out
    ret

    # Vectored: mepc of the ecall tells which of the supervisor's vectors was taken. Exceptions take the first.
    .balign 256
    .option push
    .option norvc
supervisor_trap:
    .rept   16
    ecall
    .endr
    .option pop

    .data
    .balign 64
state:
    .dword  0, 0, 0
reserved:
    .dword  0

    .section .cases, "a"
    .incbin "cases.bin"

    .section .output, "aw", @nobits
    .globl  begin_signature, end_signature
begin_signature:
    .space  OUTPUT_BYTES
end_signature:
