//! `quasar-mmu`: page walks for a VM's harts. Requests come over shared memory
//! ([`crate::hart_mmu`]).

use super::{Command, Interface, ProcessKind, Refusal, Repeat, Trouble};
use crate::grants::MmuGrants;
use serde::{Deserialize, Serialize};

/// The interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mmu {}

impl Interface for Mmu {
    const KIND: ProcessKind = ProcessKind::Mmu;
    type Command = MmuCommand;
    type Reply = MmuReply;
    type Refusal = MmuRefusal;
    type News = MmuNews;
}

/// Commands to the mmu process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MmuCommand {
    /// Attach and serve. First and once in a process. Answered when attached.
    Start {
        /// What it is given of the VM.
        grants: MmuGrants,
    },
    /// End between two requests.
    Shutdown,
}

impl Command for MmuCommand {
    fn repeat(&self) -> Repeat {
        match self {
            Self::Start { .. } => Repeat::Never,
            Self::Shutdown => Repeat::Freely,
        }
    }

    fn is_last(&self) -> bool {
        *self == Self::Shutdown
    }
}

/// What the mmu process answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MmuReply {
    /// Done.
    #[default]
    Done,
}

/// Why the mmu process did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MmuRefusal {
    /// It serves.
    #[error("this mmu process serves a VM already; start another process for another VM")]
    Serving,
    /// Something failed.
    #[error("{0}")]
    Failed(Trouble),
}

impl Refusal for MmuRefusal {
    fn is_passing(&self) -> bool {
        matches!(self, Self::Failed(trouble) if trouble.passing)
    }
}

/// What the mmu process tells by itself: nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MmuNews {}
