//! What the power key keeps.

use crate::saved::{Check, checked_state, require};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Events of one press: down, report, up, report.
pub const EVENTS_PER_PRESS: u8 = 4;
/// Presses that can wait for the driver to make buffers available.
pub const MAX_PRESSES: u8 = 8;

/// The key's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InputState {
    /// What the driver has selected in the configuration space.
    pub select: u8,
    /// And within that.
    pub subsel: u8,
    /// Events that wait to be delivered; a multiple of [`EVENTS_PER_PRESS`] between presses.
    pub waiting: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

impl InputState {
    pub(crate) fn check(&self) -> Check {
        require(self.waiting <= MAX_PRESSES * EVENTS_PER_PRESS, "waiting events", self.waiting)
    }
}

checked_state!(InputState, "input");
