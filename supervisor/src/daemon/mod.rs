//! The per-host daemon, `quasar host`: all VMs of a host, their networks, and the API over a unix socket.

mod api;
mod arrivals;
pub mod check;
mod console;
mod disks;
mod door;
mod entry;
mod error;
mod host;
pub mod journey;
mod kill;
mod leftovers;
mod lifecycle;
mod make;
mod network;
mod passt;
mod serve;
mod serving;
mod swap;
mod travel;
mod verify;
mod whereabouts;

pub use error::HostError;
pub use host::Host;
pub use network::{Attachment, LinkOptions, NetworkHandle};
pub use serve::{ServeOptions, serve};
