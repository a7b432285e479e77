//! Why a connection is none between hosts of ours.

use rustls::pki_types::pem;
use rustls::server::VerifierBuilderError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Keys that cannot be used, or a peer that is not let in. Causes are behind it, and not in its own words.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file of certificates cannot be read.
    #[error("certificate {}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file of certificates is empty.
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate cannot be an authority's.
    #[error("authority {}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A private key cannot be read.
    #[error("key {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The key is another certificate's.
    #[error("the certificate and the key do not belong together")]
    Apart(#[source] rustls::Error),
    /// The authority's certificates prove nothing.
    #[error("the authority's certificates cannot be used")]
    Verifier(#[source] VerifierBuilderError),
    /// TLS cannot be prepared.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// Without TLS, and not on this machine.
    #[error("{0} is not on this machine, and without TLS hosts talk over loopback alone; see `quasar pki`")]
    NotLoopback(SocketAddr),
    /// It has not shown a certificate of our authority in time.
    #[error("{peer} is refused: it did not prove to be a host of our authority")]
    Unproved {
        /// Who.
        peer: String,
        /// How that showed.
        source: io::Error,
    },
    /// The other side ended the talk instead of answering a knock.
    #[error("it does not take us for a host of its authority, or takes nobody at present")]
    NotTaken(#[source] io::Error),
    /// The other side sent data instead of ending the talk of a knock.
    #[error("it says something where a knock is answered")]
    Talks,
    /// The knock was heard, and the handshake behind it failed.
    #[error("it heard us knock, and did not let us in; try again")]
    NotLetIn(#[source] Box<TrustError>),
    /// Without TLS: its first message is no migrator's.
    #[error("it is no migrator")]
    NoMigrator(#[source] io::Error),
    /// It began a migrator's TLS without a knock.
    #[error("it does not knock: its Quasar is older than this host's; upgrade it")]
    NoKnock,
    /// It needed longer than others could wait for its place.
    #[error("others took its place before it had proved who it is")]
    LostPlace,
    /// The connection is of no use any more.
    #[error("it has hung up")]
    Gone(#[source] io::Error),
}
