//! Connections between migrators, protected and prepared for [`crate::connection::Peer`].

use crate::connection::{Stream, prepare};
use anyhow::{Context, bail};
use quasar_abi::control::migrator::Security;
use quasar_peer::{HANDSHAKE, Protection, knock};
use rustls::{Connection, StreamOwned};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Time for a TCP connection to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Who is at the other end of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// A daemon, which starts a migrator for those who knock.
    Daemon,
    /// A migrator on its journey.
    Migrator,
}

fn stream(socket: TcpStream, tls: Option<Connection>) -> anyhow::Result<Box<dyn Stream>> {
    prepare(&socket)?;
    Ok(match tls {
        Some(Connection::Client(tls)) => Box::new(StreamOwned::new(tls, socket)),
        Some(Connection::Server(tls)) => Box::new(StreamOwned::new(tls, socket)),
        None => Box::new(socket),
    })
}

/// Connects to a migrator.
///
/// # Errors
/// When nobody listens there, or the other side is no host of our authority.
pub fn connect(address: &str, security: &Security, callee: Callee) -> anyhow::Result<Box<dyn Stream>> {
    let targets = address.to_socket_addrs().with_context(|| format!("{address} is no address:port"))?;
    let mut last = None;
    let socket = targets.into_iter().find_map(|target| {
        TcpStream::connect_timeout(&target, CONNECT).map_err(|error| last = Some(error)).ok()
    });
    let Some(socket) = socket else {
        let why = last.map_or_else(|| "it has no address".to_owned(), |e| e.to_string());
        bail!("no connection to {address}: {why}; does `quasar host --listen` run there?");
    };
    let (protection, by) = (Protection::load(security)?, Instant::now() + HANDSHAKE);
    let tls = match callee {
        Callee::Daemon => knock::knock(&protection, &socket, by),
        Callee::Migrator => protection.secure(&socket, true, by),
    };
    stream(socket, tls.with_context(|| format!("{address} is not a host we trust"))?)
}

/// Accepts a migrator over a connected socket.
///
/// # Errors
/// When the other side is no host of our authority.
pub fn accept(socket: TcpStream, security: &Security) -> anyhow::Result<Box<dyn Stream>> {
    socket.set_nonblocking(false)?;
    let tls = Protection::load(security)?.secure(&socket, false, Instant::now() + HANDSHAKE)?;
    stream(socket, tls)
}
