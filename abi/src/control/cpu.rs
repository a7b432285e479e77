//! `quasar-cpu`: one hart. Pauses, epochs and interrupts go over shared memory, not over commands.

use crate::machine::VmSegments;
use serde::{Deserialize, Serialize};

/// Commands to a hart's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuCommand {
    /// Attach and run from the published state. First and once. Answers [`super::Reply::Unit`] when attached.
    Start {
        /// The VM.
        segments: VmSegments,
        /// Which hart.
        hart: u8,
    },
    /// Publish the state at a safepoint and end. Repeatable. Answers [`super::Reply::Unit`], then exits.
    Shutdown,
}
