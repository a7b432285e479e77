//! Loads and fetches that the fast path did not do: misses, misaligned ones, page crossings, device registers.

use super::{Fault, Memory, Target};
use quasar_abi::tlb::access;
use std::sync::atomic::Ordering::Relaxed;

const PAGE: u64 = 4096;

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

    /// Reads RAM; naturally aligned accesses are single-copy atomic.
    fn read_ram(&mut self, gpa: u64, len: u64, va: u64) -> Result<u64, Fault> {
        let value = match len {
            8 if gpa.is_multiple_of(8) => self.ram.load64(gpa, Relaxed),
            4 if gpa.is_multiple_of(4) => self.ram.load32(gpa, Relaxed).map(u64::from),
            2 if gpa.is_multiple_of(2) => self.ram.load16(gpa).map(u64::from),
            _ => {
                let mut bytes = [0; 8];
                self.ram.read(gpa, &mut bytes[..len as usize]).map(|()| u64::from_le_bytes(bytes))
            }
        };
        value.map_err(|_| self.refuse(access::READ, false, va))
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
