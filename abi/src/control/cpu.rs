//! `quasar-cpu`: one hart. Pauses, epochs and interrupts go over shared memory, not over commands.

use super::{Command, Interface, ProcessKind, Refusal, Repeat, Trouble};
use crate::grants::HartGrants;
use serde::{Deserialize, Serialize};

/// The interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpu {}

impl Interface for Cpu {
    const KIND: ProcessKind = ProcessKind::Cpu;
    type Command = CpuCommand;
    type Reply = CpuReply;
    type Refusal = CpuRefusal;
    type News = CpuNews;
}

/// Commands to a hart's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuCommand {
    /// Attach and run from the published state. First and once in a process. Answered when attached.
    Start {
        /// What it is given of the VM.
        grants: HartGrants,
        /// Which hart.
        hart: u8,
        /// What executes it, by name; nothing for the process's own choice. An unknown one is refused with the list of
        /// those that there are.
        engine: Option<String>,
    },
    /// Publish the state at a safepoint and end. Answered, then it exits.
    Shutdown,
}

impl Command for CpuCommand {
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

/// What a hart's process answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuReply {
    /// Done.
    #[default]
    Done,
}

/// Why a hart's process did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CpuRefusal {
    /// It runs a hart.
    #[error("this process already runs a hart; start another process for another hart")]
    Running,
    /// Something failed.
    #[error("{0}")]
    Failed(Trouble),
}

impl Refusal for CpuRefusal {
    fn is_passing(&self) -> bool {
        matches!(self, Self::Failed(trouble) if trouble.passing)
    }
}

/// What a hart's process tells by itself: nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuNews {}
