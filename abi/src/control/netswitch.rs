//! `quasar-netswitch`: the host's Ethernet switch.

use super::migrator::Security;
use super::{Command, Interface, ProcessKind, Refusal, Repeat, Trouble};
use crate::grants::Grant;
use crate::report::NetworksReport;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// The interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netswitch {}

impl Interface for Netswitch {
    const KIND: ProcessKind = ProcessKind::Netswitch;
    type Command = NetswitchCommand;
    type Reply = NetswitchReply;
    type Refusal = NetswitchRefusal;
    type News = NetworkEvent;
}

/// Commands to the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetswitchCommand {
    /// Attach a VM's port to a network, making the network when it is new. A port of the same
    /// name on the same segment is left as it is.
    AttachPort {
        /// Network's name.
        network: String,
        /// Port's name, unique on the host ("web/0").
        port: String,
        /// Its packet rings ([`crate::frames`]).
        rings: Grant,
        /// The card's address: learnt at once, and the only source address accepted from this port.
        mac: [u8; 6],
        /// Serve the VM by DHCP and DNS ([`crate::address_plan`]); the address that it has is told by
        /// [`NetworkEvent::Leased`] before the command is done. Without it the VM's frames pass as they are.
        lease: Option<LeaseWish>,
    },
    /// Detach a port; frames for it are flooded or dropped from now on.
    DetachPort {
        /// Port's name.
        port: String,
    },
    /// The VM of a port has ended: detach the port, and tell the other hosts, so that what one of them keeps for the
    /// VM can go.
    EndPort {
        /// Port's name.
        port: String,
    },
    /// Add an uplink to a network. One of the same name is left as it is.
    AddUplink {
        /// Network's name.
        network: String,
        /// Uplink's name.
        name: String,
        /// What it is.
        uplink: Uplink,
    },
    /// Remove an uplink.
    RemoveUplink {
        /// Uplink's name.
        name: String,
    },
    /// Take links from other hosts' switches. Answers [`NetswitchReply::Listening`] with the address in use
    /// (port 0 asks for any). Without TLS loopback alone.
    Listen {
        /// "address:port".
        address: String,
        /// How links are protected.
        security: Security,
    },
    /// Keep a link to another host's switch, connecting again whenever it breaks. It carries every network
    /// that both have. Links form a full mesh: what came over one is not sent over another. Two hosts that
    /// link to each other both ways use one of the two connections. One of the same name is left as it is.
    AddLink {
        /// Link's name, for people and for `RemoveLink`.
        name: String,
        /// "address:port" where the other switch listens.
        to: String,
        /// How it is protected.
        security: Security,
    },
    /// Remove a link and close its connection.
    RemoveLink {
        /// Link's name.
        name: String,
    },
    /// Destination of a migration: the VM is not here yet. Before `AttachPort` (or right after) under the same
    /// name; until the source's switch says that the VM has left there, the network goes on to reach it there;
    /// from then on frames for it are held, until `ReleasePort`.
    HoldPort {
        /// Port's name.
        port: String,
    },
    /// Destination: the VM runs here. Delivers what was held, in order, and announces the place (gratuitous
    /// ARP for each address, RARP) to the network and its links, several times within a second. On a port that
    /// is not held it announces alone. May come before the source's `MovePort`.
    ReleasePort {
        /// Port's name.
        port: String,
        /// IPv4 addresses to announce, beside those that were learnt from its frames or came over a link.
        addresses: Vec<[u8; 4]>,
    },
    /// Source: the VM has left (paused here, accepted there). Detaches the port, sends what its card had not
    /// taken to the new place, and frames that still come here for it as well. Answers
    /// [`NetswitchReply::Moved`]. The card must be at rest. A port that is
    /// not there answers an empty list.
    MovePort {
        /// Port's name.
        port: String,
    },
    /// Networks with their ports, learnt addresses and counters, and links with their states:
    /// [`NetswitchReply::Stats`].
    Stats,
    /// End.
    Shutdown,
}

impl Command for NetswitchCommand {
    /// All of them say how something shall be: a new switch is told it all again.
    fn repeat(&self) -> Repeat {
        match self {
            Self::AttachPort { .. }
            | Self::DetachPort { .. }
            | Self::EndPort { .. }
            | Self::AddUplink { .. }
            | Self::RemoveUplink { .. }
            | Self::Listen { .. }
            | Self::AddLink { .. }
            | Self::RemoveLink { .. }
            | Self::HoldPort { .. }
            | Self::ReleasePort { .. }
            | Self::MovePort { .. }
            | Self::Stats
            | Self::Shutdown => Repeat::Freely,
        }
    }

    fn is_last(&self) -> bool {
        *self == Self::Shutdown
    }
}

/// What the switch answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetswitchReply {
    /// Done.
    #[default]
    Done,
    /// Links are taken.
    Listening {
        /// "address:port" in use.
        address: String,
    },
    /// The port has moved.
    Moved {
        /// Addresses of its VM, for [`NetswitchCommand::ReleasePort`].
        addresses: Vec<Ipv4Addr>,
    },
    /// Networks and links.
    Stats(NetworksReport),
}

/// Why the switch did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NetswitchRefusal {
    /// The name is taken.
    #[error("a port named {name} is already attached to network {network}; detach it first")]
    NameTaken {
        /// The port.
        name: String,
        /// Where it is.
        network: String,
    },
    /// There is no such port.
    #[error("there is no port named {0}; attach it first")]
    NoPort(String),
    /// The port is no VM's.
    #[error("port {0} belongs to no VM: it can be neither held nor moved")]
    NotACard(String),
    /// The network is gone.
    #[error("network {0} is not here any more")]
    NoNetwork(String),
    /// All addresses are given away.
    #[error("network {0} has no address left for another VM")]
    Full(String),
    /// A port, a link or a listener could not be had.
    #[error("{0}")]
    Failed(Trouble),
}

impl Refusal for NetswitchRefusal {
    fn is_passing(&self) -> bool {
        matches!(self, Self::Failed(trouble) if trouble.passing)
    }
}

/// How a VM shall be known in its network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseWish {
    /// Its name: what others on the network call it.
    pub name: String,
    /// The address that it had before, or that it shall have if nobody else has it. Without one it is given one that
    /// follows from the card's address.
    pub address: Option<[u8; 4]>,
    /// It has a way out of its own, here or at its home: it is told of a gateway, and names that nobody on the network
    /// has are asked for outside.
    pub way_out: bool,
}

/// What the switch tells by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkEvent {
    /// The VM of this port has this address from now on: it was attached, or another host's VM has the one that it had.
    Leased {
        /// Port's name.
        port: String,
        /// Its IPv4 address.
        address: [u8; 4],
    },
    /// The VM of this card has ended on another host. May come more than once.
    Ended {
        /// Network's name.
        network: String,
        /// The card's address.
        mac: [u8; 6],
    },
    /// A link that is kept has come up, or is down (for another reason than before).
    Link {
        /// Its name.
        name: String,
        /// Whether it carries frames.
        up: bool,
        /// Why not.
        reason: String,
    },
}

/// A way out of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Uplink {
    /// A TAP interface of that name, made when it is not there.
    Tap {
        /// Interface name.
        interface: String,
    },
    /// A stream socket where passt (or a program of its protocol) listens: frames behind a 32-bit
    /// big-endian length. It is one VM's: nobody else's frames go out there, and what comes in is for that VM.
    Stream {
        /// Path of the unix socket.
        #[serde(with = "crate::os_path")]
        path: PathBuf,
        /// The VM's card.
        owner: [u8; 6],
    },
}
