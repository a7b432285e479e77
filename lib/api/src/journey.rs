//! Journeys: what is asked for, and what users see of them, one JSON object per event.

use quasar_abi::control::migrator::{Limits, Progress, RoundReport};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// An event. The last one of a journey is `completed`, `failed`, `unclear` or `suspended`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JourneyEvent {
    /// A phase begins.
    Phase {
        /// Its name.
        phase: String,
    },
    /// A round has ended.
    Round {
        /// What it has done.
        #[serde(flatten)]
        report: RoundReport,
    },
    /// A long round goes on.
    Progress {
        /// How far it is.
        #[serde(flatten)]
        progress: Progress,
    },
    /// It does not converge.
    NotConverging {
        /// What was measured and what will be done.
        explanation: String,
    },
    /// The other side has accepted.
    HandingOver,
    /// It runs there.
    Completed {
        /// Where it runs.
        to: String,
        /// Microseconds from the first byte to the end.
        total_us: u64,
        /// Microseconds without a running VM.
        downtime_us: u64,
        /// The forecast of that before the pause.
        forecast_us: u64,
        /// Bytes on the wire.
        wire_bytes: u64,
        /// Rounds, the paused one included.
        rounds: u32,
        /// Hash over RAM, disks and state that both sides found.
        hash: String,
    },
    /// It runs here, taken from a file or a peer.
    Arrived {
        /// Microseconds without a running VM, when the sender measured them.
        downtime_us: u64,
    },
    /// It is in a file.
    Suspended {
        /// Bytes of the file.
        file_bytes: u64,
        /// Bytes of pages that are not zero.
        raw_bytes: u64,
        /// Hash over RAM, disks and state.
        hash: String,
    },
    /// It failed; the VM is where it was, whole.
    Failed {
        /// Why.
        error: String,
    },
    /// It is not known whether the VM runs there; it stays paused here.
    Unclear {
        /// What happened and what to do.
        error: String,
    },
}

/// What is shown of a VM's journey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JourneyView {
    /// "to HOST:PORT", "from ADDRESS", "to FILE" or "from FILE".
    pub way: String,
    /// The phase that began last.
    pub phase: String,
    /// Rounds so far.
    pub rounds: u32,
    /// Its migrator's process id, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// A VM is to go to another host.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Departure {
    /// "host:port" where the other host takes migrations.
    pub to: String,
    /// What the user allows.
    pub limits: Limits,
    /// Disks stay where they are: the other host reaches the same files.
    #[serde(default)]
    pub shared_disk: bool,
}

/// A VM is to go to a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspension {
    /// The file, absolute.
    #[serde(with = "quasar_abi::os_path")]
    pub file: PathBuf,
    /// Leave the disks' content out: the file is resumed where they are.
    #[serde(default)]
    pub shared_disk: bool,
}

/// A VM is to come back from a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Return {
    /// The file, absolute.
    #[serde(with = "quasar_abi::os_path")]
    pub file: PathBuf,
    /// Another name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
