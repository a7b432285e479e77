//! IEEE 754 arithmetic, bit-exact on every host.
//!
//! The results, the accrued flags and the canonical NaN are those of RISC-V Unprivileged, chapters "F" and "D":
//! all five rounding modes, tininess detected after rounding, NaN payloads never propagated. Operands and
//! results are raw bits, so no host register ever gets to quieten a NaN or to widen a single.
//!
//! Each operation has two implementations that must agree:
//! - [`soft`]: exact integer arithmetic and one rounding function, the definition;
//! - the functions of this module, which try the host's own arithmetic first and accept its result only where
//!   value *and* flags follow from it (see [`double`] and [`single`] for the conditions).
//!
//! `fsub`, `fmsub`, `fnmadd` and `fnmsub` are an addition or an FMA with operands of flipped sign; the sign of
//! a NaN operand has no influence on anything, so that flipping is always allowed.

mod convert;
mod double;
mod format;
mod single;
mod soft;
#[cfg(test)]
mod tests;

pub use convert::*;
pub use double::*;
pub use single::*;

/// Accrued exception flags, in the bit order of `fcsr.fflags`.
pub mod flag {
    /// Inexact: the result was rounded.
    pub const NX: u8 = 1;
    /// Underflow: the result is tiny after rounding, and inexact.
    pub const UF: u8 = 2;
    /// Overflow: the rounded result exceeds the largest finite number.
    pub const OF: u8 = 4;
    /// An exact infinity from finite operands (division by zero).
    pub const DZ: u8 = 8;
    /// Invalid operation.
    pub const NV: u8 = 16;
}

/// The rounding modes, numbered as in `fcsr.frm` and in an instruction's `rm` field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Rounding {
    /// To nearest, ties to even.
    Rne = 0,
    /// Towards zero.
    Rtz = 1,
    /// Down, towards negative infinity.
    Rdn = 2,
    /// Up, towards positive infinity.
    Rup = 3,
    /// To nearest, ties away from zero.
    Rmm = 4,
}

/// A rounding mode number that the specification reserves: the instruction is illegal. (7, "dynamic", is a
/// property of the instruction and has to be replaced by `frm` before it gets here.)
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("rounding mode {0} is reserved; only 0 to 4 name one")]
pub struct ReservedRounding(pub u8);

impl TryFrom<u8> for Rounding {
    type Error = ReservedRounding;

    #[inline]
    fn try_from(number: u8) -> Result<Self, ReservedRounding> {
        Ok(match number {
            0 => Self::Rne,
            1 => Self::Rtz,
            2 => Self::Rdn,
            3 => Self::Rup,
            4 => Self::Rmm,
            reserved => return Err(ReservedRounding(reserved)),
        })
    }
}

/// What an operation reads and changes besides its operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FpEnv {
    /// The rounding mode in force.
    pub rm: Rounding,
    /// Accrued [`flag`]s. Operations only ever set bits; start from the accrued flags of the hart rather than
    /// from zero, since an accrued NX is what opens the fastest path.
    pub flags: u8,
}

/// NaN-boxes a single into a 64-bit register (Unprivileged, "NaN Boxing of Narrower Values").
#[inline]
pub const fn box_f32(bits: u32) -> u64 {
    0xffff_ffff_0000_0000 | bits as u64
}

/// Reads a single from a 64-bit register: what isn't properly boxed counts as the canonical NaN.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low half is the boxed value")]
pub const fn unbox_f32(register: u64) -> u32 {
    if register >= 0xffff_ffff_0000_0000 { register as u32 } else { 0x7fc0_0000 }
}
