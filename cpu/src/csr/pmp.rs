//! PMP registers: which writes they take (RISC-V Privileged 1.13, 3.7). Who may access what is the mmu's to say.
//!
//! Sixteen entries, a grain of four bytes: NA4 can be chosen and every bit of an address is kept.

use super::Csrs;
use quasar_abi::hart::PMP_ENTRIES;

const R: u8 = 1 << 0;
const W: u8 = 1 << 1;
const MODE: u8 = 3 << 3;
const MODE_TOR: u8 = 1 << 3;
const LOCKED: u8 = 1 << 7;
/// Bits 5 and 6 are zero.
const BYTE: u8 = 0x9f;
/// Guest-physical addresses have 56 bits; the register holds bits 55 to 2.
pub(crate) const ADDRESS: u64 = (1 << 54) - 1;

/// The nearest legal configuration: writable without readable is reserved and loses W.
const fn legal(byte: u8) -> u8 {
    let byte = byte & BYTE;
    if byte & (R | W) == W { byte & !W } else { byte }
}

/// Whether a saved pmpcfg register can hold this word.
pub(super) fn is_legal(word: u64) -> bool {
    word.to_le_bytes().into_iter().all(|byte| legal(byte) == byte)
}

impl Csrs {
    /// Configuration byte of an entry.
    #[must_use]
    pub const fn pmp_config(&self, entry: usize) -> u8 {
        self.pmpcfg[entry / 8].to_le_bytes()[entry % 8]
    }

    /// Writes pmpcfg0 (`register` 0) or pmpcfg2 (1): locked entries keep their byte.
    pub(super) fn write_pmpcfg(&mut self, register: usize, value: u64) {
        let mut bytes = self.pmpcfg[register].to_le_bytes();
        for (old, new) in bytes.iter_mut().zip(value.to_le_bytes()) {
            if *old & LOCKED == 0 {
                *old = legal(new);
            }
        }
        self.pmpcfg[register] = u64::from_le_bytes(bytes);
    }

    /// Writes a pmpaddr: ignored when the entry is locked, or is the lower bound of a locked TOR entry.
    pub(super) fn write_pmpaddr(&mut self, entry: usize, value: u64) {
        let bounds_locked = entry + 1 < PMP_ENTRIES
            && self.pmp_config(entry + 1) & LOCKED != 0
            && self.pmp_config(entry + 1) & MODE == MODE_TOR;
        if self.pmp_config(entry) & LOCKED == 0 && !bounds_locked {
            self.pmpaddr[entry] = value & ADDRESS;
        }
    }
}
