//! LR, SC and AMOs by host atomics, so that they hold between harts in different processes
//! (RISC-V Unprivileged, chapter "A"). All of them are as strong as with both of aq and rl set: sequentially
//! consistent, and nothing passes them in either direction (docs/memory-ordering.md).

use super::{Cause, Fault, Memory, Target};
use crate::hart::Reservation;
use crate::trap::{Trap, cause};
use quasar_abi::le::order_atomic;
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

const fn sign_extend32(value: u32) -> u64 {
    (value.cast_signed() as i64).cast_unsigned()
}

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

    /// A 32-bit AMO; the old value, sign-extended.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn amo32(&mut self, va: u64, op: AmoOp, operand: u64) -> Result<u64, Fault> {
        let gpa = self.atomic_at(va, 4, access::WRITE)?;
        let by = operand as u32;
        let old = self.change(gpa, 4, va, |ram| {
            let cell = ram.cell32(gpa)?;
            Ok(match op {
                AmoOp::Swap => cell.swap(by, SeqCst),
                AmoOp::Add => cell.fetch_add(by, SeqCst),
                AmoOp::Xor => cell.fetch_xor(by, SeqCst),
                AmoOp::And => cell.fetch_and(by, SeqCst),
                AmoOp::Or => cell.fetch_or(by, SeqCst),
                AmoOp::Min => {
                    cell.update(SeqCst, |v| if v.cast_signed() < by.cast_signed() { v } else { by })
                }
                AmoOp::Max => {
                    cell.update(SeqCst, |v| if v.cast_signed() > by.cast_signed() { v } else { by })
                }
                AmoOp::Minu => cell.update(SeqCst, |v| v.min(by)),
                AmoOp::Maxu => cell.update(SeqCst, |v| v.max(by)),
            })
        })?;
        Ok(sign_extend32(old))
    }

    /// A 64-bit AMO; the old value.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn amo64(&mut self, va: u64, op: AmoOp, by: u64) -> Result<u64, Fault> {
        let gpa = self.atomic_at(va, 8, access::WRITE)?;
        self.change(gpa, 8, va, |ram| {
            let cell = ram.cell64(gpa)?;
            Ok(match op {
                AmoOp::Swap => cell.swap(by, SeqCst),
                AmoOp::Add => cell.fetch_add(by, SeqCst),
                AmoOp::Xor => cell.fetch_xor(by, SeqCst),
                AmoOp::And => cell.fetch_and(by, SeqCst),
                AmoOp::Or => cell.fetch_or(by, SeqCst),
                AmoOp::Min => {
                    cell.update(SeqCst, |v| if v.cast_signed() < by.cast_signed() { v } else { by })
                }
                AmoOp::Max => {
                    cell.update(SeqCst, |v| if v.cast_signed() > by.cast_signed() { v } else { by })
                }
                AmoOp::Minu => cell.update(SeqCst, |v| v.min(by)),
                AmoOp::Maxu => cell.update(SeqCst, |v| v.max(by)),
            })
        })
    }
}
