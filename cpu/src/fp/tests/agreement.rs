//! What the host's arithmetic is allowed to decide must be what the software decides.

use super::values::{Operands, Random};
use crate::fp::format::{F32, F64, Format};
use crate::fp::single::low;
use crate::fp::*;

/// Enough that every branch of the fast paths is taken thousands of times.
const ROUNDS: u32 = 100_000;

const MODES: [Rounding; 5] = [Rounding::Rne, Rounding::Rtz, Rounding::Rdn, Rounding::Rup, Rounding::Rmm];

/// One operation in both implementations, with results widened to 64 bits.
type Operation = fn(&Operands, &mut FpEnv) -> u64;

/// Draws operands and compares results and flags, in each mode, with NX accrued before and not.
fn agree(name: &str, host: Operation, software: Operation) {
    let mut random = Random::from_environment(name);
    for _ in 0..ROUNDS {
        let operands = Operands::draw(&mut random);
        for rm in MODES {
            for flags in [0, flag::NX] {
                let (mut env, mut expected_env) = (FpEnv { rm, flags }, FpEnv { rm, flags });
                let got = host(&operands, &mut env);
                let expected = software(&operands, &mut expected_env);
                assert!(
                    got == expected && env == expected_env,
                    "{name}: {got:#x} {env:?}, in software {expected:#x} {expected_env:?}, of {operands:x?} \
                     from flags {flags}",
                );
            }
        }
    }
}

#[test]
fn double_operations() {
    agree("f64_add", |o, e| f64_add(o.a, o.b, e), |o, e| soft::add::<F64>(o.a, o.b, e));
    agree("f64_mul", |o, e| f64_mul(o.a, o.b, e), |o, e| soft::mul::<F64>(o.a, o.b, e));
    agree("f64_div", |o, e| f64_div(o.a, o.b, e), |o, e| soft::div::<F64>(o.a, o.b, e));
    agree("f64_sqrt", |o, e| f64_sqrt(o.a, e), |o, e| soft::sqrt::<F64>(o.a, e));
    agree("f64_fma", |o, e| f64_fma(o.a, o.b, o.c, e), |o, e| soft::fma::<F64>(o.a, o.b, o.c, e));
    agree("f64_min", |o, e| f64_min(o.a, o.b, e), |o, e| soft::min::<F64>(o.a, o.b, e));
    agree("f64_max", |o, e| f64_max(o.a, o.b, e), |o, e| soft::max::<F64>(o.a, o.b, e));
    agree("f64_eq", |o, e| f64_eq(o.a, o.b, e).into(), |o, e| soft::eq::<F64>(o.a, o.b, e).into());
    agree("f64_lt", |o, e| f64_lt(o.a, o.b, e).into(), |o, e| soft::lt::<F64>(o.a, o.b, e).into());
    agree("f64_le", |o, e| f64_le(o.a, o.b, e).into(), |o, e| soft::le::<F64>(o.a, o.b, e).into());
}

#[test]
fn single_operations() {
    agree("f32_add", |o, e| f32_add(o.x, o.y, e).into(), |o, e| soft::add::<F32>(o.x.into(), o.y.into(), e));
    agree("f32_mul", |o, e| f32_mul(o.x, o.y, e).into(), |o, e| soft::mul::<F32>(o.x.into(), o.y.into(), e));
    agree("f32_div", |o, e| f32_div(o.x, o.y, e).into(), |o, e| soft::div::<F32>(o.x.into(), o.y.into(), e));
    agree("f32_sqrt", |o, e| f32_sqrt(o.x, e).into(), |o, e| soft::sqrt::<F32>(o.x.into(), e));
    agree(
        "f32_fma",
        |o, e| f32_fma(o.x, o.y, o.z, e).into(),
        |o, e| soft::fma::<F32>(o.x.into(), o.y.into(), o.z.into(), e),
    );
    agree("f32_min", |o, e| f32_min(o.x, o.y, e).into(), |o, e| soft::min::<F32>(o.x.into(), o.y.into(), e));
    agree("f32_max", |o, e| f32_max(o.x, o.y, e).into(), |o, e| soft::max::<F32>(o.x.into(), o.y.into(), e));
    agree(
        "f32_eq",
        |o, e| f32_eq(o.x, o.y, e).into(),
        |o, e| soft::eq::<F32>(o.x.into(), o.y.into(), e).into(),
    );
    agree(
        "f32_lt",
        |o, e| f32_lt(o.x, o.y, e).into(),
        |o, e| soft::lt::<F32>(o.x.into(), o.y.into(), e).into(),
    );
    agree(
        "f32_le",
        |o, e| f32_le(o.x, o.y, e).into(),
        |o, e| soft::le::<F32>(o.x.into(), o.y.into(), e).into(),
    );
}

