//! Rounding, once.

use std::cmp::Ordering;

use super::Exact;
use crate::fp::format::{Format, signed};
use crate::fp::{FpEnv, Rounding, flag};

/// Drops the low `shift` bits of a magnitude `sig + rest` and rounds what is left. Returns the rounded integer and
/// whether anything was lost. `sig` is below 2^127, and so below half of any unit that is shifted out whole.
pub fn shift_right(sig: u128, sticky: bool, shift: u32, negative: bool, rm: Rounding) -> (u128, bool) {
    debug_assert!(sig < 1 << 127, "the highest bit is kept free");
    let (kept, lost, against_half) = match shift {
        0 => (sig, sticky, Ordering::Less),
        1..=127 => {
            let rest = sig & ((1 << shift) - 1);
            let order = rest.cmp(&(1 << (shift - 1)));
            (sig >> shift, rest != 0 || sticky, if sticky { order.then(Ordering::Greater) } else { order })
        }
        _ => (0, sig != 0 || sticky, Ordering::Less),
    };
    let away = match rm {
        Rounding::Rne => against_half.is_gt() || (against_half.is_eq() && kept & 1 == 1),
        Rounding::Rmm => against_half.is_ge(),
        Rounding::Rtz => false,
        Rounding::Rdn => lost && negative,
        Rounding::Rup => lost && !negative,
    };
    (kept + u128::from(away), lost)
}

/// Rounds to the format and raises NX, UF and OF.
#[expect(clippy::cast_possible_truncation, reason = "a rounded significand has at most 54 bits")]
pub fn pack<F: Format>(value: &Exact, env: &mut FpEnv) -> u64 {
    let &Exact { negative, exp, sig, sticky } = value;
    if sig == 0 {
        debug_assert!(!sticky, "a sticky value has leading bits");
        return signed::<F>(negative, 0);
    }
    let leading = exp + sig.ilog2().cast_signed();
    if leading > F::EMAX {
        return overflow::<F>(negative, env);
    }
    // The exponent of the result's lowest bit, if its exponent were unbounded below, and as it is.
    let unbounded = leading - F::FRAC_BITS.cast_signed();
    let lowest = unbounded.max(F::QUANTUM);
    let (kept, inexact) = round_at(value, lowest, env.rm);

    if inexact {
        env.flags |= flag::NX;
        // Tiny after rounding: rounded to full precision it still lies below the normal numbers. (Just below
        // them it may round up to the smallest one.)
        let tiny = leading < F::EMIN
            && (leading < F::EMIN - 1 || round_at(value, unbounded, env.rm).0 < u128::from(F::HIDDEN) << 1);
        if tiny {
            env.flags |= flag::UF;
        }
    }
    // The hidden bit, or a carry out of the fraction, moves the exponent field up by itself.
    let magnitude = (u64::from((lowest - F::QUANTUM).unsigned_abs()) << F::FRAC_BITS) + kept as u64;
    if magnitude >= F::INF { overflow::<F>(negative, env) } else { signed::<F>(negative, magnitude) }
}

/// Rounds to an integer multiple of 2^`lowest`; returns the integer and whether it is inexact.
fn round_at(value: &Exact, lowest: i32, rm: Rounding) -> (u128, bool) {
    let shift = lowest - value.exp;
    if shift < 0 {
        debug_assert!(!value.sticky, "a sticky value has bits to spare");
        (value.sig << shift.unsigned_abs(), false)
    } else {
        shift_right(value.sig, value.sticky, shift.unsigned_abs(), value.negative, rm)
    }
}

fn overflow<F: Format>(negative: bool, env: &mut FpEnv) -> u64 {
    env.flags |= flag::OF | flag::NX;
    let to_infinity = match env.rm {
        Rounding::Rne | Rounding::Rmm => true,
        Rounding::Rtz => false,
        Rounding::Rdn => negative,
        Rounding::Rup => !negative,
    };
    signed::<F>(negative, if to_infinity { F::INF } else { F::INF - 1 })
}
