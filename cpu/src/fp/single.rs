//! binary32 operations, on the host's arithmetic where that is provably the same.
//!
//! The conditions are those of [`super::double`]. Here NX never needs the software: a double holds the product of
//! two singles exactly, which tells whether a result of mode RNE was rounded.

use super::format::{F32, Format};
use super::{FpEnv, Rounding, flag, soft};

const SIGN: u32 = 1 << 31;

/// `a + b`.
#[inline]
pub fn f32_add(a: u32, b: u32, env: &mut FpEnv) -> u32 {
    if env.rm == Rounding::Rne {
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        let sum = x + y;
        if sum.is_finite() {
            if env.flags & flag::NX != 0 {
                return sum.to_bits();
            }
            // Knuth's TwoSum: the exact rounding error, unless a step overflows and makes it a NaN.
            let from_y = sum - x;
            let error = (x - (sum - from_y)) + (y - from_y);
            if error == 0.0 {
                return sum.to_bits();
            }
        }
    }
    add_in_software(a, b, env)
}

/// `a - b`.
#[inline]
pub fn f32_sub(a: u32, b: u32, env: &mut FpEnv) -> u32 {
    f32_add(a, b ^ SIGN, env)
}

/// `a * b`.
#[inline]
pub fn f32_mul(a: u32, b: u32, env: &mut FpEnv) -> u32 {
    if env.rm == Rounding::Rne {
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        let product = x * y;
        if well_normal(product) {
            note(f64::from(product) != f64::from(x) * f64::from(y), env);
            return product.to_bits();
        }
        if product == 0.0 && (x == 0.0 || y == 0.0) {
            return product.to_bits();
        }
    }
    mul_in_software(a, b, env)
}

/// `a / b`.
#[inline]
pub fn f32_div(a: u32, b: u32, env: &mut FpEnv) -> u32 {
    if env.rm == Rounding::Rne {
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        let quotient = x / y;
        if well_normal(quotient) {
            note(f64::from(quotient) * f64::from(y) != f64::from(x), env);
            return quotient.to_bits();
        }
        if quotient == 0.0 && x == 0.0 {
            return quotient.to_bits();
        }
    }
    div_in_software(a, b, env)
}

/// The square root of `a`.
#[inline]
pub fn f32_sqrt(a: u32, env: &mut FpEnv) -> u32 {
    if env.rm == Rounding::Rne {
        let x = f32::from_bits(a);
        let root = x.sqrt();
        if well_normal(root) {
            note(f64::from(root) * f64::from(root) != f64::from(x), env);
            return root.to_bits();
        }
        if x == 0.0 {
            return a;
        }
    }
    sqrt_in_software(a, env)
}

/// `a * b + c`, rounded once; through doubles, so that it needs no FMA of the host.
///
/// The product is exact. The sum is rounded to odd: when it isn't exact, its last bit is made one by going the way of
/// the error. 53 bits rounded to odd round to 24 as the exact sum would (Boldo and Melquiond, 2008).
#[inline]
pub fn f32_fma(a: u32, b: u32, c: u32, env: &mut FpEnv) -> u32 {
    if env.rm == Rounding::Rne {
        let [x, y, z] = [a, b, c].map(|bits| f64::from(f32::from_bits(bits)));
        let product = x * y;
        let sum = product + z;
        let from_z = sum - product;
        let error = (product - (sum - from_z)) + (z - from_z);
        let odd = if error == 0.0 || sum.to_bits() & 1 == 1 {
            sum
        } else if (error > 0.0) == (sum > 0.0) {
            f64::from_bits(sum.to_bits() + 1)
        } else {
            f64::from_bits(sum.to_bits().wrapping_sub(1))
        };
        #[expect(clippy::cast_possible_truncation, reason = "this is the rounding to single")]
        let result = odd as f32;
        if well_normal(result) {
            note(error != 0.0 || f64::from(result) != sum, env);
            return result.to_bits();
        }
        if sum == 0.0 && error == 0.0 {
            return result.to_bits();
        }
    }
    fma_in_software(a, b, c, env)
}

