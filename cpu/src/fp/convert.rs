//! Conversions between the formats, and between them and integers.
//!
//! Results of the 32-bit integer conversions are plain 32-bit values: the caller sign-extends both signed and
//! unsigned ones into a register (Unprivileged, `FCVT.W.S` and `FCVT.WU.S` on RV64).

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "every cast here is within the type's range, or is the rounding that is asked for"
)]

use super::format::{F32, F64, Format};
use super::single::{low, well_normal};
use super::{FpEnv, Rounding, flag, soft};

/// binary32 to binary64: exact but for a signalling NaN.
#[inline]
pub fn f32_to_f64(a: u32, env: &mut FpEnv) -> u64 {
    let x = f32::from_bits(a);
    if x.is_nan() { widen_in_software(a, env) } else { f64::from(x).to_bits() }
}

/// binary64 to binary32.
#[inline]
pub fn f64_to_f32(a: u64, env: &mut FpEnv) -> u32 {
    if env.rm == Rounding::Rne {
        let x = f64::from_bits(a);
        let result = x as f32;
        if well_normal(result) || x == 0.0 {
            env.flags |= if f64::from(result) == x { 0 } else { flag::NX };
            return result.to_bits();
        }
    }
    narrow_in_software(a, env)
}

/// Conversions to integers. The host's truncation serves mode RTZ, which is C's and so nearly every one, for what lies
/// in the given range: all that truncates to a value of the integer type.
macro_rules! to_integer {
    ($($name:ident, $software:ident: $format:ty, $bits:ty, $float:ty => $integer:ty, $range:expr;)*) => {$(
        #[doc = concat!("`", stringify!($float), "` to `", stringify!($integer), "`, saturating with NV.")]
        #[inline]
        pub fn $name(a: $bits, env: &mut FpEnv) -> $integer {
            let x = <$float>::from_bits(a);
            if env.rm == Rounding::Rtz && $range.contains(&x) {
                let truncated = x as $integer;
                env.flags |= if truncated as $float == x { 0 } else { flag::NX };
                return truncated;
            }
            $software(a, env)
        }

        #[cold]
        #[inline(never)]
        fn $software(a: $bits, env: &mut FpEnv) -> $integer {
            let (min, max) = (<$integer>::MIN.into(), <$integer>::MAX.into());
            soft::to_integer::<$format>(a.into(), min, max, env) as $integer
        }
    )*};
}

const TWO_31: f64 = 2_147_483_648.0;
const TWO_32: f64 = 2.0 * TWO_31;
const TWO_63: f64 = TWO_31 * TWO_32;
const TWO_64: f64 = TWO_32 * TWO_32;
/// The greatest single below 1: what is at least its negative truncates to zero or more.
const BELOW_ONE_F32: f32 = 1.0 - f32::EPSILON / 2.0;
/// The greatest double below 1.
const BELOW_ONE: f64 = 1.0 - f64::EPSILON / 2.0;

to_integer! {
    f32_to_i32, f32_to_i32_in_software: F32, u32, f32 => i32, (-TWO_31 as f32..TWO_31 as f32);
    f32_to_u32, f32_to_u32_in_software: F32, u32, f32 => u32, (-BELOW_ONE_F32..TWO_32 as f32);
    f32_to_i64, f32_to_i64_in_software: F32, u32, f32 => i64, (-TWO_63 as f32..TWO_63 as f32);
    f32_to_u64, f32_to_u64_in_software: F32, u32, f32 => u64, (-BELOW_ONE_F32..TWO_64 as f32);
    f64_to_i32, f64_to_i32_in_software: F64, u64, f64 => i32, (-TWO_31..TWO_31);
    f64_to_u32, f64_to_u32_in_software: F64, u64, f64 => u32, (-BELOW_ONE..TWO_32);
    f64_to_i64, f64_to_i64_in_software: F64, u64, f64 => i64, (-TWO_63..TWO_63);
    f64_to_u64, f64_to_u64_in_software: F64, u64, f64 => u64, (-BELOW_ONE..TWO_64);
}

/// `i32` to binary64, exact.
#[inline]
pub fn i32_to_f64(value: i32, _env: &mut FpEnv) -> u64 {
    f64::from(value).to_bits()
}

/// `u32` to binary64, exact.
#[inline]
pub fn u32_to_f64(value: u32, _env: &mut FpEnv) -> u64 {
    f64::from(value).to_bits()
}

/// Conversions from integers that may round: exact in every mode if the value has no more bits than the format; the
/// host's rounding serves mode RNE once NX has accrued.
macro_rules! from_integer {
    ($($name:ident, $software:ident: $integer:ty => $format:ty, $float:ty, $bits:ty, $low:expr;)*) => {$(
        #[doc = concat!("`", stringify!($integer), "` to `", stringify!($float), "`.")]
        #[inline]
        pub fn $name(value: $integer, env: &mut FpEnv) -> $bits {
            let fits = magnitude(value.into()) <= 2 * <$format>::HIDDEN;
            if fits || (env.rm == Rounding::Rne && env.flags & flag::NX != 0) {
                return (value as $float).to_bits();
            }
            $software(value, env)
        }

        #[cold]
        #[inline(never)]
        fn $software(value: $integer, env: &mut FpEnv) -> $bits {
            $low(soft::from_integer::<$format>(value.into(), env))
        }
    )*};
}

from_integer! {
    i32_to_f32, i32_to_f32_in_software: i32 => F32, f32, u32, low;
    u32_to_f32, u32_to_f32_in_software: u32 => F32, f32, u32, low;
    i64_to_f32, i64_to_f32_in_software: i64 => F32, f32, u32, low;
    u64_to_f32, u64_to_f32_in_software: u64 => F32, f32, u32, low;
    i64_to_f64, i64_to_f64_in_software: i64 => F64, f64, u64, u64::from;
    u64_to_f64, u64_to_f64_in_software: u64 => F64, f64, u64, u64::from;
}

#[inline]
fn magnitude(value: i128) -> u64 {
    value.unsigned_abs() as u64
}

#[cold]
#[inline(never)]
fn widen_in_software(a: u32, env: &mut FpEnv) -> u64 {
    soft::widen(a.into(), env)
}

#[cold]
#[inline(never)]
fn narrow_in_software(a: u64, env: &mut FpEnv) -> u32 {
    low(soft::narrow(a, env))
}
