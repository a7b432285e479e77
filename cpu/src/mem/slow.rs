//! Accesses that the fast path did not do: misses, misaligned ones, page crossings, device registers.

use super::translate::Target;
use super::{Fault, Memory};
use quasar_abi::tlb::access;

const PAGE: u64 = 4096;

/// The part of a value's bytes that a short access keeps.
const fn mask(len: u64) -> u64 {
    if len >= 8 { u64::MAX } else { (1 << (len * 8)) - 1 }
}

impl Memory {
    #[cold]
    #[inline(never)]
    pub(super) fn load_slow(&mut self, va: u64, len: u64) -> Result<u64, Fault> {
        let first = (PAGE - (va & (PAGE - 1))).min(len);
        let target = self.translate(va, first, access::READ)?;
        if first == len {
            return match target {
                Target::Ram(gpa) => self.read_ram(gpa, len, va),
                Target::Io(gpa) => self.device_load(gpa, len, va),
            };
        }
        let second_va = va.wrapping_add(first);
        match (target, self.translate(second_va, len - first, access::READ)?) {
            (Target::Ram(low), Target::Ram(high)) => {
                let low = self.read_ram(low, first, va)?;
                let high = self.read_ram(high, len - first, second_va)?;
                Ok(low | high << (first * 8))
            }
            _ => Err(self.refuse(access::READ, false, va)),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn store_slow(&mut self, va: u64, len: u64, value: u64) -> Result<(), Fault> {
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

    /// Reads RAM; naturally aligned accesses are single-copy atomic.
    fn read_ram(&mut self, gpa: u64, len: u64, va: u64) -> Result<u64, Fault> {
        let value = match len {
            8 if gpa.is_multiple_of(8) => self.ram.cell64(gpa).map(|c| c.get()),
            4 if gpa.is_multiple_of(4) => self.ram.cell32(gpa).map(|c| c.get().into()),
            2 if gpa.is_multiple_of(2) => self.ram.load16(gpa).map(u64::from),
            _ => {
                let mut bytes = [0; 8];
                self.ram.read(gpa, &mut bytes[..len as usize]).map(|()| u64::from_le_bytes(bytes))
            }
        };
        value.map_err(|_| self.refuse(access::READ, false, va))
    }

    /// Writes RAM; naturally aligned accesses are single-copy atomic.
    fn write_ram(&mut self, gpa: u64, len: u64, value: u64, va: u64) -> Result<(), Fault> {
        if self.synchronous && self.holds_tohost(gpa) {
            self.check_alone()?;
        }
        let done = match len {
            8 if gpa.is_multiple_of(8) => self.ram.cell64(gpa).map(|c| c.set(value)),
            4 if gpa.is_multiple_of(4) => self.ram.cell32(gpa).map(|c| c.set(value as u32)),
            2 if gpa.is_multiple_of(2) => self.ram.store16(gpa, value as u16),
            _ => self.ram.write(gpa, &value.to_le_bytes()[..len as usize]),
        };
        done.map_err(|_| self.refuse(access::WRITE, false, va))?;
        self.after_store(gpa, len);
        Ok(())
    }

    /// Whether the whole page of `va` may be executed; after [`Memory::fetch_gpa`] has found it.
    #[must_use]
    pub fn may_execute_page(&self, va: u64) -> bool {
        self.l1.fetch_gpa(self.fetch, va).is_some()
    }

    /// The guest-physical address of an instruction's 16 bits at `va`.
    ///
    /// # Errors
    /// [`Fault`]; instructions outside RAM cannot be fetched.
    pub fn fetch_gpa(&mut self, va: u64) -> Result<u64, Fault> {
        match self.translate(va, 2, access::FETCH)? {
            Target::Ram(gpa) => Ok(gpa),
            Target::Io(_) => Err(self.refuse(access::FETCH, false, va)),
        }
    }
}
