//! Conversions between floating point and integers.

use super::Exact;
use super::round::{pack, shift_right};
use crate::fp::format::{Format, Number, is_nan, unpack};
use crate::fp::{FpEnv, flag};

/// The nearest integer by the rounding mode. What lies outside `min..=max` after rounding is invalid and gives the
/// nearer bound; a NaN gives `max` (Unprivileged, "Single-Precision Floating-Point Conversion", table of ranges).
pub fn to_integer<F: Format>(a: u64, min: i128, max: i128, env: &mut FpEnv) -> i128 {
    let mut saturate = |bound| {
        env.flags |= flag::NV;
        bound
    };
    if is_nan::<F>(a) {
        return saturate(max);
    }
    let x = match unpack::<F>(a) {
        Number::Inf(negative) => return saturate(if negative { min } else { max }),
        Number::Finite(x) => x,
    };
    let (magnitude, inexact) = match x.exp {
        // Above every integer type, unless zero; and a zero's exponent isn't positive.
        65.. => return saturate(if x.negative { min } else { max }),
        0..=64 => (u128::from(x.sig) << x.exp, false),
        _ => shift_right(x.sig.into(), false, x.exp.unsigned_abs(), x.negative, env.rm),
    };
    // At most 53 + 64 bits: the sign bit is free.
    let value = if x.negative { -magnitude.cast_signed() } else { magnitude.cast_signed() };
    if value < min || value > max {
        env.flags |= flag::NV;
        return value.clamp(min, max);
    }
    if inexact {
        env.flags |= flag::NX;
    }
    value
}

/// The nearest number of the format, for an integer of at most 64 bits.
pub fn from_integer<F: Format>(value: i128, env: &mut FpEnv) -> u64 {
    pack::<F>(&Exact { negative: value < 0, exp: 0, sig: value.unsigned_abs(), sticky: false }, env)
}
