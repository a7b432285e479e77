//! LR, SC and AMOs by host atomics, so that they hold between harts in different processes
//! (RISC-V Unprivileged, chapter "A"). All of them are as strong as with both of aq and rl set: sequentially
//! consistent, and nothing passes them in either direction (docs/memory-ordering.md).

use super::l1::Word;
use super::{Cause, Fault, Memory, Target};
use crate::hart::Reservation;
use crate::trap::{Trap, cause};
use quasar_abi::GuestRam;
use quasar_abi::le::order_atomic;
use quasar_abi::ram::NotRam;
use quasar_abi::tlb::access;
use std::sync::atomic::Ordering::SeqCst;

/// What an AMO does with the old value and its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum AmoOp {
    Swap,
    Add,
    Xor,
    And,
    Or,
    Min,
    Max,
    Minu,
    Maxu,
}

/// A width that AMOs have.
pub trait AmoWidth: Word {
    /// The word at a guest-physical address.
    ///
    /// # Errors
    /// [`NotRam`] when it is no RAM or misaligned.
    fn cell(ram: &GuestRam, gpa: u64) -> Result<&Self::Cell, NotRam>;
    /// Changes the word; the old value, sign-extended.
    fn amo(cell: &Self::Cell, op: AmoOp, operand: u64) -> u64;
}

macro_rules! amo_width {
    ($int:ty, $cell:ident) => {
        impl AmoWidth for $int {
            #[inline]
            fn cell(ram: &GuestRam, gpa: u64) -> Result<&Self::Cell, NotRam> {
                ram.$cell(gpa)
            }

            #[inline]
            fn amo(cell: &Self::Cell, op: AmoOp, operand: u64) -> u64 {
                let by = operand as $int;
                let signed = <$int>::cast_signed;
                let old = match op {
                    AmoOp::Swap => cell.swap(by, SeqCst),
                    AmoOp::Add => cell.fetch_add(by, SeqCst),
                    AmoOp::Xor => cell.fetch_xor(by, SeqCst),
                    AmoOp::And => cell.fetch_and(by, SeqCst),
                    AmoOp::Or => cell.fetch_or(by, SeqCst),
                    AmoOp::Min => cell.update(SeqCst, |v| if signed(v) < signed(by) { v } else { by }),
                    AmoOp::Max => cell.update(SeqCst, |v| if signed(v) > signed(by) { v } else { by }),
                    AmoOp::Minu => cell.update(SeqCst, |v| v.min(by)),
                    AmoOp::Maxu => cell.update(SeqCst, |v| v.max(by)),
                };
                i64::from(signed(old)).cast_unsigned()
            }
        }
    };
}
amo_width!(u32, cell32);
amo_width!(u64, cell64);

impl Memory {
    /// The guest-physical address of an atomic's operand: aligned and in RAM.
    #[inline]
    fn atomic_at(&mut self, va: u64, len: u64, access: u64) -> Result<u64, Fault> {
        if !va.is_multiple_of(len) {
            let cause = if access == access::READ { cause::LOAD_MISALIGNED } else { cause::STORE_MISALIGNED };
            self.fault = Cause::Trap(Trap { cause, tval: va });
            return Err(Fault);
        }
        // The common case in place, not behind the call.
        let gpa = match self.l1.data_gpa(self.data, va, access == access::WRITE) {
            Some(gpa) => gpa,
            None => match self.translate(va, len, access)? {
                Target::Ram(gpa) => gpa,
                Target::Io(_) => return Err(self.refuse(access, false, va)),
            },
        };
        order_atomic();
        Ok(gpa)
    }

