//! Mutual TLS 1.3: both sides show a certificate of one authority. Or nothing, over loopback.

use crate::Bounded;
use anyhow::{Context, bail};
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

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let what = || format!("certificate {}", path.display());
    let list: Vec<_> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect).with_context(what)?;
    if list.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(list)
}

impl Protection {
    /// Reads certificates and key.
    ///
    /// # Errors
    /// When a file is missing or malformed, or key and certificate do not belong together.
    pub fn load(security: &Security) -> anyhow::Result<Self> {
        let Security::MutualTls { authority, certificate, key } = security else { return Ok(Self::Insecure) };
        let mut roots = RootCertStore::empty();
        for root in certificates(authority)? {
            roots.add(root).with_context(|| format!("authority {}", authority.display()))?;
        }
        let (roots, chain) = (Arc::new(roots), certificates(certificate)?);
        let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("key {}", key.display()))?;
        let provider = provider();
        let versions = &[&rustls::version::TLS13];
        let apart = "the certificate and the key do not belong together";
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .context(apart)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .context(apart)?;
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
    ) -> anyhow::Result<Option<Connection>> {
        let peer = socket.peer_addr()?;
        match self {
            Self::Insecure if peer.ip().is_loopback() => Ok(None),
            Self::Insecure => {
                bail!(
                    "{peer} is not on this machine, and without TLS hosts talk over loopback alone; see `quasar pki`"
                )
            }
            Self::Tls { client, .. } if dialled => {
                let name = ServerName::try_from(HOST_NAME)?;
                shaken(ClientConnection::new(Arc::clone(client), name)?.into(), socket, by).map(Some)
            }
            Self::Tls { server, .. } => {
                shaken(ServerConnection::new(Arc::clone(server))?.into(), socket, by).map(Some)
            }
        }
    }
}

/// Shakes hands over a blocking socket.
///
/// # Errors
/// When the other side is no host that we trust, or has not proved it by then.
pub fn shaken(mut tls: Connection, socket: &TcpStream, by: Instant) -> anyhow::Result<Connection> {
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
    let failed = match shake() {
        Ok(()) => return Ok(tls),
        Err(error) => error,
    };
    // Why not, if there is something to say.
    while tls.wants_write() && tls.write_tls(&mut bounded).is_ok_and(|n| n > 0) {}
    let peer = socket.peer_addr().map_or_else(|_| "the other side".to_owned(), |peer| peer.to_string());
    let words = format!("{peer} is refused: it did not prove to be a host of our authority");
    Err(anyhow::Error::from(failed).context(words))
}
