# Every floating-point operation on special and ordinary values, in every rounding mode: results and flags lie in
# memory afterwards, where the hash of a deterministic run sees them (tests/determinism.rs).
# exit: 0
#include "bare.inc"

    .option norvc

# One operation whose result is in fa3 or a3, and the flags it raised.
    .macro  float operation:vararg
    csrw    fflags, zero
    \operation
    csrr    t0, fflags
    fsd     fa3, 0(s3)
    sd      t0, 8(s3)
    addi    s3, s3, 16
    .endm

    .macro  integer operation:vararg
    csrw    fflags, zero
    \operation
    csrr    t0, fflags
    sd      a3, 0(s3)
    sd      t0, 8(s3)
    addi    s3, s3, 16
    .endm

# All operations of a format (s or d) on fa0, fa1, fa2.
    .macro  sweep f
    float   fadd.\f fa3, fa0, fa1
    float   fsub.\f fa3, fa0, fa1
    float   fmul.\f fa3, fa0, fa1
    float   fdiv.\f fa3, fa0, fa1
    float   fmin.\f fa3, fa0, fa1
    float   fmax.\f fa3, fa0, fa1
    float   fsgnj.\f fa3, fa0, fa1
    float   fsgnjn.\f fa3, fa0, fa1
    float   fsgnjx.\f fa3, fa0, fa1
    float   fmadd.\f fa3, fa0, fa1, fa2
    float   fmsub.\f fa3, fa0, fa1, fa2
    float   fnmadd.\f fa3, fa0, fa1, fa2
    float   fnmsub.\f fa3, fa0, fa1, fa2
    float   fsqrt.\f fa3, fa0
    integer feq.\f a3, fa0, fa1
    integer flt.\f a3, fa0, fa1
    integer fle.\f a3, fa0, fa1
    integer fclass.\f a3, fa0
    integer fcvt.w.\f a3, fa0, dyn
    integer fcvt.wu.\f a3, fa0, dyn
    integer fcvt.l.\f a3, fa0, dyn
    integer fcvt.lu.\f a3, fa0, dyn
    float   fcvt.\f\().w fa3, a1
    float   fcvt.\f\().wu fa3, a1
    float   fcvt.\f\().l fa3, a1
    float   fcvt.\f\().lu fa3, a1
    .endm

# All pairs of the values between two labels, with a third that goes round, in every rounding mode.
    .macro  pairs f, first, last
    li      s0, 0
1:  csrw    frm, s0
    la      s1, \first
2:  la      s2, \first
    mv      s4, s1
3:  fld     fa0, 0(s1)
    fld     fa1, 0(s2)
    fld     fa2, 0(s4)
    ld      a1, 0(s1)
    sweep   \f
    la      s5, \last
    addi    s4, s4, 8
    bltu    s4, s5, 4f
    la      s4, \first
4:  addi    s2, s2, 8
    bltu    s2, s5, 3b
    float   fcvt.s.d fa3, fa0
    float   fcvt.d.s fa3, fa0
    addi    s1, s1, 8
    bltu    s1, s5, 2b
    addi    s0, s0, 1
    li      t1, 5
    bltu    s0, t1, 1b
    .endm

_start:
    li      t0, 3 << 13
    csrs    mstatus, t0
    la      s3, results
    pairs   d, doubles, doubles_end
    pairs   s, singles, singles_end
    # What follows the last result says how many there were.
    sd      s3, 0(s3)
    pass

    .data
    .balign 8
doubles:
    .dword  0x0000000000000000, 0x8000000000000000     # zeroes
    .dword  0x3ff0000000000000, 0xbff0000000000000     # ones
    .dword  0x3ff0000000000001, 0x4008000000000000     # 1 + 2^-52, 3
    .dword  0x7ff0000000000000, 0xfff0000000000000     # infinities
    .dword  0x7ff8000000000000, 0x7ff0000000000001     # quiet NaN, signalling NaN
    .dword  0xfff8dead0000beef, 0x0000000000000001     # NaN with a payload, least subnormal
    .dword  0x800fffffffffffff, 0x0010000000000000     # greatest subnormal, least normal
    .dword  0x7fefffffffffffff, 0x43e0000000000000     # greatest, 2^63
    .dword  0xc1e0000000100000, 0x36a0000000000000     # -2^31 - 0.5, half of the least single
    .dword  0x3ff0000010000000, 0x47efffffefffffff     # between two singles, just above the greatest single
doubles_end:
singles:
    .dword  0xffffffff00000000, 0xffffffff80000000     # zeroes
    .dword  0xffffffff3f800000, 0xffffffffbf800000     # ones
    .dword  0xffffffff3f800001, 0xffffffff40400000     # 1 + 2^-23, 3
    .dword  0xffffffff7f800000, 0xffffffffff800000     # infinities
    .dword  0xffffffff7fc00000, 0xffffffff7f800001     # quiet NaN, signalling NaN
    .dword  0xffffffffffc0beef, 0xffffffff00000001     # NaN with a payload, least subnormal
    .dword  0xffffffff807fffff, 0xffffffff00800000     # greatest subnormal, least normal
    .dword  0xffffffff7f7fffff, 0xffffffff5f000000     # greatest, 2^63
    .dword  0xffffffffcf000001, 0xffffffff2f800001     # below -2^31, about 2^-32
    .dword  0x000000003f800000, 0x7ff0000000000001     # not boxed: read as NaNs
singles_end:

    .bss
    .balign 16
results:
    .skip   8 << 20
