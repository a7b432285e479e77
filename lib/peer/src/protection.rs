//! Mutual TLS 1.3: both sides show a certificate of one authority. Or nothing, over loopback.

use crate::{Bounded, TrustError};
use quasar_abi::control::migrator::Security;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The name that every host's certificate carries beside its own: who has a certificate of the authority is a host of
/// this cluster, whatever its address.
pub const HOST_NAME: &str = "quasar-host";

/// How connections are protected, read and checked.
#[derive(Clone)]
pub enum Protection {
    /// Not at all.
    Insecure,
    /// Certificates of one authority on both sides.
    Tls {
        /// When we connect.
        client: Arc<ClientConfig>,
        /// When we accept.
        server: Arc<ServerConfig>,
    },
}

/// A random number generator and ciphers.
#[must_use]
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let unread = |source| TrustError::Certificate { path: path.to_owned(), source };
    let list: Vec<_> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(unread)?;
    if list.is_empty() {
        return Err(TrustError::NoCertificate(path.to_owned()));
    }
    Ok(list)
}

impl Protection {
    /// Reads certificates and key.
    ///
    /// # Errors
    /// When a file is missing or malformed, or key and certificate do not belong together.
    pub fn load(security: &Security) -> Result<Self, TrustError> {
        let Security::MutualTls { authority, certificate, key } = security else { return Ok(Self::Insecure) };
        let mut roots = RootCertStore::empty();
        for root in certificates(authority)? {
            roots.add(root).map_err(|source| TrustError::Authority { path: authority.clone(), source })?;
        }
        let (roots, chain) = (Arc::new(roots), certificates(certificate)?);
        let key = PrivateKeyDer::from_pem_file(key)
            .map_err(|source| TrustError::Key { path: key.clone(), source })?;
        let provider = provider();
        let versions = &[&rustls::version::TLS13];
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(TrustError::Tls)?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(TrustError::Apart)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(TrustError::Verifier)?;
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(TrustError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(TrustError::Apart)?;
        Ok(Self::Tls { client: Arc::new(client), server: Arc::new(server) })
    }

    /// Makes a connected, blocking socket safe; `dialled` when we connected. Nothing without TLS, which is for loopback
    /// alone. The socket's time-outs are changed.
    ///
    /// # Errors
    /// When the other side is no host that we trust, or has not proved it by then.
    pub fn secure(
        &self,
        socket: &TcpStream,
        dialled: bool,
        by: Instant,
    ) -> Result<Option<Connection>, TrustError> {
        let peer = socket.peer_addr().map_err(TrustError::Gone)?;
        match self {
            Self::Insecure if peer.ip().is_loopback() => Ok(None),
            Self::Insecure => Err(TrustError::NotLoopback(peer)),
            Self::Tls { client, .. } if dialled => shaken(calls(Arc::clone(client))?, socket, by).map(Some),
            Self::Tls { server, .. } => shaken(takes(Arc::clone(server))?, socket, by).map(Some),
        }
    }
}

/// The side that called.
pub fn calls(config: Arc<ClientConfig>) -> Result<Connection, TrustError> {
    let name = ServerName::try_from(HOST_NAME).expect("a name of letters");
    Ok(ClientConnection::new(config, name).map_err(TrustError::Tls)?.into())
}

/// The side that was called.
pub fn takes(config: Arc<ServerConfig>) -> Result<Connection, TrustError> {
    Ok(ServerConnection::new(config).map_err(TrustError::Tls)?.into())
}

/// Shakes hands over a blocking socket.
///
/// # Errors
/// When the other side is no host that we trust, or has not proved it by then.
pub fn shaken(mut tls: Connection, socket: &TcpStream, by: Instant) -> Result<Connection, TrustError> {
    let mut bounded = Bounded::new(socket, by);
    let mut shake = || -> std::io::Result<()> {
        while tls.is_handshaking() {
            tls.complete_io(&mut bounded)?;
        }
        while tls.wants_write() {
            tls.write_tls(&mut bounded)?;
        }
        Ok(())
    };
    let source = match shake() {
        Ok(()) => return Ok(tls),
        Err(error) => error,
    };
    // Why not, if there is something to say.
    while tls.wants_write() && tls.write_tls(&mut bounded).is_ok_and(|n| n > 0) {}
    let peer = socket.peer_addr().map_or_else(|_| "the other side".to_owned(), |peer| peer.to_string());
    Err(TrustError::Unproved { peer, source })
}
