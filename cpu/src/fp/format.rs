//! The two interchange formats, and the step from bits to exact values.

/// A binary interchange format. Bits are held in the low end of a `u64` whatever the width, so that the software
/// core is one piece of code on one integer type.
pub trait Format {
    /// Width of the stored fraction.
    const FRAC_BITS: u32;
    /// Width of the biased exponent.
    const EXP_BITS: u32;

    /// The sign bit.
    const SIGN: u64 = 1 << (Self::FRAC_BITS + Self::EXP_BITS);
    /// The hidden bit of a normal number, and the lowest bit of the exponent field.
    const HIDDEN: u64 = 1 << Self::FRAC_BITS;
    /// Positive infinity; also the mask of the exponent field.
    const INF: u64 = ((1 << Self::EXP_BITS) - 1) << Self::FRAC_BITS;
    /// Set in a quiet NaN, clear in a signalling one.
    const QUIET: u64 = 1 << (Self::FRAC_BITS - 1);
    /// The canonical NaN.
    const NAN: u64 = Self::INF | Self::QUIET;
    /// Exponent of the largest binade.
    const EMAX: i32 = (1 << (Self::EXP_BITS - 1)) - 1;
    /// Exponent of the smallest normal binade.
    const EMIN: i32 = 1 - Self::EMAX;
    /// Exponent of the lowest bit of a subnormal.
    const QUANTUM: i32 = Self::EMIN - Self::FRAC_BITS.cast_signed();
}

/// binary32.
pub struct F32;
impl Format for F32 {
    const FRAC_BITS: u32 = 23;
    const EXP_BITS: u32 = 8;
}

/// binary64.
pub struct F64;
impl Format for F64 {
    const FRAC_BITS: u32 = 52;
    const EXP_BITS: u32 = 11;
}

/// The number `(-1)^negative * sig * 2^exp`, exactly. Not normalised; `sig` is zero for both zeros.
#[derive(Clone, Copy)]
pub struct Finite {
    pub negative: bool,
    pub exp: i32,
    pub sig: u64,
}

/// What is not a NaN.
#[derive(Clone, Copy)]
pub enum Number {
    Finite(Finite),
    /// Infinity; true when negative.
    Inf(bool),
}

/// The number that `bits` stand for; they must not be a NaN.
pub fn unpack<F: Format>(bits: u64) -> Number {
    let negative = bits & F::SIGN != 0;
    let fraction = bits & (F::HIDDEN - 1);
    let biased = (bits & F::INF) >> F::FRAC_BITS;
    if bits & F::INF == F::INF {
        debug_assert_eq!(fraction, 0, "NaNs are handled before unpacking");
        Number::Inf(negative)
    } else if biased == 0 {
        Number::Finite(Finite { negative, exp: F::QUANTUM, sig: fraction })
    } else {
        // At most 11 bits: the conversion can't fail.
        let above_lowest = i32::try_from(biased - 1).unwrap_or(i32::MAX);
        Number::Finite(Finite { negative, exp: F::QUANTUM + above_lowest, sig: fraction | F::HIDDEN })
    }
}

pub const fn is_nan<F: Format>(bits: u64) -> bool {
    bits & (F::SIGN - 1) > F::INF
}

pub const fn is_signalling<F: Format>(bits: u64) -> bool {
    is_nan::<F>(bits) && bits & F::QUIET == 0
}

pub const fn signed<F: Format>(negative: bool, magnitude: u64) -> u64 {
    if negative { F::SIGN | magnitude } else { magnitude }
}
