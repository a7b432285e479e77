//! Cases that the specification, or a well-known pitfall, names.

use crate::fp::flag::{DZ, NV, NX, OF, UF};
use crate::fp::*;

const NAN: u64 = 0x7ff8_0000_0000_0000;
const SIGNALLING: u64 = 0x7ff0_0000_0000_0001;
const INF: u64 = 0x7ff0_0000_0000_0000;
const NEGATIVE_ZERO: u64 = 1 << 63;

fn flags_of<R>(rm: Rounding, operation: impl FnOnce(&mut FpEnv) -> R) -> (R, u8) {
    let mut env = FpEnv { rm, flags: 0 };
    let result = operation(&mut env);
    (result, env.flags)
}

fn d(x: f64) -> u64 {
    x.to_bits()
}

#[test]
fn nan_results_are_canonical_and_only_signalling_operands_are_invalid() {
    let payload = 0xfff8_1234_5678_9abc;
    assert_eq!(flags_of(Rounding::Rne, |e| f64_add(payload, d(1.0), e)), (NAN, 0));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_add(d(1.0), SIGNALLING, e)), (NAN, NV));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_sqrt(d(-1.0), e)), (NAN, NV));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_sub(INF, INF, e)), (NAN, NV));
    assert_eq!(flags_of(Rounding::Rne, |e| f32_to_f64(0xffc0_0001, e)), (NAN, 0));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_to_f32(SIGNALLING, e)), (0x7fc0_0000, NV));
}

#[test]
fn infinity_times_zero_is_invalid_even_with_a_quiet_addend() {
    assert_eq!(flags_of(Rounding::Rne, |e| f64_fma(INF, 0, NAN, e)), (NAN, NV));
    assert_eq!(flags_of(Rounding::Rne, |e| f32_fma(0, 0x7f80_0000, 0x7fc0_0000, e)), (0x7fc0_0000, NV));
}

#[test]
fn minimum_and_maximum_prefer_numbers_and_order_zeros() {
    assert_eq!(flags_of(Rounding::Rne, |e| f64_min(NEGATIVE_ZERO, 0, e)), (NEGATIVE_ZERO, 0));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_min(0, NEGATIVE_ZERO, e)), (NEGATIVE_ZERO, 0));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_max(NEGATIVE_ZERO, 0, e)), (0, 0));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_max(NAN, d(-3.0), e)), (d(-3.0), 0));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_max(d(-3.0), SIGNALLING, e)), (d(-3.0), NV));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_min(NAN, NAN, e)), (NAN, 0));
}

#[test]
fn equality_is_quiet_and_order_is_not() {
    assert_eq!(flags_of(Rounding::Rne, |e| f64_eq(NAN, NAN, e)), (false, 0));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_eq(SIGNALLING, d(1.0), e)), (false, NV));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_lt(NAN, d(1.0), e)), (false, NV));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_le(d(1.0), NAN, e)), (false, NV));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_le(0, NEGATIVE_ZERO, e)), (true, 0));
}

/// Just below the smallest normal number: rounded to 53 bits with an unbounded exponent it reaches it, or doesn't.
#[test]
fn tininess_is_detected_after_rounding() {
    let smallest = f64::MIN_POSITIVE;
    let below_one = 1.0 - f64::EPSILON / 2.0;
    // smallest * (1 - 2^-53): 53 bits hold it, so it is tiny, and rounds up only as a subnormal.
    assert_eq!(flags_of(Rounding::Rne, |e| f64_mul(d(smallest), d(below_one), e)), (d(smallest), UF | NX));
    // smallest * (1 - 2^-106): rounds up at any exponent.
    let above_one = 1.0 + f64::EPSILON / 2.0 * 2.0;
    let factor = smallest * (1.0 - f64::EPSILON);
    assert_eq!(flags_of(Rounding::Rne, |e| f64_mul(d(factor), d(above_one), e)), (d(smallest), NX));
    // An exact subnormal doesn't underflow.
    assert_eq!(flags_of(Rounding::Rne, |e| f64_mul(d(smallest), d(0.5), e)), (d(smallest / 2.0), 0));
}

