//! Mutual TLS: both sides show a certificate of one authority. TLS 1.3 alone.

use crate::connection::{Stream, prepare};
use anyhow::{Context, bail};
use quasar_abi::control::migrator::Security;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The name that every host's certificate carries beside its own: who has a certificate of the authority
/// is a host of this cluster, whatever its address.
pub const HOST_NAME: &str = "quasar-host";

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let what = || format!("certificate {}", path.display());
    let list: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).with_context(what)?.collect();
    let list = list.with_context(what)?;
    if list.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(list)
}

struct Identity {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn identity(authority: &Path, certificate: &Path, key: &Path) -> anyhow::Result<Identity> {
    let mut roots = RootCertStore::empty();
    for root in certificates(authority)? {
        roots.add(root).with_context(|| format!("authority {}", authority.display()))?;
    }
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("key {}", key.display()))?;
    Ok(Identity { roots: Arc::new(roots), chain: certificates(certificate)?, key })
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Bytes that nobody can guess.
///
/// # Errors
/// When the system has none.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    provider().secure_random.fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
    Ok(bytes)
}

/// Connects to a migrator.
///
/// # Errors
/// When nobody listens there, or the other side is no host of our authority.
pub fn connect(address: &str, security: &Security) -> anyhow::Result<Box<dyn Stream>> {
    let targets = address.to_socket_addrs().with_context(|| format!("{address} is no address:port"))?;
    let mut last = None;
    let socket = targets.into_iter().find_map(|target| {
        TcpStream::connect_timeout(&target, Duration::from_secs(5)).map_err(|e| last = Some(e)).ok()
    });
    let Some(socket) = socket else {
        let why = last.map_or_else(|| "it has no address".to_owned(), |e| e.to_string());
        bail!("no connection to {address}: {why}; does `quasar host --listen` run there?");
    };
    match security {
        Security::Insecure => {
            if !socket.peer_addr()?.ip().is_loopback() {
                bail!(
                    "{address} is not on this machine: without TLS a VM travels over loopback alone; see `quasar pki`"
                );
            }
            prepare(&socket)?;
            Ok(Box::new(socket))
        }
        Security::MutualTls { authority, certificate, key } => {
            let Identity { roots, chain, key } = identity(authority, certificate, key)?;
            let config = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)
                .context("our certificate and key do not belong together")?;
            let name = ServerName::try_from(HOST_NAME)?;
            let mut tls = ClientConnection::new(Arc::new(config), name)?;
            let mut socket = socket;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            while tls.is_handshaking() {
                tls.complete_io(&mut socket).with_context(|| format!("{address} is not a host we trust"))?;
            }
            prepare(&socket)?;
            Ok(Box::new(StreamOwned::new(tls, socket)))
        }
    }
}

/// Accepts a migrator over a connected socket.
///
/// # Errors
/// When the other side is no host of our authority.
pub fn accept(socket: TcpStream, security: &Security) -> anyhow::Result<Box<dyn Stream>> {
    let peer = socket.peer_addr()?;
    match security {
        Security::Insecure => {
            if !peer.ip().is_loopback() {
                bail!(
                    "{peer} is not on this machine, and this host takes insecure migrations over loopback alone"
                );
            }
            prepare(&socket)?;
            Ok(Box::new(socket))
        }
        Security::MutualTls { authority, certificate, key } => {
            let Identity { roots, chain, key } = identity(authority, certificate, key)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
            let config = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key)
                .context("our certificate and key do not belong together")?;
            let mut tls = ServerConnection::new(Arc::new(config))?;
            let mut socket = socket;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            while tls.is_handshaking() {
                tls.complete_io(&mut socket).with_context(|| format!("{peer} is not a host we trust"))?;
            }
            prepare(&socket)?;
            Ok(Box::new(StreamOwned::new(tls, socket)))
        }
    }
}
