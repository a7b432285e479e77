//! Addition, multiplication, division, square root, fused multiply-add, and changes of format.

use super::round::pack;
use super::{Exact, invalid, nan_operand};
use crate::fp::format::{F32, F64, Finite, Format, Number, is_nan, signed, unpack};
use crate::fp::{FpEnv, Rounding, flag};

pub fn add<F: Format>(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        return nan_operand::<F>(&[a, b], env);
    }
    match (unpack::<F>(a), unpack::<F>(b)) {
        (Number::Inf(x), Number::Inf(y)) if x != y => invalid::<F>(env),
        (Number::Inf(negative), _) | (_, Number::Inf(negative)) => signed::<F>(negative, F::INF),
        (Number::Finite(x), Number::Finite(y)) => pack::<F>(&sum(exact(x), exact(y), env.rm), env),
    }
}

pub fn mul<F: Format>(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        return nan_operand::<F>(&[a, b], env);
    }
    match product(unpack::<F>(a), unpack::<F>(b)) {
        None => invalid::<F>(env),
        Some(Product::Inf(negative)) => signed::<F>(negative, F::INF),
        Some(Product::Finite(value)) => pack::<F>(&value, env),
    }
}

/// `a * b + c`, rounded once. Infinity times zero is invalid even when `c` is a quiet NaN.
pub fn fma<F: Format>(a: u64, b: u64, c: u64, env: &mut FpEnv) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        return nan_operand::<F>(&[a, b, c], env);
    }
    let Some(product) = product(unpack::<F>(a), unpack::<F>(b)) else {
        return invalid::<F>(env);
    };
    if is_nan::<F>(c) {
        return nan_operand::<F>(&[c], env);
    }
    match (product, unpack::<F>(c)) {
        (Product::Inf(x), Number::Inf(y)) if x != y => invalid::<F>(env),
        (Product::Inf(negative), _) | (_, Number::Inf(negative)) => signed::<F>(negative, F::INF),
        (Product::Finite(x), Number::Finite(y)) => pack::<F>(&sum(x, exact(y), env.rm), env),
    }
}

pub fn div<F: Format>(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        return nan_operand::<F>(&[a, b], env);
    }
    let negative = (a ^ b) & F::SIGN != 0;
    match (unpack::<F>(a), unpack::<F>(b)) {
        (Number::Inf(_), Number::Inf(_)) => invalid::<F>(env),
        (Number::Inf(_), Number::Finite(_)) => signed::<F>(negative, F::INF),
        (Number::Finite(_), Number::Inf(_)) => signed::<F>(negative, 0),
        (Number::Finite(x), Number::Finite(y)) => match (x.sig, y.sig) {
            (0, 0) => invalid::<F>(env),
            (0, _) => signed::<F>(negative, 0),
            (_, 0) => {
                env.flags |= flag::DZ;
                signed::<F>(negative, F::INF)
            }
            _ => pack::<F>(&quotient(negative, x, y), env),
        },
    }
}

pub fn sqrt<F: Format>(a: u64, env: &mut FpEnv) -> u64 {
    if is_nan::<F>(a) {
        return nan_operand::<F>(&[a], env);
    }
    match unpack::<F>(a) {
        Number::Finite(Finite { sig: 0, .. }) => a,
        Number::Inf(true) | Number::Finite(Finite { negative: true, .. }) => invalid::<F>(env),
        Number::Inf(false) => a,
        Number::Finite(x) => pack::<F>(&root(x), env),
    }
}

/// binary64 to binary32.
pub fn narrow(a: u64, env: &mut FpEnv) -> u64 {
    change::<F64, F32>(a, env)
}

/// binary32 to binary64.
pub fn widen(a: u64, env: &mut FpEnv) -> u64 {
    change::<F32, F64>(a, env)
}

