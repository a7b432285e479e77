//! What is shown of VMs.

use crate::host::LinkView;
use crate::journey::JourneyView;
use crate::process::ProcessInfo;
use crate::spec::VmSpec;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its processes are being started.
    Starting,
    /// It comes from another host or from a file, and does not run here yet.
    Arriving,
    /// It runs.
    Running,
    /// A user has paused it, or it is unclear whether it runs on another host.
    Paused,
    /// It was asked to shut down, or its processes are being ended.
    Stopping,
    /// It has ended; nothing of it runs.
    Stopped,
    /// It cannot go on. What is left of its processes is paused.
    Failed,
    /// It runs on another host, and its network's way out is still here.
    Away,
}

impl Phase {
    /// Whether it has come to an end.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }

    /// The word shown to people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Arriving => "arriving",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Away => "away",
        }
    }
}

/// How a stopped VM came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The guest powered itself off.
    Poweroff,
    /// The guest powered itself off and reported a failure.
    GuestFailure {
        /// Its code.
        code: u64,
    },
    /// The user ended it.
    Forced,
    /// A bare program wrote `tohost`.
    HtifExit {
        /// The value.
        value: u64,
    },
    /// A hart reached its instruction limit.
    Limit,
}

/// A VM's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    /// Where it is.
    pub phase: Phase,
    /// Why, when it failed or is held for a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How it ended, when it stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Its processes now.
    pub processes: Vec<ProcessInfo>,
    /// Times the guest has rebooted.
    pub reboots: u64,
    /// Why the guest's kernel panicked before it rebooted, by its console, when it last did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<String>,
    /// What is wrong with its processes although it is not given up: who dies again and again, who is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
}

impl VmStatus {
    /// A VM that is about to start.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            phase: Phase::Starting,
            reason: None,
            outcome: None,
            processes: vec![],
            reboots: 0,
            panic: None,
            degraded: None,
        }
    }
}

impl Default for VmStatus {
    fn default() -> Self {
        Self::new()
    }
}

/// What is shown of a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmView {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    #[serde(flatten)]
    pub status: VmStatus,
    /// Bytes of RAM.
    pub memory: u64,
    /// Harts.
    pub harts: u8,
    /// Its network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Its address there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Published ports.
    pub publish: Vec<String>,
    /// Seconds since 1970 when it was made.
    pub created: u64,
    /// Its journey, while it is on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journey: Option<JourneyView>,
    /// Links that its network needs and that are down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links_down: Vec<LinkView>,
    /// What it was made from.
    pub spec: VmSpec,
}

/// A part of a VM's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPart {
    /// What was said.
    pub text: String,
    /// Where the next part begins.
    pub next: u64,
}
