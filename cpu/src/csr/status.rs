//! mstatus and its view sstatus (RISC-V Privileged 1.13, 3.1.6, 12.1.1).

use super::Csrs;
use crate::privilege::Privilege;

/// Supervisor interrupts enabled.
pub const SIE: u64 = 1 << 1;
/// Machine interrupts enabled.
pub const MIE: u64 = 1 << 3;
/// SIE before the trap.
pub const SPIE: u64 = 1 << 5;
/// MIE before the trap.
pub const MPIE: u64 = 1 << 7;
/// S-mode before the trap.
pub const SPP: u64 = 1 << 8;
/// Mode before the trap into M-mode.
pub const MPP: u64 = 3 << MPP_SHIFT;
/// Position of [`MPP`].
pub const MPP_SHIFT: u32 = 11;
/// State of the floating-point unit; all ones is Dirty.
pub const FS: u64 = 3 << 13;
/// Loads and stores with the rights of MPP.
pub const MPRV: u64 = 1 << 17;
/// S-mode may access user pages.
pub const SUM: u64 = 1 << 18;
/// Loads may read executable pages.
pub const MXR: u64 = 1 << 19;
/// satp and SFENCE.VMA trap in S-mode.
pub const TVM: u64 = 1 << 20;
/// WFI traps in S-mode.
pub const TW: u64 = 1 << 21;
/// SRET traps in S-mode.
pub const TSR: u64 = 1 << 22;
/// U-mode is 64-bit; read-only.
pub const UXL_64: u64 = 2 << 32;
/// S-mode is 64-bit; read-only.
pub const SXL_64: u64 = 2 << 34;
/// FS is Dirty; read-only.
pub const SD: u64 = 1 << 63;

/// What M-mode can write. Memory is little-endian in every mode, and there is no vector unit or extension state.
const M_WRITABLE: u64 = SIE | MIE | SPIE | MPIE | SPP | MPP | FS | MPRV | SUM | MXR | TVM | TW | TSR;
/// What S-mode can write.
const S_WRITABLE: u64 = SIE | SPIE | SPP | FS | SUM | MXR;
/// Fields that follow from others or never change; not kept in [`Csrs::mstatus`].
const DERIVED: u64 = UXL_64 | SXL_64 | SD;

impl Csrs {
    /// mstatus as it reads.
    #[must_use]
    pub const fn mstatus_view(&self) -> u64 {
        let dirty = if self.mstatus & FS == FS { SD } else { 0 };
        self.mstatus | UXL_64 | SXL_64 | dirty
    }

    /// sstatus as it reads.
    #[must_use]
    pub const fn sstatus_view(&self) -> u64 {
        self.mstatus_view() & (S_WRITABLE | UXL_64 | SD)
    }

    /// What mstatus becomes when `value` is written: MPP keeps its value when 2, which is reserved, is written.
    pub(super) const fn legal_mstatus(&self, value: u64) -> u64 {
        let writable = if value >> MPP_SHIFT & 3 == 2 { M_WRITABLE & !MPP } else { M_WRITABLE };
        self.mstatus & !writable | value & writable
    }

    /// What mstatus becomes when `value` is written to sstatus.
    pub(super) const fn legal_sstatus(&self, value: u64) -> u64 {
        self.mstatus & !S_WRITABLE | value & S_WRITABLE
    }

    /// The part of a saved mstatus that is kept, when the register can hold it.
    pub(super) fn saved_mstatus(value: u64) -> Option<u64> {
        let kept = value & !DERIVED;
        (kept & !M_WRITABLE == 0 && kept >> MPP_SHIFT & 3 != 2).then_some(kept)
    }

    /// See [`crate::hart::Hart::data_privilege`].
    #[inline]
    pub(crate) fn data_privilege(&self, current: Privilege) -> Privilege {
        if self.mstatus & MPRV == 0 {
            return current;
        }
        Privilege::from_bits(self.mstatus >> MPP_SHIFT & 3).unwrap_or(current)
    }
}
