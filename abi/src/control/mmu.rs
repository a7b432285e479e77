//! `quasar-mmu`: the keeper of a VM's memory. Requests of harts come over shared memory.

use crate::machine::VmSegments;
use serde::{Deserialize, Serialize};

/// Commands to the mmu process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MmuCommand {
    /// Attach and serve. First and once. Answers [`super::Reply::Unit`] when attached.
    Start {
        /// The VM.
        segments: VmSegments,
    },
    /// End between two requests. Repeatable.
    Shutdown,
}
