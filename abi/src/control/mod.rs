//! The control plane: commands from the supervisor to its children, events from them to it.
//!
//! One file per interface says what each command means, what it answers and whether it may be repeated
//! ([`cpu`], [`mmu`], [`devices`], [`netswitch`], [`migrator`]). [`channel`] carries them: commands over
//! `ipc-channel` where both ends have the same byte order and version of it, over a SEQPACKET socket
//! ([`seqpacket`]) otherwise; events always over the socket, because the supervisor must survive whatever a
//! child sends, and `ipc-channel` trusts its peer.

pub mod channel;
pub mod codec;
pub mod cpu;
pub mod devices;
pub mod migrator;
pub mod mmu;
pub mod netswitch;
pub mod seqpacket;

pub use channel::{
    ChannelError, Child, CommandReceiver, CommandSender, Envelope, EventReceiver, EventSender, Parent,
    Transport,
};

use serde::{Deserialize, Serialize};

/// Version of the messages. Ends that differ refuse each other.
///
/// 2: a disk says what becomes of a write for which the host has no room. 3: the switch tells how its links are, and a
/// migrator is told what stands in a VM's way. 4: a port says how its VM is known, and an uplink whose it is.
pub const PROTOCOL_VERSION: u32 = 4;

/// Which program a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProcessKind {
    /// `quasar-cpu`.
    Cpu,
    /// `quasar-mmu`.
    Mmu,
    /// `quasar-devices`.
    Devices,
    /// `quasar-netswitch`.
    Netswitch,
    /// `quasar-migrator`.
    Migrator,
}

impl ProcessKind {
    /// The executable's file name.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Cpu => "quasar-cpu",
            Self::Mmu => "quasar-mmu",
            Self::Devices => "quasar-devices",
            Self::Netswitch => "quasar-netswitch",
            Self::Migrator => "quasar-migrator",
        }
    }
}

/// A child's first event: who it is and how it wants its commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] it was built with.
    pub protocol: u32,
    /// What it is.
    pub kind: ProcessKind,
    /// Version of its package.
    pub version: String,
    /// Host architecture it was built for ("x86_64", "powerpc64", …).
    pub arch: String,
    /// Name of its ipc-channel server, or nothing when commands shall come over the socket.
    pub ipc_server: Option<String>,
}

/// What a child tells its supervisor. Untrusted: decoded with limits, never sized by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// First of all.
    Hello(Hello),
    /// The command of that number was carried out.
    Done {
        /// [`Envelope::id`].
        id: u64,
        /// What it answers; see the command.
        reply: Reply,
    },
    /// The command of that number failed; nothing was changed.
    Failed {
        /// [`Envelope::id`].
        id: u64,
        /// What happened and what to do.
        error: String,
    },
    /// Something that people should know; the child goes on.
    Notice(String),
    /// Progress of long work (migration): a JSON object.
    Progress(String),
    /// The child cannot go on and ends.
    Fatal(String),
    /// From a migrator.
    Migration(migrator::MigrationEvent),
    /// From the switch.
    Network(netswitch::NetworkEvent),
}

/// Answers of commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done, nothing to say.
    Unit,
    /// A JSON document, for people and the API.
    Json(String),
}