#[test]
fn overflow_goes_to_infinity_or_stops_by_mode() {
    for (rm, up, down) in [
        (Rounding::Rne, f64::INFINITY, f64::NEG_INFINITY),
        (Rounding::Rtz, f64::MAX, f64::MIN),
        (Rounding::Rdn, f64::MAX, f64::NEG_INFINITY),
        (Rounding::Rup, f64::INFINITY, f64::MIN),
        (Rounding::Rmm, f64::INFINITY, f64::NEG_INFINITY),
    ] {
        assert_eq!(flags_of(rm, |e| f64_mul(d(f64::MAX), d(2.0), e)), (d(up), OF | NX), "{rm:?}");
        assert_eq!(flags_of(rm, |e| f64_mul(d(f64::MIN), d(2.0), e)), (d(down), OF | NX), "{rm:?}");
    }
}

#[test]
fn division_by_zero_is_exact_and_its_own_flag() {
    assert_eq!(flags_of(Rounding::Rne, |e| f64_div(d(-1.0), 0, e)), (d(f64::NEG_INFINITY), DZ));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_div(0, 0, e)), (NAN, NV));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_div(INF, 0, e)), (INF, 0));
}

#[test]
fn a_sum_that_cancels_is_positive_zero_except_downwards() {
    assert_eq!(flags_of(Rounding::Rne, |e| f64_sub(d(1.5), d(1.5), e)), (0, 0));
    assert_eq!(flags_of(Rounding::Rdn, |e| f64_sub(d(1.5), d(1.5), e)), (NEGATIVE_ZERO, 0));
    assert_eq!(flags_of(Rounding::Rup, |e| f64_add(NEGATIVE_ZERO, NEGATIVE_ZERO, e)), (NEGATIVE_ZERO, 0));
}

/// Unprivileged, table "Domains of float-to-integer conversions and behavior for invalid inputs".
#[test]
fn conversions_saturate_with_nv_and_without_nx() {
    assert_eq!(flags_of(Rounding::Rtz, |e| f64_to_i32(NAN, e)), (i32::MAX, NV));
    assert_eq!(flags_of(Rounding::Rtz, |e| f64_to_u64(d(f64::NEG_INFINITY), e)), (0, NV));
    assert_eq!(flags_of(Rounding::Rtz, |e| f64_to_u32(d(-0.9), e)), (0, NX));
    assert_eq!(flags_of(Rounding::Rtz, |e| f64_to_u32(d(-1.0), e)), (0, NV));
    assert_eq!(flags_of(Rounding::Rdn, |e| f64_to_u32(d(-0.1), e)), (0, NV));
    assert_eq!(flags_of(Rounding::Rtz, |e| f64_to_i32(d(2_147_483_647.5), e)), (i32::MAX, NX));
    assert_eq!(flags_of(Rounding::Rup, |e| f64_to_i32(d(2_147_483_647.5), e)), (i32::MAX, NV));
    assert_eq!(flags_of(Rounding::Rtz, |e| f64_to_i64(d(9_223_372_036_854_775_808.0), e)), (i64::MAX, NV));
    assert_eq!(flags_of(Rounding::Rtz, |e| f32_to_i64(0xdf00_0000, e)), (i64::MIN, 0));
    assert_eq!(flags_of(Rounding::Rmm, |e| f64_to_i32(d(2.5), e)), (3, NX));
    assert_eq!(flags_of(Rounding::Rne, |e| f64_to_i32(d(2.5), e)), (2, NX));
}

#[test]
fn classes() {
    let of = [
        (d(f64::NEG_INFINITY), 0),
        (d(-1.0), 1),
        (d(-f64::MIN_POSITIVE / 2.0), 2),
        (NEGATIVE_ZERO, 3),
        (0, 4),
        (1, 5),
        (d(1.0), 6),
        (INF, 7),
        (SIGNALLING, 8),
        (NAN, 9),
    ];
    for (bits, class) in of {
        assert_eq!(f64_classify(bits), 1 << class, "{bits:#x}");
    }
    assert_eq!(f32_classify(0x8000_0000), 1 << 3);
    assert_eq!(f32_classify(0x7f80_0001), 1 << 8);
}

#[test]
fn boxes() {
    assert_eq!(box_f32(0x3f80_0000), 0xffff_ffff_3f80_0000);
    assert_eq!(unbox_f32(0xffff_ffff_3f80_0000), 0x3f80_0000);
    assert_eq!(unbox_f32(0xffff_fffe_3f80_0000), 0x7fc0_0000);
}

#[test]
fn reserved_rounding_modes_are_errors() {
    assert_eq!(Rounding::try_from(4), Ok(Rounding::Rmm));
    assert_eq!(Rounding::try_from(5), Err(ReservedRounding(5)));
}
