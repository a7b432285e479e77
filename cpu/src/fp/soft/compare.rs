//! Comparisons, minimum and maximum, classification.

use std::cmp::Ordering;

use crate::fp::format::{Format, is_nan, is_signalling};
use crate::fp::{FpEnv, flag};

/// Quiet: only a signalling NaN is invalid.
pub fn eq<F: Format>(a: u64, b: u64, env: &mut FpEnv) -> bool {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        quiet::<F>(a, b, env);
        return false;
    }
    key::<F>(a) == key::<F>(b)
}

/// Signalling: any NaN is invalid.
pub fn lt<F: Format>(a: u64, b: u64, env: &mut FpEnv) -> bool {
    ordered::<F>(a, b, env) && key::<F>(a) < key::<F>(b)
}

/// Signalling: any NaN is invalid.
pub fn le<F: Format>(a: u64, b: u64, env: &mut FpEnv) -> bool {
    ordered::<F>(a, b, env) && key::<F>(a) <= key::<F>(b)
}

/// IEEE 754-2019 `minimumNumber`: a NaN loses against a number, and -0 is less than +0.
pub fn min<F: Format>(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    choose::<F>(a, b, env, Ordering::is_lt)
}

/// IEEE 754-2019 `maximumNumber`: a NaN loses against a number, and -0 is less than +0.
pub fn max<F: Format>(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    choose::<F>(a, b, env, Ordering::is_gt)
}

/// The mask of `fclass`: one bit of ten.
pub fn classify<F: Format>(a: u64) -> u16 {
    let negative = a & F::SIGN != 0;
    let magnitude = a & (F::SIGN - 1);
    let bit = if is_nan::<F>(a) {
        if is_signalling::<F>(a) { 8 } else { 9 }
    } else {
        // Classes of a positive number, counted outwards from zero; the negative ones mirror them.
        let outwards = match magnitude {
            0 => 0,
            m if m < F::HIDDEN => 1,
            m if m < F::INF => 2,
            _ => 3,
        };
        if negative { 3 - outwards } else { 4 + outwards }
    };
    1 << bit
}

fn quiet<F: Format>(a: u64, b: u64, env: &mut FpEnv) {
    if is_signalling::<F>(a) || is_signalling::<F>(b) {
        env.flags |= flag::NV;
    }
}

fn ordered<F: Format>(a: u64, b: u64, env: &mut FpEnv) -> bool {
    let ordered = !(is_nan::<F>(a) || is_nan::<F>(b));
    if !ordered {
        env.flags |= flag::NV;
    }
    ordered
}

/// An integer that orders numbers as their values do, both zeros alike.
fn key<F: Format>(bits: u64) -> i64 {
    let magnitude = (bits & (F::SIGN - 1)).cast_signed();
    if bits & F::SIGN == 0 { magnitude } else { -magnitude }
}

/// `before` is told how the first operand compares with the second, -0 being less than +0.
fn choose<F: Format>(a: u64, b: u64, env: &mut FpEnv, before: fn(Ordering) -> bool) -> u64 {
    quiet::<F>(a, b, env);
    let rank = |bits: u64| (key::<F>(bits), bits & F::SIGN == 0);
    match (is_nan::<F>(a), is_nan::<F>(b)) {
        (true, true) => F::NAN,
        (true, false) => b,
        (false, true) => a,
        (false, false) if before(rank(a).cmp(&rank(b))) => a,
        (false, false) => b,
    }
}
