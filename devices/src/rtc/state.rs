//! What the clock keeps.

use crate::saved::{Check, checked_state, require};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of [`RtcState`].
pub const VERSION: u32 = 1;

/// The clock's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RtcState {
    /// What the guest has set the clock ahead of the VM's wall clock, in nanoseconds (wrapping).
    pub offset_ns: U64,
    /// When the alarm fires, in nanoseconds since 1970.
    pub alarm_ns: U64,
    /// High half of the time whose low half was read last.
    pub latched_high: U32,
    /// Whether the alarm is set: 0 or 1.
    pub alarm_set: U32,
    /// Whether the interrupt is enabled: 0 or 1.
    pub irq_enabled: U32,
    /// Whether the alarm has fired and was not cleared: 0 or 1.
    pub irq_pending: U32,
}

impl RtcState {
    pub(crate) fn check(&self) -> Check {
        require(self.alarm_set.get() <= 1, "alarm_set", self.alarm_set.get())?;
        require(self.irq_enabled.get() <= 1, "irq_enabled", self.irq_enabled.get())?;
        require(self.irq_pending.get() <= 1, "irq_pending", self.irq_pending.get())
    }
}

checked_state!(RtcState, "rtc");
