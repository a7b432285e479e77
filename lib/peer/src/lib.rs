//! The doors of a host: how whoever connects from outside proves to be a host of our authority, and what strangers may
//! cost until they have.
//!
//! Three processes have a door: the daemon (VMs that arrive), the switch (links) and a migrator (further connections of
//! its own journey). All of them keep three rules:
//!
//! 1. **The whole proof has one deadline** ([`HANDSHAKE`]), however slowly its bytes come ([`Bounded`]).
//! 2. **Strangers hold no place that another one needs** ([`strangers`]): there are places for so many in all and for so
//!    many of one address, and a newcomer to a full house takes the place of whoever has been there longest at the most
//!    crowded address. Honest hosts need a place for milliseconds.
//! 3. **Nothing is made for a stranger** but a thread with a deadline: no process, no VM.
//!
//! [`protection`] is mutual TLS 1.3, [`knock`] the daemon's proof before it starts a migrator.
#![forbid(unsafe_code)]

mod bounded;
mod error;
pub mod knock;
mod neighbours;
pub mod protection;
pub mod strangers;
#[cfg(test)]
mod tests;

pub use bounded::Bounded;
pub use error::TrustError;
pub use neighbours::Neighbours;
pub use protection::{HOST_NAME, Protection};
pub use strangers::{Strangers, Visit};

use std::time::Duration;

/// Time for a stranger to prove who it is.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
