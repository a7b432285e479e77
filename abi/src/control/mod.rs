//! The control plane: commands from the supervisor to its children, events from them to it.
//!
//! One file per interface has its commands, answers, refusals and news, and says of each command as a value whether it
//! may be repeated ([`cpu`], [`mmu`], [`devices`], [`netswitch`], [`migrator`]). [`child`] runs every process between
//! its `main` and its end. [`channel`] carries messages: commands over `ipc-channel` where both ends have the same byte
//! order and version of it, over a SEQPACKET socket ([`seqpacket`]) otherwise; events always over the socket, because
//! the supervisor must survive whatever a child sends, and `ipc-channel` trusts its peer.

pub mod channel;
pub mod child;
pub mod codec;
pub mod cpu;
pub mod devices;
pub mod migrator;
pub mod mmu;
pub mod netswitch;
pub mod seqpacket;
pub mod trouble;

pub use channel::{
    ChannelError, Child, CommandReceiver, CommandSender, Envelope, EventReceiver, EventSender, Parent,
    Transport,
};
pub use trouble::Trouble;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Version of the messages. Ends that differ refuse each other.
///
/// 2: a disk says what becomes of a write for which the host has no room. 3: the switch tells how its links are, and a
/// migrator is told what stands in a VM's way. 4: a port says how its VM is known, and an uplink whose it is. 5: each
/// interface has answers, refusals and news of its own. 6: each role is given its own segments, as descriptors.
pub const PROTOCOL_VERSION: u32 = 6;

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

/// What can be a message, or a part of one.
pub trait Message: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + 'static {}

impl<T: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + 'static> Message for T {}

/// What the supervisor and one kind of process say to each other. Implemented by a type without values.
pub trait Interface: Clone + Copy + Debug + PartialEq + Eq + Send + Sync + 'static {
    /// The process.
    const KIND: ProcessKind;
    /// What it is told.
    type Command: Command;
    /// What it answers. The default: done, nothing to say.
    type Reply: Message + Default;
    /// Why it did not do what it was told; nothing was changed then.
    type Refusal: Refusal;
    /// What it tells by itself.
    type News: Message;
}

/// What becomes of a command whose process has died before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Idempotent: whether it was carried out or not, the successor is told it again.
    Freely,
    /// It may have been carried out, and must not be twice: whoever gave it hears that its process has died.
    Never,
}

/// A command of an [`Interface`].
pub trait Command: Message {
    /// Whether it may be given again. Retry logic asks this and knows no commands.
    fn repeat(&self) -> Repeat;

    /// Whether the process ends with it.
    fn is_last(&self) -> bool;
}

/// Why a command was not carried out.
pub trait Refusal: Message + std::error::Error {
    /// Whether the host lacked something that it may soon have again (descriptors, memory, threads): trying later is
    /// worth it, and nothing is wrong with the command.
    fn is_passing(&self) -> bool;
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
///
/// The order is part of the protocol: what comes before [`Event::Done`] is the same for every process and version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "")]
pub enum Event<I: Interface> {
    /// First of all.
    Hello(Hello),
    /// The child cannot go on and ends.
    Fatal(String),
    /// Something that people should know; the child goes on.
    Notice(String),
    /// The command of that number was carried out.
    Done {
        /// [`Envelope::id`].
        id: u64,
        /// What it answers; see the command.
        reply: I::Reply,
    },
    /// The command of that number failed; nothing was changed.
    Refused {
        /// [`Envelope::id`].
        id: u64,
        /// Why.
        refusal: I::Refusal,
    },
    /// Something that only this kind of process tells.
    News(I::News),
}
