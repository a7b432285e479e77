//! The one door by which a hart's process stores to guest memory: the guest's stores, its atomics and what the SBI
//! writes for it. Whatever must know of a store (the dirty log, `tohost`) hears of it here.
//!
//! A store goes by L1 where that knows the page to be writable. It knows so only as long as nobody needs to hear: the
//! page is marked in this epoch, and `tohost` is not in it ([`Memory`]'s `enter`). So does an AMO ([`Memory::amo`]).

use super::l1::Width;
use super::{Fault, Memory, Target};
use quasar_abi::GuestRam;
use quasar_abi::dirty::PageMaps;
use quasar_abi::ram::{NotRam, PAGE_SHIFT};
use quasar_abi::tlb::access;
use quasar_abi::vm::Vm;
use std::sync::atomic::Ordering;

const PAGE: u64 = 4096;

/// Guest memory as a hart's process has it: whoever has this reads; who writes does it in this file.
#[derive(Clone, Debug)]
pub struct HartRam {
    vm: Vm,
    ram: GuestRam,
    maps: PageMaps,
}

impl HartRam {
    /// The memory of the machine `vm`.
    #[must_use]
    pub const fn new(vm: Vm, ram: GuestRam, maps: PageMaps) -> Self {
        Self { vm, ram, maps }
    }

    /// Whether `[gpa, gpa + len)` is RAM.
    #[inline]
    #[must_use]
    pub fn contains(&self, gpa: u64, len: u64) -> bool {
        self.ram.contains(gpa, len)
    }

    /// An aligned word.
    ///
    /// # Errors
    /// [`NotRam`] when it is no RAM or misaligned.
    #[inline]
    pub fn load64(&self, gpa: u64, order: Ordering) -> Result<u64, NotRam> {
        self.ram.cell64(gpa).map(|cell| cell.load(order))
    }

    /// An aligned word of 32 bits.
    ///
    /// # Errors
    /// As for [`HartRam::load64`].
    #[inline]
    pub fn load32(&self, gpa: u64, order: Ordering) -> Result<u32, NotRam> {
        self.ram.cell32(gpa).map(|cell| cell.load(order))
    }

    /// An aligned word of 16 bits, with acquire order.
    ///
    /// # Errors
    /// As for [`HartRam::load64`].
    #[inline]
    pub fn load16(&self, gpa: u64) -> Result<u16, NotRam> {
        self.ram.load16(gpa)
    }

    /// Bytes.
    ///
    /// # Errors
    /// [`NotRam`] when not all of them are RAM.
    pub fn read(&self, gpa: u64, out: &mut [u8]) -> Result<(), NotRam> {
        self.ram.read(gpa, out)
    }

    /// Bytes in pages that are here; says whether they all are.
    #[must_use]
    pub fn read_here(&self, gpa: u64, out: &mut [u8]) -> bool {
        self.is_here(gpa, out.len() as u64) && self.ram.read(gpa, out).is_ok()
    }

    /// Writes bytes by guest-physical address and marks them, if they all lie in pages that are here; says whether
    /// they do. For the hart itself, at its instruction: no epoch ends before it has been acknowledged by the hart.
    #[must_use]
    pub fn write_here(&self, gpa: u64, bytes: &[u8]) -> bool {
        let len = bytes.len() as u64;
        let done = self.is_here(gpa, len) && self.ram.write(gpa, bytes).is_ok();
        if done {
            self.mark(gpa, len);
        }
        done
    }

    /// Whether every page of `[gpa, gpa + len)` is RAM that is here.
    fn is_here(&self, gpa: u64, len: u64) -> bool {
        let resident =
            |gpa| self.vm.residency_active.load(Ordering::Acquire) == 0 || self.maps.is_resident(gpa);
        self.ram.contains(gpa, len)
            && (gpa >> PAGE_SHIFT..=(gpa + len.saturating_sub(1)) >> PAGE_SHIFT)
                .all(|page| resident(page << PAGE_SHIFT))
    }