    /// LR: loads and reserves.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn load_reserved(&mut self, va: u64, len: u8) -> Result<Reservation, Fault> {
        let gpa = self.atomic_at(va, len.into(), access::READ)?;
        let value = match len {
            4 => self.ram.load32(gpa, SeqCst).map(u64::from),
            _ => self.ram.load64(gpa, SeqCst),
        };
        let value = value.map_err(|_| self.refuse(access::READ, false, va))?;
        Ok(Reservation { gpa, value, len })
    }

    /// SC: stores if the reservation holds and the value is still the one that LR saw.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn store_conditional(
        &mut self,
        va: u64,
        len: u8,
        value: u64,
        reservation: Option<Reservation>,
    ) -> Result<bool, Fault> {
        let gpa = self.atomic_at(va, len.into(), access::WRITE)?;
        let Some(held) = reservation.filter(|r| r.gpa == gpa && r.len == len) else { return Ok(false) };
        self.change_if(gpa, len.into(), va, |ram| {
            let done = match len {
                4 => {
                    ram.cell32(gpa)?.compare_exchange(held.value as u32, value as u32, SeqCst, SeqCst).is_ok()
                }
                _ => ram.cell64(gpa)?.compare_exchange(held.value, value, SeqCst, SeqCst).is_ok(),
            };
            Ok((done, done))
        })
    }

    /// An AMO on a word of this width; the old value, sign-extended.
    ///
    /// # Errors
    /// [`Fault`].
    #[inline]
    pub fn amo<W: AmoWidth>(&mut self, va: u64, op: AmoOp, operand: u64) -> Result<u64, Fault> {
        // As for stores: where L1 knows the page to be writable nobody needs to hear of it.
        if let Some(cell) = self.l1.cell::<W>(self.data, va) {
            order_atomic();
            return Ok(W::amo(cell, op, operand));
        }
        self.amo_slow::<W>(va, op, operand)
    }

    #[cold]
    #[inline(never)]
    fn amo_slow<W: AmoWidth>(&mut self, va: u64, op: AmoOp, operand: u64) -> Result<u64, Fault> {
        let gpa = self.atomic_at(va, W::BYTES, access::WRITE)?;
        self.change(gpa, W::BYTES, va, |ram| Ok(W::amo(W::cell(ram, gpa)?, op, operand)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::le::{AtomicLe32, AtomicLe64};

    const EDGES: [u64; 8] =
        [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, i64::MAX as u64, i64::MIN.cast_unsigned(), u64::MAX];

    /// What memory holds after the operation, in arithmetic that knows no width but that of 128 bits.
    fn after(op: AmoOp, old: i128, by: i128, bits: u32) -> u64 {
        let unsigned = |v: i128| v & ((1 << bits) - 1);
        let smaller_unsigned = unsigned(old) < unsigned(by);
        let new = match op {
            AmoOp::Swap => by,
            AmoOp::Add => old + by,
            AmoOp::Xor => old ^ by,
            AmoOp::And => old & by,
            AmoOp::Or => old | by,
            AmoOp::Min => old.min(by),
            AmoOp::Max => old.max(by),
            AmoOp::Minu => [by, old][usize::from(smaller_unsigned)],
            AmoOp::Maxu => [old, by][usize::from(smaller_unsigned)],
        };
        unsigned(new).cast_unsigned() as u64
    }

    #[test]
    fn both_widths_do_the_same_and_the_old_value_is_sign_extended() {
        use AmoOp::{Add, And, Max, Maxu, Min, Minu, Or, Swap, Xor};
        for op in [Swap, Add, Xor, And, Or, Min, Max, Minu, Maxu] {
            for (old, by) in EDGES.into_iter().flat_map(|old| EDGES.map(|by| (old, by))) {
                let cell = AtomicLe64::new(old);
                let (signed_old, signed_by) = (i128::from(old.cast_signed()), i128::from(by.cast_signed()));
                assert_eq!(<u64 as AmoWidth>::amo(&cell, op, by), old);
                assert_eq!(cell.get(), after(op, signed_old, signed_by, 64), "{op:?} {old:#x} {by:#x}");
                // The upper half of the operand means nothing.
                let word = (old as u32).cast_signed();
                let cell = AtomicLe32::new(word.cast_unsigned());
                assert_eq!(<u32 as AmoWidth>::amo(&cell, op, by), i64::from(word).cast_unsigned());
                let new = after(op, i128::from(word), i128::from((by as u32).cast_signed()), 32);
                assert_eq!(u64::from(cell.get()), new, "{op:?} {old:#x} {by:#x}");
            }
        }
    }
}
