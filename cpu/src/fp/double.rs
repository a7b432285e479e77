//! binary64 operations, on the host's arithmetic where that is provably the same.
//!
//! The host computes in its default environment: to nearest even, flags unread. That gives the value in mode RNE.
//! The flags follow without asking the host:
//! - A sum that is finite raises nothing but NX (a subnormal sum is always exact).
//! - Any other result that is finite and above the smallest normal number comes from finite operands, and raises
//!   nothing but NX. Zeros are accepted from zero operands.
//! - NX makes no difference when it has accrued already. Otherwise it has to be proved or disproved; where that
//!   is dearer than the software, the software decides.

use super::format::{F64, Format};
use super::{FpEnv, Rounding, flag, soft};

/// `a + b`.
#[inline]
pub fn f64_add(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    if env.rm == Rounding::Rne {
        let (x, y) = (f64::from_bits(a), f64::from_bits(b));
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
pub fn f64_sub(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    f64_add(a, b ^ F64::SIGN, env)
}

/// `a * b`.
#[inline]
pub fn f64_mul(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    if env.rm == Rounding::Rne {
        let product = (f64::from_bits(a) * f64::from_bits(b)).to_bits();
        let fast = if well_normal(product) {
            env.flags & flag::NX != 0 || product_fits(a, b)
        } else {
            is_zero(product) && (is_zero(a) || is_zero(b))
        };
        if fast {
            return product;
        }
    }
    mul_in_software(a, b, env)
}

/// `a / b`.
#[inline]
pub fn f64_div(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    if env.rm == Rounding::Rne {
        let (x, y) = (f64::from_bits(a), f64::from_bits(b));
        let quotient = (x / y).to_bits();
        let fast = if well_normal(quotient) {
            env.flags & flag::NX != 0
                || (well_normal(a) && product_fits(quotient, b) && f64::from_bits(quotient) * y == x)
        } else {
            is_zero(quotient) && is_zero(a)
        };
        if fast {
            return quotient;
        }
    }
    div_in_software(a, b, env)
}

/// The square root of `a`.
#[inline]
pub fn f64_sqrt(a: u64, env: &mut FpEnv) -> u64 {
    if env.rm == Rounding::Rne {
        let x = f64::from_bits(a);
        let root = x.sqrt();
        let fast = if well_normal(root.to_bits()) {
            env.flags & flag::NX != 0
                || (well_normal(a) && product_fits(root.to_bits(), root.to_bits()) && root * root == x)
        } else {
            is_zero(a)
        };
        if fast {
            return root.to_bits();
        }
    }
    sqrt_in_software(a, env)
}

/// `a * b + c`, rounded once.
#[inline]
pub fn f64_fma(a: u64, b: u64, c: u64, env: &mut FpEnv) -> u64 {
    if env.rm == Rounding::Rne && env.flags & flag::NX != 0 && host_has_fma() {
        let result = f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits();
        if well_normal(result) {
            return result;
        }
    }
    fma_in_software(a, b, c, env)
}

/// The lesser; a NaN loses against a number.
#[inline]
pub fn f64_min(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    let (x, y) = (f64::from_bits(a), f64::from_bits(b));
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
pub fn f64_max(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    let (x, y) = (f64::from_bits(a), f64::from_bits(b));
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
pub fn f64_eq(a: u64, b: u64, env: &mut FpEnv) -> bool {
    match f64::from_bits(a).partial_cmp(&f64::from_bits(b)) {
        Some(order) => order.is_eq(),
        None => soft::eq::<F64>(a, b, env),
    }
}

/// `a < b`, NV for any NaN.
#[inline]
pub fn f64_lt(a: u64, b: u64, env: &mut FpEnv) -> bool {
    match f64::from_bits(a).partial_cmp(&f64::from_bits(b)) {
        Some(order) => order.is_lt(),
        None => soft::lt::<F64>(a, b, env),
    }
}

/// `a <= b`, NV for any NaN.
#[inline]
pub fn f64_le(a: u64, b: u64, env: &mut FpEnv) -> bool {
    match f64::from_bits(a).partial_cmp(&f64::from_bits(b)) {
        Some(order) => order.is_le(),
        None => soft::le::<F64>(a, b, env),
    }
}

/// The mask of `fclass.d`.
#[inline]
pub fn f64_classify(a: u64) -> u16 {
    soft::classify::<F64>(a)
}

/// Finite and above the smallest normal number (which a tiny result may have been rounded up to): the exponent
/// field is neither 0, nor 1, nor all ones. One compare.
#[inline]
fn well_normal(bits: u64) -> bool {
    (bits << 1).wrapping_sub(2 * (F64::HIDDEN << 1)) < (F64::INF << 1) - 2 * (F64::HIDDEN << 1)
}

#[inline]
fn is_zero(bits: u64) -> bool {
    bits << 1 == 0
}

/// Whether the significands of two finite numbers have so many trailing zeros that their product needs no more
/// than 53 bits. Sufficient, and nearly necessary.
#[inline]
fn product_fits(a: u64, b: u64) -> bool {
    (a | F64::HIDDEN).trailing_zeros() + (b | F64::HIDDEN).trailing_zeros() > F64::FRAC_BITS
}

/// Whether [`f64::mul_add`] ends in the host's own instruction. (Where it doesn't, it is right but slow.)
#[inline]
fn host_has_fma() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
    return cfg!(any(
        target_arch = "aarch64",
        target_arch = "powerpc64",
        target_arch = "s390x",
        target_arch = "riscv64"
    ));
}

#[cold]
#[inline(never)]
fn add_in_software(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    soft::add::<F64>(a, b, env)
}

#[cold]
#[inline(never)]
fn mul_in_software(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    soft::mul::<F64>(a, b, env)
}

#[cold]
#[inline(never)]
fn div_in_software(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    soft::div::<F64>(a, b, env)
}

#[cold]
#[inline(never)]
fn sqrt_in_software(a: u64, env: &mut FpEnv) -> u64 {
    soft::sqrt::<F64>(a, env)
}

#[cold]
#[inline(never)]
fn fma_in_software(a: u64, b: u64, c: u64, env: &mut FpEnv) -> u64 {
    soft::fma::<F64>(a, b, c, env)
}

#[cold]
#[inline(never)]
fn min_in_software(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    soft::min::<F64>(a, b, env)
}

#[cold]
#[inline(never)]
fn max_in_software(a: u64, b: u64, env: &mut FpEnv) -> u64 {
    soft::max::<F64>(a, b, env)
}
