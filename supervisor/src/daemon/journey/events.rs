//! What users see of a journey: one JSON object per event.

use quasar_abi::control::migrator::{MigrationEvent, Progress, RoundReport};
use serde::{Deserialize, Serialize};

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

impl JourneyEvent {
    /// A migrator's event as a sender's user sees it; nothing for what concerns the supervisor alone.
    #[must_use]
    pub fn of(event: MigrationEvent, to: &str) -> Option<Self> {
        Some(match event {
            MigrationEvent::Incoming { .. } => return None,
            MigrationEvent::Phase(phase) => Self::Phase { phase },
            MigrationEvent::Round(report) => Self::Round { report },
            MigrationEvent::Progress(progress) => Self::Progress { progress },
            MigrationEvent::HandingOver => Self::HandingOver,
            MigrationEvent::Running { downtime_us } => Self::Arrived { downtime_us },
            MigrationEvent::NotConverging { explanation } => Self::NotConverging { explanation },
            MigrationEvent::Unclear { reason } => Self::Unclear { error: reason },
            MigrationEvent::Completed { total_us, downtime_us, forecast_us, wire_bytes, rounds, hash } => {
                let to = to.to_owned();
                Self::Completed { to, total_us, downtime_us, forecast_us, wire_bytes, rounds, hash }
            }
        })
    }
}
