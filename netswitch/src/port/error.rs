//! Why a port cannot be opened.

use nix::errno::Errno;
use nix::libc::IFNAMSIZ;
use quasar_abi::SegmentError;
use std::io;

/// A port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// A card's rings cannot be attached.
    #[error("{0}")]
    Rings(#[from] SegmentError),
    /// No interface can have that name.
    #[error("{0:?} is no interface name (1 to {most} ASCII characters)", most = IFNAMSIZ - 1)]
    InterfaceName(String),
    /// The host's TAP driver cannot be reached.
    #[error("cannot open /dev/net/tun (is the tun module there, and may this user open it?)")]
    Driver(#[source] io::Error),
    /// The interface cannot be had.
    #[error("cannot open TAP interface {interface} (it needs CAP_NET_ADMIN, or an owner)")]
    Interface {
        /// Its name.
        interface: String,
        /// What the system said.
        source: Errno,
    },
}
