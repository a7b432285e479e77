//! What the ACLINT keeps.

use crate::saved::{Check, checked_state, require};
use quasar_abi::party::MAX_HARTS;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of [`AclintState`].
pub const VERSION: u32 = 1;

/// By hart.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AclintState {
    /// Timers fire when `time` reaches this many ticks.
    pub mtimecmp: [U64; MAX_HARTS],
    /// Software interrupts: 0 or 1.
    pub msip: [U32; MAX_HARTS],
}

impl Default for AclintState {
    /// No timer runs after power-on.
    fn default() -> Self {
        Self { mtimecmp: [U64::MAX_VALUE; MAX_HARTS], msip: [U32::ZERO; MAX_HARTS] }
    }
}

impl AclintState {
    pub(crate) fn check(&self) -> Check {
        self.msip.iter().try_for_each(|msip| require(msip.get() <= 1, "msip", msip.get()))
    }
}

checked_state!(AclintState, "aclint");