/// The lesser; a NaN loses against a number.
#[inline]
pub fn f32_min(a: u32, b: u32, env: &mut FpEnv) -> u32 {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    if x < y {
        a
    } else if y < x {
        b
    } else {
        min_in_software(a, b, env)
    }
}

/// The greater; a NaN loses against a number.
#[inline]
pub fn f32_max(a: u32, b: u32, env: &mut FpEnv) -> u32 {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    if x > y {
        a
    } else if y > x {
        b
    } else {
        max_in_software(a, b, env)
    }
}

/// Quiet equality: NV for a signalling NaN only.
#[inline]
pub fn f32_eq(a: u32, b: u32, env: &mut FpEnv) -> bool {
    match f32::from_bits(a).partial_cmp(&f32::from_bits(b)) {
        Some(order) => order.is_eq(),
        None => soft::eq::<F32>(a.into(), b.into(), env),
    }
}

/// `a < b`, NV for any NaN.
#[inline]
pub fn f32_lt(a: u32, b: u32, env: &mut FpEnv) -> bool {
    match f32::from_bits(a).partial_cmp(&f32::from_bits(b)) {
        Some(order) => order.is_lt(),
        None => soft::lt::<F32>(a.into(), b.into(), env),
    }
}

/// `a <= b`, NV for any NaN.
#[inline]
pub fn f32_le(a: u32, b: u32, env: &mut FpEnv) -> bool {
    match f32::from_bits(a).partial_cmp(&f32::from_bits(b)) {
        Some(order) => order.is_le(),
        None => soft::le::<F32>(a.into(), b.into(), env),
    }
}

/// The mask of `fclass.s`.
#[inline]
pub fn f32_classify(a: u32) -> u16 {
    soft::classify::<F32>(a.into())
}

/// Finite and above the smallest normal number (which a tiny result may have been rounded up to): the exponent
/// field is neither 0, nor 1, nor all ones. One compare.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a single's constants fit 32 bits, even doubled")]
pub(super) fn well_normal(x: f32) -> bool {
    const LOWEST: u32 = (2 * (F32::HIDDEN << 1)) as u32;
    const INF: u32 = (F32::INF << 1) as u32;
    (x.to_bits() << 1).wrapping_sub(LOWEST) < INF - LOWEST
}

#[inline]
fn note(inexact: bool, env: &mut FpEnv) {
    env.flags |= if inexact { flag::NX } else { 0 };
}

/// The low half of what the software core returns for a binary32.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the core holds a single in the low half")]
pub(super) fn low(bits: u64) -> u32 {
    bits as u32
}

#[cold]
#[inline(never)]
fn add_in_software(a: u32, b: u32, env: &mut FpEnv) -> u32 {
    low(soft::add::<F32>(a.into(), b.into(), env))
}

#[cold]
#[inline(never)]
fn mul_in_software(a: u32, b: u32, env: &mut FpEnv) -> u32 {
    low(soft::mul::<F32>(a.into(), b.into(), env))
}

#[cold]
#[inline(never)]
fn div_in_software(a: u32, b: u32, env: &mut FpEnv) -> u32 {
    low(soft::div::<F32>(a.into(), b.into(), env))
}

#[cold]
#[inline(never)]
fn sqrt_in_software(a: u32, env: &mut FpEnv) -> u32 {
    low(soft::sqrt::<F32>(a.into(), env))
}

#[cold]
#[inline(never)]
fn fma_in_software(a: u32, b: u32, c: u32, env: &mut FpEnv) -> u32 {
    low(soft::fma::<F32>(a.into(), b.into(), c.into(), env))
}

#[cold]
#[inline(never)]
fn min_in_software(a: u32, b: u32, env: &mut FpEnv) -> u32 {
    low(soft::min::<F32>(a.into(), b.into(), env))
}

#[cold]
#[inline(never)]
fn max_in_software(a: u32, b: u32, env: &mut FpEnv) -> u32 {
    low(soft::max::<F32>(a.into(), b.into(), env))
}