    /// Marks what is written in this epoch, while writes are logged; returns how many pages were not marked yet.
    pub(super) fn mark(&self, gpa: u64, len: u64) -> u64 {
        if self.vm.log_active.load(Ordering::SeqCst) == 0 {
            return 0;
        }
        self.maps.mark(self.vm.epoch.load(Ordering::SeqCst), gpa, len)
    }

    /// Whether stores to a page may go on without a look until the next safepoint.
    pub(super) fn needs_no_mark(&self, gpa: u64) -> bool {
        self.vm.log_active.load(Ordering::SeqCst) == 0
            || self.maps.is_dirty(self.vm.epoch.load(Ordering::SeqCst), gpa)
    }
}

impl Memory {
    /// Stores the low bytes.
    ///
    /// # Errors
    /// [`Fault`].
    #[inline(always)]
    pub fn store<W: Width>(&mut self, va: u64, value: u64) -> Result<(), Fault> {
        if self.l1.store::<W>(self.data, va, value) { Ok(()) } else { self.store_slow(va, W::BYTES, value) }
    }

    #[cold]
    #[inline(never)]
    fn store_slow(&mut self, va: u64, len: u64, value: u64) -> Result<(), Fault> {
        let first = (PAGE - (va & (PAGE - 1))).min(len);
        let target = self.translate(va, first, access::WRITE)?;
        if first == len {
            return match target {
                Target::Ram(gpa) => self.write_ram(gpa, len, value, va),
                Target::Io(gpa) => self.device_store(gpa, len, value & mask(len), va),
            };
        }
        let second_va = va.wrapping_add(first);
        // Both pages are known to be writable before a byte is written.
        match (target, self.translate(second_va, len - first, access::WRITE)?) {
            (Target::Ram(low), Target::Ram(high)) => {
                self.write_ram(low, first, value, va)?;
                self.write_ram(high, len - first, value >> (first * 8), second_va)
            }
            _ => Err(self.refuse(access::WRITE, false, va)),
        }
    }

    /// Writes RAM; naturally aligned accesses are single-copy atomic.
    fn write_ram(&mut self, gpa: u64, len: u64, value: u64, va: u64) -> Result<(), Fault> {
        self.change(gpa, len, va, |ram| {
            match len {
                8 if gpa.is_multiple_of(8) => ram.cell64(gpa)?.set(value),
                4 if gpa.is_multiple_of(4) => ram.cell32(gpa)?.set(value as u32),
                2 if gpa.is_multiple_of(2) => ram.store16(gpa, value as u16)?,
                _ => ram.write(gpa, &value.to_le_bytes()[..len as usize])?,
            }
            Ok(())
        })
    }

    /// Has RAM at `gpa` changed, to where `va` was translated for a store.
    ///
    /// # Errors
    /// [`Fault`]; nothing has changed.
    #[inline]
    pub(super) fn change<R>(
        &mut self,
        gpa: u64,
        len: u64,
        va: u64,
        change: impl FnOnce(&GuestRam) -> Result<R, NotRam>,
    ) -> Result<R, Fault> {
        self.change_if(gpa, len, va, |ram| Ok((change(ram)?, true)))
    }

    /// The same for what may leave memory as it was; `change` says whether it has not.
    ///
    /// # Errors
    /// [`Fault`]; nothing has changed.
    #[inline]
    pub(super) fn change_if<R>(
        &mut self,
        gpa: u64,
        len: u64,
        va: u64,
        change: impl FnOnce(&GuestRam) -> Result<(R, bool), NotRam>,
    ) -> Result<R, Fault> {
        if self.synchronous && self.holds_tohost(gpa) {
            self.check_alone()?;
        }
        let (result, stored) = change(&self.ram.ram).map_err(|_| self.refuse(access::WRITE, false, va))?;
        if stored {
            self.after_store(gpa, len);
        }
        Ok(result)
    }
}

/// The part of a value's bytes that a short access keeps.
const fn mask(len: u64) -> u64 {
    if len >= 8 { u64::MAX } else { (1 << (len * 8)) - 1 }
}
