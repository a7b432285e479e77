//! The door for VMs from other hosts.
//!
//! Whoever connects is a stranger to a thread with a deadline ([`quasar_peer`]) until it has knocked: a migrator process
//! is started for hosts of our authority alone, or without TLS for a whole first message.

use super::host::Host;
use super::journey::incoming::Origin;
use super::serving::{ServeError, io};
use anyhow::bail;
use quasar_abi::control::migrator::Security;
use quasar_abi::words::whole;
use quasar_peer::knock::hear_stranger;
use quasar_peer::{Neighbours, Protection, TrustError};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// VMs that may be on their way here at one time.
const MOST: usize = 16;

struct Door {
    listener: TcpListener,
    protection: Protection,
    security: Security,
}

/// Connections of other hosts' migrators.
pub(super) struct Arrivals<'h> {
    door: Option<Door>,
    host: &'h Arc<Host>,
}

impl<'h> Arrivals<'h> {
    pub(super) async fn open(host: &'h Arc<Host>) -> Result<Self, ServeError> {
        let Neighbours { listen, security, .. } = &host.neighbours;
        let mut arrivals = Self { door: None, host };
        let Some((address, security)) = listen.zip(security.clone()) else { return Ok(arrivals) };
        let at = address.to_string();
        let keys = |error: TrustError| std::io::Error::other(whole(&error));
        let protection = Protection::load(&security).map_err(keys);
        let protection = protection.map_err(io("cannot take VMs at", Path::new(&at)))?;
        let listener = TcpListener::bind(address).await.map_err(io("cannot listen on", Path::new(&at)))?;
        arrivals.door = Some(Door { listener, protection, security });
        Ok(arrivals)
    }

    /// Takes them until it is dropped.
    pub(super) async fn take(&self) {
        let Some(Door { listener, protection, security }) = &self.door else {
            return std::future::pending().await;
        };
        loop {
            let (socket, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    log::warn!("a connection was not accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (host, protection, security) = (Arc::clone(self.host), protection.clone(), security.clone());
            let meet = move || {
                let met = socket.into_std().map_err(Into::into);
                let met = met.and_then(|socket| meet(&host, socket, address, &protection, security));
                if let Err(error) = met {
                    log::warn!("{address} is turned away: {error:#}");
                }
            };
            if let Err(error) = std::thread::Builder::new().name("stranger".into()).spawn(meet) {
                log::warn!("{address} is turned away: no thread: {error}");
            }
        }
    }
}

/// Hears who it is, and begins to take its VM.
fn meet(
    host: &Arc<Host>,
    socket: TcpStream,
    address: SocketAddr,
    protection: &Protection,
    security: Security,
) -> anyhow::Result<()> {
    socket.set_nonblocking(false)?;
    hear_stranger(&host.strangers, protection, &socket)?;
    if host.arriving() >= MOST {
        bail!("{MOST} VMs are on their way here already");
    }
    host.receive(Origin::Peer { socket, address, security })?;
    Ok(())
}
