//! Parties: the processes of one VM as the others see them in shared memory.

use crate::doorbell::Doorbell;
use crate::le::{AtomicLe32, AtomicLe64};
use crate::shm_struct;
use serde::{Deserialize, Serialize};

/// Harts a VM can have.
pub const MAX_HARTS: usize = if cfg!(loom) { 1 } else { 16 };
/// Slots in [`crate::vm::VmControl::parties`].
pub const MAX_PARTIES: usize = MAX_HARTS + 4;

/// Who takes part in a VM. Its index is its slot in the control block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PartyId {
    /// A hart's `quasar-cpu`, by hart index (which is its mhartid).
    Hart(u8),
    /// `quasar-mmu`.
    Mmu,
    /// `quasar-devices`.
    Devices,
    /// `quasar-migrator`.
    Migrator,
    /// The supervisor, which owns the VM.
    Supervisor,
}

impl PartyId {
    /// The party's slot; hart numbers beyond [`MAX_HARTS`] have none.
    #[must_use]
    pub const fn slot(self) -> usize {
        match self {
            Self::Hart(n) => {
                assert!((n as usize) < MAX_HARTS, "hart index out of range");
                n as usize
            }
            Self::Mmu => MAX_HARTS,
            Self::Devices => MAX_HARTS + 1,
            Self::Migrator => MAX_HARTS + 2,
            Self::Supervisor => MAX_HARTS + 3,
        }
    }
}

impl std::fmt::Display for PartyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hart(n) => write!(f, "cpu{n}"),
            Self::Mmu => f.write_str("mmu"),
            Self::Devices => f.write_str("devices"),
            Self::Migrator => f.write_str("migrator"),
            Self::Supervisor => f.write_str("supervisor"),
        }
    }
}

/// Values of [`Party::status`].
pub mod status {
    /// No process holds this slot.
    pub const ABSENT: u32 = 0;
    /// Working: it may change guest memory or saved state at any moment.
    pub const RUNNING: u32 = 1;
    /// At a safepoint with its state published; changes nothing until every pause is lifted.
    pub const PARKED: u32 = 2;
}

/// Bits of [`Party::attention`]: each says which shared word to look at. Setting a bit is a hint; the
/// truth is in those words, and a party that takes attention looks at all of them.
pub mod attention {
    /// Interrupt lines or posts changed.
    pub const INTERRUPT: u32 = 1 << 0;
    /// [`crate::vm::VmControl::pause_mask`] changed.
    pub const PAUSE: u32 = 1 << 1;
    /// [`crate::vm::VmControl::epoch`] changed.
    pub const EPOCH: u32 = 1 << 2;
    /// A remote fence was asked for.
    pub const FENCE: u32 = 1 << 3;
    /// The hart's timer may have expired.
    pub const TIMER: u32 = 1 << 4;
    /// The process shall end.
    pub const STOP: u32 = 1 << 5;
    /// The hart's HSM state changed (SBI 2.0, chapter 9).
    pub const HSM: u32 = 1 << 6;
}

shm_struct! {
    /// What a party shows to the others.
    pub struct Party: 128 => {
        /// Rung for whatever this party shall look at.
        pub doorbell: Doorbell,
        /// [`attention`] bits; polled by harts at block boundaries.
        pub attention: AtomicLe32,
        /// [`status`].
        pub status: AtomicLe32,
        /// The newest epoch whose start this party has acknowledged ([`crate::dirty`]).
        pub epoch_ack: AtomicLe64,
        /// Moves while the party makes progress; a watcher takes a still counter of a busy party for a hang.
        pub progress: AtomicLe64,
        /// Process id on this host, 0 when absent. Information for people, never for decisions across hosts.
        pub pid: AtomicLe32,
        /// How many processes have held this slot.
        pub generation: AtomicLe32,
        /// Zero.
        pub reserved: [AtomicLe64; 11],
    }
}

impl Party {
    /// Sets attention bits and rings.
    #[inline]
    pub fn call(&self, bits: u32) {
        self.attention.fetch_or(bits, std::sync::atomic::Ordering::SeqCst);
        self.doorbell.ring();
    }
}