fn change<From: Format, To: Format>(a: u64, env: &mut FpEnv) -> u64 {
    if is_nan::<From>(a) {
        nan_operand::<From>(&[a], env);
        return To::NAN;
    }
    match unpack::<From>(a) {
        Number::Inf(negative) => signed::<To>(negative, To::INF),
        Number::Finite(x) => pack::<To>(&exact(x), env),
    }
}

fn exact(x: Finite) -> Exact {
    Exact { negative: x.negative, exp: x.exp, sig: x.sig.into(), sticky: false }
}

enum Product {
    Finite(Exact),
    /// Infinity; true when negative.
    Inf(bool),
}

/// The exact product; none for infinity times zero.
fn product(x: Number, y: Number) -> Option<Product> {
    match (x, y) {
        (Number::Finite(x), Number::Finite(y)) => Some(Product::Finite(Exact {
            negative: x.negative != y.negative,
            exp: x.exp + y.exp,
            sig: u128::from(x.sig) * u128::from(y.sig),
            sticky: false,
        })),
        (Number::Inf(x), Number::Inf(y)) => Some(Product::Inf(x != y)),
        (Number::Inf(inf), Number::Finite(y)) | (Number::Finite(y), Number::Inf(inf)) => {
            (y.sig != 0).then_some(Product::Inf(inf != y.negative))
        }
    }
}

/// Where [`align`] puts the leading bit: below the highest bit by one place for a carry and one kept free.
const LEADING: u32 = 125;

/// Shifts the (nonzero) significand so that its leading bit is at [`LEADING`].
fn align(x: &mut Exact) {
    let up = LEADING - x.sig.ilog2();
    x.sig <<= up;
    x.exp -= up.cast_signed();
}

/// `x + y` for exact operands of up to 106 bits.
///
/// The smaller operand loses bits only when it is shifted by more than 20 places; then nothing cancels, the sum
/// keeps its leading bit at 124 or higher, and a sticky note of what was lost is enough to round.
fn sum(mut x: Exact, mut y: Exact, rm: Rounding) -> Exact {
    match (x.sig, y.sig) {
        (0, 0) => {
            let negative = if x.negative == y.negative { x.negative } else { rm == Rounding::Rdn };
            return Exact { negative, ..x };
        }
        (0, _) => return y,
        (_, 0) => return x,
        _ => {}
    }
    align(&mut x);
    align(&mut y);
    if (x.exp, x.sig) < (y.exp, y.sig) {
        std::mem::swap(&mut x, &mut y);
    }
    let distance = (x.exp - y.exp).unsigned_abs();
    let shifted = y.sig.checked_shr(distance).unwrap_or(0);
    let sticky = shifted.checked_shl(distance) != Some(y.sig);
    if x.negative == y.negative {
        return Exact { sig: x.sig + shifted, sticky, ..x };
    }
    // What is left after taking away `shifted` and a little more is one less, and the rest of that one.
    let sig = x.sig - shifted - u128::from(sticky);
    let negative = if sig == 0 { rm == Rounding::Rdn } else { x.negative };
    Exact { negative, sig, sticky, ..x }
}

/// `x / y`, both nonzero, to at least 63 bits.
fn quotient(negative: bool, x: Finite, y: Finite) -> Exact {
    let mut x = exact(x);
    align(&mut x);
    let divisor = u128::from(y.sig);
    // 126 bits by at most 53: at least 73 bits of quotient.
    let sig = x.sig / divisor;
    Exact { negative, exp: x.exp - y.exp, sig, sticky: sig * divisor != x.sig }
}

/// The square root of a positive number, to 63 bits.
fn root(x: Finite) -> Exact {
    let mut x = exact(x);
    align(&mut x);
    if x.exp % 2 != 0 {
        x.sig >>= 1; // The lowest of its bits is zero.
        x.exp += 1;
    }
    let sig = x.sig.isqrt();
    Exact { negative: false, exp: x.exp / 2, sig, sticky: sig * sig != x.sig }
}
