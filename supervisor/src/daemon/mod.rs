//! The per-host daemon, `quasar host`: all VMs of a host, their networks, and the API over a unix socket.

mod api;
mod arrivals;
mod console;
mod disks;
mod door;
mod entry;
mod host;
pub mod journey;
mod journeys;
mod kill;
mod leftovers;
mod lifecycle;
mod make;
mod network;
mod passt;
mod serve;
pub mod spec;
mod swap;
mod travel;
mod verify;

pub use entry::VmView;
pub use host::{Host, HostError, HostView, Neighbours};
pub use kill::{KillSpec, Killed};
pub use network::{Attachment, LinkOptions, LinkView, NetworkHandle};
pub use serve::{ServeOptions, serve};
pub use swap::{SwapSpec, Swapped};
pub use verify::{Verified, VerifiedRun, VerifySpec};
