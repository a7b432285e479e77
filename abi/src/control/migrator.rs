//! `quasar-migrator`: moves a VM to another host, or to and from a file. One process, one journey.

use super::{Command, Interface, ProcessKind, Refusal, Repeat, Trouble};
use crate::grants::{Grant, MigratorGrants};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrator {}

impl Interface for Migrator {
    const KIND: ProcessKind = ProcessKind::Migrator;
    type Command = MigratorCommand;
    type Reply = MigratorReply;
    type Refusal = MigratorRefusal;
    type News = MigrationEvent;
}

/// Commands to the migrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MigratorCommand {
    /// Send the VM to the host at `to`. Answers when the VM runs there, or fails and leaves it running
    /// here, whole. First and once.
    Send {
        /// The VM.
        vm: LocalVm,
        /// "address:port" where the other host takes migrations.
        to: String,
        /// How the connection is protected.
        security: Security,
        /// What the user allows.
        limits: Limits,
    },
    /// Receive a VM over the connected socket that was inherited as `--peer-fd`. Tells
    /// [`MigrationEvent::Incoming`] and waits for `Prepared` or `Refuse`. First and once.
    Receive {
        /// How the connection is protected.
        security: Security,
    },
    /// Write the VM to a file and leave it paused. Answers [`MigratorReply::Suspended`]. First and once.
    Suspend {
        /// The VM.
        vm: LocalVm,
        /// The file; it appears under this name when it is whole.
        #[serde(with = "crate::os_path")]
        file: PathBuf,
    },
    /// Read a VM from a file. Tells [`MigrationEvent::Incoming`] and waits for `Prepared`. First and once.
    Resume {
        /// The file.
        #[serde(with = "crate::os_path")]
        file: PathBuf,
    },
    /// The VM that was announced is ready to be filled: its segments are made, its processes attached, and
    /// [`crate::vm::pause::MIGRATOR`] holds it paused.
    Prepared {
        /// The VM.
        vm: LocalVm,
    },
    /// The VM that was announced cannot be taken.
    Refuse {
        /// Why, for the user at the other end.
        reason: String,
    },
    /// Receiver: what stands in the way of running the VM here, or that nothing does any more. While there is something,
    /// no round is taken; if it stays, or comes in the pause, the VM is refused with it and goes on where it is.
    Obstacle {
        /// For the user at the other end.
        reason: Option<String>,
    },
    /// Give the journey up, if the hand-over has not happened.
    Cancel,
    /// End.
    Shutdown,
}

impl Command for MigratorCommand {
    /// A journey is one process's: whoever starts it decides whether there is another.
    fn repeat(&self) -> Repeat {
        match self {
            Self::Send { .. }
            | Self::Receive { .. }
            | Self::Suspend { .. }
            | Self::Resume { .. }
            | Self::Prepared { .. }
            | Self::Refuse { .. } => Repeat::Never,
            Self::Obstacle { .. } | Self::Cancel | Self::Shutdown => Repeat::Freely,
        }
    }

    fn is_last(&self) -> bool {
        *self == Self::Shutdown
    }
}

/// What the migrator answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MigratorReply {
    /// Done.
    #[default]
    Done,
    /// The VM is in its file.
    Suspended(Suspended),
}

/// What a suspend file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspended {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of pages that are not zero.
    pub raw_bytes: u64,
    /// Hash over RAM, disks and state, hexadecimal.
    pub hash: String,
}

/// Why the migrator did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MigratorRefusal {
    /// It has a journey.
    #[error("this migrator is on its journey already; start another")]
    OnJourney,
    /// It may run there ([`MigrationEvent::Unclear`] came before).
    #[error("{reason}; the VM is paused here and may run at {to}: look there before you resume it")]
    Unclear {
        /// What was seen.
        reason: String,
        /// Where it may run.
        to: String,
    },
    /// The journey failed: the VM is where it was, whole.
    #[error("{0}")]
    Failed(Trouble),
}

impl Refusal for MigratorRefusal {
    fn is_passing(&self) -> bool {
        matches!(self, Self::Failed(trouble) if trouble.passing)
    }
}

/// A VM on this host as the migrator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalVm {
    /// What the migrator is given of it.
    pub grants: MigratorGrants,
    /// What the other supervisor needs to make the same VM: a JSON document of the supervisors.
    pub description: String,
    /// Disks whose content travels, by virtio slot.
    pub disks: Vec<LocalDisk>,
}

/// A disk whose content travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalDisk {
    /// Its virtio slot.
    pub slot: u8,
    /// The raw file.
    #[serde(with = "crate::os_path")]
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its dirty maps ([`crate::dirty::PageMaps`] with base 0).
    pub maps: Grant,
}

/// How a frame of the migrators' stream begins.
pub const STREAM_MAGIC: [u8; 4] = *b"QMF1";
/// Bytes before a frame's payload: magic, kind (16 bits), two reserved bytes, the payload's length, the frame's number
/// (32 bits each) and a hash.
pub const FRAME_HEADER: usize = 24;
/// The kind of the first message, the source's offer.
pub const OFFER: u16 = 1;
/// Bytes of the first message with its frame, at most: an offer is some dozens.
pub const FIRST_MESSAGE: usize = 4096;

