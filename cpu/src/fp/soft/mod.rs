//! The definition of every operation, in integers, independent of the host's floating point.
//!
//! Each operation brings its exact result (or its leading bits and a note that more follows) into an [`Exact`]
//! and hands that to [`round::pack`], the only place where a result is rounded.

mod arith;
mod compare;
mod integer;
mod round;

pub use arith::{add, div, fma, mul, narrow, sqrt, widen};
pub use compare::{classify, eq, le, lt, max, min};
pub use integer::{from_integer, to_integer};

use super::format::{Format, is_signalling};
use super::{FpEnv, flag};

/// A result before rounding: `(-1)^negative * (sig + rest) * 2^exp`, where `rest` is zero, or, if `sticky`,
/// something between 0 and 1. A sticky `sig` has at least two bits more than the format's precision, and no
/// `sig` uses the highest bit.
struct Exact {
    negative: bool,
    exp: i32,
    sig: u128,
    sticky: bool,
}

/// The result of an operation with a NaN among its operands.
fn nan_operand<F: Format>(operands: &[u64], env: &mut FpEnv) -> u64 {
    if operands.iter().any(|&bits| is_signalling::<F>(bits)) {
        env.flags |= flag::NV;
    }
    F::NAN
}

/// The result of an operation that has none.
fn invalid<F: Format>(env: &mut FpEnv) -> u64 {
    env.flags |= flag::NV;
    F::NAN
}
