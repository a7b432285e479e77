//! HTIF: how a bare program speaks to its host, by stores to the word `tohost`.
//!
//! A value of device 0 whose lowest bit is set ends the program. Any other command is posted to the
//! supervisor, and the hart waits for its answer at the next safepoint.

use super::Memory;
use quasar_abi::party::{PartyId, attention};
use quasar_abi::vm::request;
use std::sync::atomic::Ordering;

impl Memory {
    /// Whether stores to this page must be looked at one by one.
    pub(super) fn holds_tohost(&self, gpa: u64) -> bool {
        let tohost = self.vm.tohost.get();
        tohost != 0 && tohost >> 12 == gpa >> 12
    }

    /// Looks at a store that the slow path has done.
    #[inline]
    pub(super) fn after_store(&mut self, gpa: u64, len: u64) {
        let tohost = self.vm.tohost.get();
        if tohost != 0 && gpa < tohost + 8 && tohost < gpa + len {
            self.tohost_stored(tohost, gpa, len);
        }
    }

    fn tohost_stored(&mut self, tohost: u64, gpa: u64, len: u64) {
        let Ok(value) = self.ram.load64(tohost, Ordering::Relaxed) else { return };
        let ends = value >> 48 == 0 && value & 1 != 0;
        // A program that writes two halves writes the low one first; what it asks is whole with the high one,
        // except for an end, whose high half is zero anyway.
        let whole = gpa + len >= tohost + 8;
        if ends {
            self.vm.ask(request::HTIF_EXIT, value);
        } else if value != 0 && whole && !self.htif_waiting {
            self.vm.htif_value.set(value);
            self.vm.htif.post();
            self.vm.party(PartyId::Supervisor).doorbell.ring();
            self.htif_waiting = true;
            self.vm.party(self.me()).attention.fetch_or(attention::INTERRUPT, Ordering::SeqCst);
        }
    }

    /// Whether a command of this hart has not been answered yet.
    pub fn htif_waiting(&mut self) -> bool {
        self.htif_waiting = self.htif_waiting && self.vm.htif.pending();
        self.htif_waiting
    }
}
