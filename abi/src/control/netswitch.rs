//! `quasar-netswitch`: the host's Ethernet switch.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Commands to the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetswitchCommand {
    /// Attach a VM's port to a network, making the network when it is new. Repeatable: a port of the same
    /// name on the same segment is left as it is.
    AttachPort {
        /// Network's name.
        network: String,
        /// Port's name, unique on the host ("web/0").
        port: String,
        /// Its packet rings ([`crate::frames`]).
        segment: String,
        /// The card's address: learnt at once, and the only source address accepted from this port.
        mac: [u8; 6],
    },
    /// Detach a port; frames for it are flooded or dropped from now on. Repeatable.
    DetachPort {
        /// Port's name.
        port: String,
    },
    /// Add an uplink to a network. Repeatable by name.
    AddUplink {
        /// Network's name.
        network: String,
        /// Uplink's name.
        name: String,
        /// What it is.
        uplink: Uplink,
    },
    /// Remove an uplink. Repeatable.
    RemoveUplink {
        /// Uplink's name.
        name: String,
    },
    /// Networks, ports, learnt addresses and counters, as JSON. Repeatable.
    Stats,
    /// End. Repeatable.
    Shutdown,
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
    /// big-endian length.
    Stream {
        /// Path of the unix socket.
        path: PathBuf,
    },
}
