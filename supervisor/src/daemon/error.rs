//! Why the host cannot do what it was asked for.

use super::check::CheckError;
use crate::children::trouble;
use quasar_abi::SegmentError;
use std::path::PathBuf;

/// Why the host cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No such VM.
    #[error("there is no VM {0}")]
    Unknown(String),
    /// The name is taken.
    #[error("there is a VM {0} already")]
    Exists(String),
    /// Another VM writes to the disk.
    #[error("disk {path} is in use by VM {user}")]
    DiskInUse {
        /// The disk.
        path: PathBuf,
        /// Who uses it.
        user: String,
    },
    /// It cannot be made as asked.
    #[error(transparent)]
    Spec(#[from] CheckError),
    /// Shared memory.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The host's files.
    #[error("{what}: {source}{}", trouble::shortage(source).map(|why| format!(": {why}")).unwrap_or_default())]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The network.
    #[error("the network: {0}")]
    Network(String),
    /// It did not start.
    #[error("VM {name} did not start: {reason}")]
    Start {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// It is on a journey.
    #[error("VM {name} is on its way {way}")]
    Travelling {
        /// Which.
        name: String,
        /// Where.
        way: String,
    },
    /// It runs on another host.
    #[error("VM {name} runs at {at} now; its network's way out is still here")]
    Away {
        /// Which.
        name: String,
        /// Where.
        at: String,
    },
    /// It is in a state in which this cannot be done.
    #[error("VM {name} is {phase}")]
    State {
        /// Which.
        name: String,
        /// Its state.
        phase: &'static str,
    },
    /// It is in a state in which this cannot be done, with what can.
    #[error("VM {name} {state}")]
    NotNow {
        /// Which.
        name: String,
        /// Its state, as the rest of the sentence.
        state: String,
        /// What to do.
        hint: String,
    },
    /// The VM's controller refused.
    #[error("VM {name}: {reason}")]
    Refused {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// The daemon is going down.
    #[error("the daemon is ending")]
    Ending,
}

/// What of the host's files could not be used.
pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> HostError {
    let what = what.into();
    |source| HostError::Io { what, source }
}