#[test]
fn conversions_to_integers() {
    agree(
        "f64_to_i32",
        |o, e| i64::from(f64_to_i32(o.a, e)).cast_unsigned(),
        |o, e| to_integer::<F64, i32>(o.a, e),
    );
    agree("f64_to_u32", |o, e| f64_to_u32(o.a, e).into(), |o, e| to_integer::<F64, u32>(o.a, e));
    agree("f64_to_i64", |o, e| f64_to_i64(o.a, e).cast_unsigned(), |o, e| to_integer::<F64, i64>(o.a, e));
    agree("f64_to_u64", |o, e| f64_to_u64(o.a, e), |o, e| to_integer::<F64, u64>(o.a, e));
    agree(
        "f32_to_i32",
        |o, e| i64::from(f32_to_i32(o.x, e)).cast_unsigned(),
        |o, e| to_integer::<F32, i32>(o.x.into(), e),
    );
    agree("f32_to_u32", |o, e| f32_to_u32(o.x, e).into(), |o, e| to_integer::<F32, u32>(o.x.into(), e));
    agree(
        "f32_to_i64",
        |o, e| f32_to_i64(o.x, e).cast_unsigned(),
        |o, e| to_integer::<F32, i64>(o.x.into(), e),
    );
    agree("f32_to_u64", |o, e| f32_to_u64(o.x, e), |o, e| to_integer::<F32, u64>(o.x.into(), e));
}

/// The software's conversion within the bounds of `I`, sign-extended.
fn to_integer<F: Format, I: Bounds>(bits: u64, env: &mut FpEnv) -> u64 {
    let value = soft::to_integer::<F>(bits, I::LEAST, I::GREATEST, env);
    i64::try_from(value).map_or_else(|_| u64::try_from(value).expect("within bounds"), i64::cast_unsigned)
}

trait Bounds {
    const LEAST: i128;
    const GREATEST: i128;
}

macro_rules! bounds {
    ($($integer:ty)+) => {$(
        impl Bounds for $integer {
            const LEAST: i128 = <$integer>::MIN as i128;
            const GREATEST: i128 = <$integer>::MAX as i128;
        }
    )+};
}

bounds!(i32 u32 i64 u64);

#[test]
fn conversions_between_formats_and_from_integers() {
    agree("f32_to_f64", |o, e| f32_to_f64(o.x, e), |o, e| soft::widen(o.x.into(), e));
    agree("f64_to_f32", |o, e| f64_to_f32(o.a, e).into(), |o, e| soft::narrow(o.a, e));
    agree(
        "i32_to_f64",
        |o, e| i32_to_f64(low(o.a).cast_signed(), e),
        |o, e| soft::from_integer::<F64>(low(o.a).cast_signed().into(), e),
    );
    agree("u32_to_f64", |o, e| u32_to_f64(low(o.a), e), |o, e| soft::from_integer::<F64>(low(o.a).into(), e));
    agree(
        "i64_to_f64",
        |o, e| i64_to_f64(o.a.cast_signed(), e),
        |o, e| soft::from_integer::<F64>(o.a.cast_signed().into(), e),
    );
    agree("u64_to_f64", |o, e| u64_to_f64(o.a, e), |o, e| soft::from_integer::<F64>(o.a.into(), e));
    agree(
        "i32_to_f32",
        |o, e| i32_to_f32(low(o.a).cast_signed(), e).into(),
        |o, e| soft::from_integer::<F32>(low(o.a).cast_signed().into(), e),
    );
    agree(
        "u32_to_f32",
        |o, e| u32_to_f32(low(o.a), e).into(),
        |o, e| soft::from_integer::<F32>(low(o.a).into(), e),
    );
    agree(
        "i64_to_f32",
        |o, e| i64_to_f32(o.a.cast_signed(), e).into(),
        |o, e| soft::from_integer::<F32>(o.a.cast_signed().into(), e),
    );
    agree("u64_to_f32", |o, e| u64_to_f32(o.a, e).into(), |o, e| soft::from_integer::<F32>(o.a.into(), e));
}
