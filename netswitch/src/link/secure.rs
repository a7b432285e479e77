//! The bytes between two switches: mutual TLS 1.3, or nothing over loopback.

use anyhow::{Context, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use quasar_abi::control::migrator::Security;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The name that every host's certificate carries beside its own, as migrations expect it too.
pub const HOST_NAME: &str = "quasar-host";
/// Time for both sides to prove who they are.
const HANDSHAKE: Duration = Duration::from_secs(10);

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
        let provider = Arc::new(rustls::crypto::ring::default_provider());
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

    /// Makes a channel of a connected socket; `dialled` when we connected.
    ///
    /// # Errors
    /// When the other side is no host that we trust.
    pub fn secure(&self, socket: TcpStream, dialled: bool) -> anyhow::Result<Channel> {
        let peer = socket.peer_addr()?;
        let tls = match self {
            Self::Insecure if peer.ip().is_loopback() => None,
            Self::Insecure => bail!(
                "{peer} is not on this machine, and links without TLS are made over loopback alone; see `quasar pki`"
            ),
            Self::Tls { client, server } => {
                let mut tls: Connection = if dialled {
                    ClientConnection::new(Arc::clone(client), ServerName::try_from(HOST_NAME)?)?.into()
                } else {
                    ServerConnection::new(Arc::clone(server))?.into()
                };
                shake_hands(&mut tls, &socket).with_context(|| {
                    format!("{peer} is refused: it did not prove to be a host of our authority")
                })?;
                tls.set_buffer_limit(None);
                Some(Mutex::new(tls))
            }
        };
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Channel { socket, tls })
    }
}

fn shake_hands(tls: &mut Connection, socket: &TcpStream) -> anyhow::Result<()> {
    let by = Instant::now() + HANDSHAKE;
    let mut socket = socket;
    while tls.is_handshaking() {
        let left = by.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("the handshake took longer than {} s", HANDSHAKE.as_secs());
        }
        socket.set_read_timeout(Some(left))?;
        socket.set_write_timeout(Some(left))?;
        tls.complete_io(&mut socket)?;
    }
    while tls.wants_write() {
        tls.write_tls(&mut socket)?;
    }
    Ok(())
}

/// A connection: one thread reads, another writes.
pub struct Channel {
    socket: TcpStream,
    tls: Option<Mutex<Connection>>,
}

fn would_block(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn lock(tls: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    tls.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    fn ready(&self, flags: PollFlags, timeout: Duration) -> bool {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(self.socket.as_fd(), flags)], timeout).is_ok_and(|n| n > 0)
    }

    /// Reads what there is; `None` when nothing came within `timeout`. Zero bytes are the end.
    ///
    /// # Errors
    /// When the connection is broken or what came is not TLS of our peer.
    pub fn read(&self, space: &mut [u8], timeout: Duration) -> std::io::Result<Option<usize>> {
        let Some(tls) = &self.tls else {
            return self.raw_read(space, timeout);
        };
        match lock(tls).reader().read(space) {
            Err(error) if would_block(&error) => {}
            other => return other.map(Some),
        }
        if !self.ready(PollFlags::POLLIN, timeout) {
            return Ok(None);
        }
        let mut tls = lock(tls);
        match tls.read_tls(&mut &self.socket) {
            Err(error) if would_block(&error) => return Ok(None),
            other => drop(other?),
        }
        tls.process_new_packets().map_err(|e| std::io::Error::new(ErrorKind::InvalidData, e))?;
        match tls.reader().read(space) {
            Err(error) if would_block(&error) => Ok(None),
            other => other.map(Some),
        }
    }

    fn raw_read(&self, space: &mut [u8], timeout: Duration) -> std::io::Result<Option<usize>> {
        if !self.ready(PollFlags::POLLIN, timeout) {
            return Ok(None);
        }
        match (&self.socket).read(space) {
            Err(error) if would_block(&error) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Writes all bytes.
    ///
    /// # Errors
    /// When the connection is broken, or the other side took nothing for `patience`.
    pub fn write_all(&self, bytes: &[u8], patience: Duration) -> std::io::Result<()> {
        let mut plain = bytes;
        if let Some(tls) = &self.tls {
            lock(tls).writer().write_all(bytes)?;
        }
        loop {
            let step = match &self.tls {
                Some(tls) => {
                    let mut tls = lock(tls);
                    if !tls.wants_write() {
                        return Ok(());
                    }
                    tls.write_tls(&mut &self.socket)
                }
                None if plain.is_empty() => return Ok(()),
                None => (&self.socket).write(plain).inspect(|n| plain = &plain[*n..]),
            };
            match step {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if would_block(&error) => {
                    if !self.ready(PollFlags::POLLOUT, patience) {
                        return Err(std::io::Error::new(ErrorKind::TimedOut, "it takes no more bytes"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends the connection; both threads see it.
    pub fn close(&self) {
        // It may be gone already.
        drop(self.socket.shutdown(Shutdown::Both));
    }
}
