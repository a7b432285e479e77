//! `quasar-devices`: the VM's devices. Register accesses come over shared memory
//! ([`crate::hart_devices`]).

use super::{Command, Interface, ProcessKind, Refusal, Repeat, Trouble};
use crate::grants::DevicesGrants;
use crate::machine::VirtioDevice;
use crate::report::DevicesReport;
use serde::{Deserialize, Serialize};

/// The interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {}

impl Interface for Devices {
    const KIND: ProcessKind = ProcessKind::Devices;
    type Command = DevicesCommand;
    type Reply = DevicesReply;
    type Refusal = DevicesRefusal;
    type News = DevicesNews;
}

/// Commands to the devices process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DevicesCommand {
    /// Attach, take up the saved state of each device that has one, and serve. First and once in a process.
    Start {
        /// What they are given of the VM.
        grants: DevicesGrants,
        /// What stands at virtio slot 0, 1, …
        virtio: Vec<VirtioDevice>,
    },
    /// Put every device into its state after power-on. While the VM is paused.
    Reset,
    /// Press the power key. Each is a wish of its own.
    PowerButton,
    /// Which devices there are and what they have counted: [`DevicesReply::Stats`].
    Stats,
    /// Finish what is in flight, write back, publish and end.
    Shutdown,
}

impl Command for DevicesCommand {
    fn repeat(&self) -> Repeat {
        match self {
            Self::Start { .. } | Self::PowerButton => Repeat::Never,
            Self::Reset | Self::Stats | Self::Shutdown => Repeat::Freely,
        }
    }

    fn is_last(&self) -> bool {
        *self == Self::Shutdown
    }
}

/// What the devices process answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DevicesReply {
    /// Done.
    #[default]
    Done,
    /// What they have counted.
    Stats(DevicesReport),
}

/// Why the devices process did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DevicesRefusal {
    /// It serves.
    #[error("these devices serve a VM already; start another process for another VM")]
    Serving,
    /// It serves nobody, or not any more.
    #[error("the devices have ended")]
    Ended,
    /// The guest does not listen to the power key.
    #[error(
        "the guest has no driver on its power key (yet); stop it with force, or wait until it has booted"
    )]
    NobodyListens,
    /// The VM has no power key.
    #[error("the VM has no power key; configure one, or stop the VM with force")]
    NoPowerKey,
    /// Something failed.
    #[error("{0}")]
    Failed(Trouble),
}

impl Refusal for DevicesRefusal {
    fn is_passing(&self) -> bool {
        matches!(self, Self::Failed(trouble) if trouble.passing)
    }
}

/// What the devices process tells by itself: nothing. A disk without room is told by shared memory
/// ([`crate::vm::VmControl::wait_for_room`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DevicesNews {}