/// Bytes of the first message of a stream that begins so; nothing while its header is not whole.
///
/// # Errors
/// When no migrator begins so.
pub fn first_message(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let begins = bytes.iter().zip(STREAM_MAGIC).all(|(byte, magic)| *byte == magic);
    let [_, _, _, _, k0, k1, _, _, l0, l1, l2, l3, ..] = *bytes else {
        return if begins { Ok(None) } else { Err("it does not begin as a migrator does") };
    };
    if !begins || u16::from_le_bytes([k0, k1]) != OFFER {
        return Err("it does not begin as a migrator does");
    }
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    match length.checked_add(FRAME_HEADER).filter(|whole| *whole <= FIRST_MESSAGE) {
        Some(whole) => Ok(Some(whole)),
        None => Err("its first message is too long"),
    }
}

/// How a connection is protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// Not at all; for loopback alone.
    Insecure,
    /// TLS with a certificate on both sides, of one authority.
    MutualTls {
        /// The authority's certificate (PEM).
        #[serde(with = "crate::os_path")]
        authority: PathBuf,
        /// Our certificate (PEM).
        #[serde(with = "crate::os_path")]
        certificate: PathBuf,
        /// Its key (PEM).
        #[serde(with = "crate::os_path")]
        key: PathBuf,
    },
}

/// What to do when the guest writes faster than the link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Converge {
    /// Slow its harts down, step by step.
    Throttle,
    /// Pause it and accept the downtime.
    Pause,
    /// Give up; it goes on here.
    Abort,
}

/// What the user allows a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest downtime forecast with which the VM is paused, in microseconds.
    pub max_downtime_us: u64,
    /// Bytes per second on the link; 0 for all it has.
    pub bandwidth: u64,
    /// Give up after so many seconds; 0 for never.
    pub timeout_s: u64,
    /// When it does not converge.
    pub converge: Converge,
    /// Bytes of memory for copies of pages that were sent, so that they can be sent again as differences; 0 for none,
    /// nothing for what fits the guest and the machine.
    pub delta_bytes: Option<u64>,
    /// The most connections at once, the first included; as many as carry more than fewer.
    #[serde(default = "Limits::default_connections")]
    pub connections: u16,
}

impl Limits {
    /// Connections when the user says nothing.
    #[must_use]
    pub const fn default_connections() -> u16 {
        8
    }
}

/// What one round has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundReport {
    /// Number of the round, from 0; the last one runs while the VM is paused.
    pub round: u32,
    /// Pages (and disk blocks of 4 KiB) looked at.
    pub pages: u64,
    /// Of these, all zero.
    pub zero_pages: u64,
    /// Bytes of them before compression, zero pages not counted.
    pub raw_bytes: u64,
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// Connections over which they went.
    pub connections: u16,
    /// Microseconds.
    pub took_us: u64,
    /// Pages written by the guest meanwhile.
    pub dirtied: u64,
    /// Forecast of the downtime if the VM were paused now, in microseconds.
    pub forecast_us: u64,
    /// Throttle of the harts in parts per thousand.
    pub throttle_permille: u64,
}

/// How far a round is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Number of the round.
    pub round: u32,
    /// Pages it has to look at.
    pub pages: u64,
    /// Pages sent so far.
    pub sent_pages: u64,
    /// Bytes on the wire so far, as far as they can be counted between pages.
    pub wire_bytes: u64,
    /// Connections over which they go.
    pub connections: u16,
    /// Microseconds so far.
    pub took_us: u64,
    /// Pages written by the guest meanwhile.
    pub dirtied: u64,
}

/// What happens to a migration, for the supervisor. Wire and phases: `docs/migration.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MigrationEvent {
    /// Receiver: a VM wants to come; answer with `Prepared` or `Refuse`.
    Incoming {
        /// The sender's `description`.
        description: String,
        /// Bytes of RAM.
        ram_bytes: u64,
        /// Number of harts.
        harts: u32,
        /// Bytes of each disk that travels, by slot.
        disks: Vec<(u8, u64)>,
    },
    /// A phase of our role begins.
    Phase(String),
    /// A round has ended.
    Round(RoundReport),
    /// Sender: the other side has accepted; from here on this VM never runs again here. The supervisor
    /// moves its network ports.
    HandingOver,
    /// Receiver: the VM runs here.
    Running {
        /// Microseconds from the pause at the source to here.
        downtime_us: u64,
    },
    /// Sender: all done. The VM runs there.
    Completed {
        /// Microseconds from the first byte to the end.
        total_us: u64,
        /// Microseconds without a running VM, as the receiver measured.
        downtime_us: u64,
        /// The last forecast before the pause, in microseconds.
        forecast_us: u64,
        /// Bytes on the wire in all.
        wire_bytes: u64,
        /// Rounds, the paused one included.
        rounds: u32,
        /// Hash over RAM and state that both sides found, hexadecimal.
        hash: String,
    },
    /// The connection broke after the hand-over was sent and before it was confirmed: the VM stays paused
    /// here; it may run there.
    Unclear {
        /// What was seen.
        reason: String,
    },
    /// It does not converge; what was measured and what will be done.
    NotConverging {
        /// An explanation for people.
        explanation: String,
    },
    /// A long round goes on.
    Progress(Progress),
}
