//! Why there is no link.

use super::wire::{VERSIONS, WireError};
use quasar_peer::TrustError;
use std::io;

/// A link, or a place where links are taken, cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The listener is there, and proves itself otherwise.
    #[error("links are taken at {0} already, with other certificates; restart the switch to change them")]
    OtherCertificates(String),
    /// The link is there, and goes elsewhere.
    #[error("a link named {name} goes to {to} already; remove it first")]
    Elsewhere {
        /// The link.
        name: String,
        /// Where it goes.
        to: String,
    },
    /// The keys cannot be used.
    #[error("{0}")]
    Keys(#[from] TrustError),
    /// The address is not ours, or in use.
    #[error("cannot listen at {address}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Without TLS, and others could connect.
    #[error("links without TLS are taken over loopback alone, and {0} is not; see `quasar pki`")]
    NotLoopback(String),
    /// The system gives no thread to serve it.
    #[error("{0}")]
    Thread(#[source] io::Error),
}

/// A connection that becomes no link.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// The address cannot be looked up.
    #[error("it is no address:port")]
    NoAddress(#[source] io::Error),
    /// The name has no address.
    #[error("it has no address")]
    Nowhere,
    /// There is no connection, or none any more.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// It is no host of ours, or has not proved it in time.
    #[error("{0}")]
    Untrusted(#[from] TrustError),
    /// It ended TLS instead of saying something.
    #[error("it does not take us for a host of its authority, or is none of ours")]
    NotTaken(#[source] io::Error),
    /// What it says is no switch's.
    #[error("it is no switch")]
    NoSwitch(#[from] WireError),
    /// It says something else first.
    #[error("it is no switch: it did not begin with a hello")]
    NoHello,
    /// No version is spoken by both.
    #[error(
        "it speaks versions {oldest} to {newest} of the link protocol, we {} to {}; update the older host",
        VERSIONS.0,
        VERSIONS.1
    )]
    Versions {
        /// The oldest that it speaks.
        oldest: u16,
        /// The newest.
        newest: u16,
    },
    /// It said that it takes no link, and why.
    #[error("it refused: {0}")]
    Refused(String),
    /// It said nothing in time.
    #[error("it says nothing; perhaps it takes links with TLS alone, or is no switch")]
    Silent,
    /// It hung up before its hello: who called does so when there is a connection already.
    #[error("it closed the connection")]
    HungUp,
    /// We were told to end.
    #[error("ended")]
    Ended,
    /// We called ourselves.
    #[error("it is this very switch; remove the link")]
    Itself,
}
