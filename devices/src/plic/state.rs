//! What the PLIC keeps.

use crate::saved::{Check, checked_state, require};
use quasar_abi::party::MAX_HARTS;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Version of [`PlicState`].
pub const VERSION: u32 = 1;
/// Sources, the absent source 0 included.
pub const SOURCES: usize = 96;
/// Words of one bit per source.
pub const WORDS: usize = SOURCES / 32;
/// Two contexts per hart: machine, supervisor.
pub const CONTEXTS: usize = 2 * MAX_HARTS;
/// Highest priority and threshold.
pub const MAX_PRIORITY: u32 = 7;

/// The controller's state.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PlicState {
    /// By source.
    pub priority: [U32; SOURCES],
    /// Which lines devices drive.
    pub level: [U32; WORDS],
    /// Which requests wait to be claimed.
    pub pending: [U32; WORDS],
    /// Which were claimed and not completed: their gateways are shut.
    pub claimed: [U32; WORDS],
    /// By context.
    pub enable: [[U32; WORDS]; CONTEXTS],
    /// By context.
    pub threshold: [U32; CONTEXTS],
}

impl Default for PlicState {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

impl PlicState {
    pub(crate) fn check(&self) -> Check {
        require(self.priority[0].get() == 0, "priority of source 0", self.priority[0].get())?;
        for value in self.priority.iter().chain(&self.threshold).map(|v| v.get()) {
            require(value <= MAX_PRIORITY, "priority or threshold", value)?;
        }
        for words in [&self.level, &self.pending, &self.claimed].into_iter().chain(&self.enable) {
            require(words[0].get() & 1 == 0, "bit of source 0", words[0].get())?;
        }
        Ok(())
    }
}

checked_state!(PlicState, "plic");
