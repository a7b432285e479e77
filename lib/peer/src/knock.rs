//! What a caller shows to the daemon before a process is started for it.
//!
//! A migrator keeps its connection's keys to itself and its TLS in its own process, which cannot be handed to it by one
//! that has shaken hands already. So a caller shakes hands twice over one connection. First with the daemon, a *knock*
//! that carries nothing: both sides prove who they are, and the daemon ends that talk. Then with the migrator that the
//! daemon has started, by the keys of that second handshake. A caller says that it will do so by the protocol that it
//! names in its first words (ALPN); a host that is older chooses none, and its first answer is the migrator's.
//!
//! Without TLS, over loopback, the first message must have arrived whole; it is left there for the migrator.

use crate::protection::{HOST_NAME, Protection, shaken};
use crate::{Bounded, Strangers};
use anyhow::{Context, bail};
use quasar_abi::control::migrator::{FIRST_MESSAGE, first_message};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};
use std::io::{Error, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

/// The protocol's name.
const KNOCK: &[u8] = b"quasar-knock/1";

/// Shakes hands with the migrator behind a daemon's door, knocking before; nothing without TLS.
///
/// # Errors
/// When the other side is no host that we trust, does not trust us, or is too slow.
pub fn knock(protection: &Protection, socket: &TcpStream, by: Instant) -> anyhow::Result<Option<Connection>> {
    let Protection::Tls { client, .. } = protection else { return protection.secure(socket, true, by) };
    let mut config = client.as_ref().clone();
    config.alpn_protocols = vec![KNOCK.to_vec()];
    let name = ServerName::try_from(HOST_NAME)?;
    let mut tls = shaken(ClientConnection::new(Arc::new(config), name)?.into(), socket, by)?;
    if tls.alpn_protocol() != Some(KNOCK) {
        return Ok(Some(tls));
    }
    // It ends that talk when it has seen our certificate, and says nothing more on its own: no byte that follows is lost.
    let mut bounded = Bounded::new(socket, by);
    let mut nothing = [0];
    let refused = "it does not take us for a host of its authority, or takes nobody at present";
    loop {
        match tls.reader().read(&mut nothing) {
            Ok(0) => break,
            Ok(_) => bail!("it says something where a knock is answered"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context(refused),
        }
        tls.read_tls(&mut bounded).context(refused)?;
        tls.process_new_packets().context(refused)?;
    }
    protection.secure(socket, true, by).context("it heard us knock, and did not let us in; try again")
}

/// Hears a knock: whether a migrator may be started for this connection, over which it goes on.
///
/// # Errors
/// When the other side is no host that we trust, or has not proved it by then.
pub fn hear(protection: &Protection, socket: &TcpStream, by: Instant) -> anyhow::Result<()> {
    let Protection::Tls { server, .. } = protection else {
        protection.secure(socket, false, by)?;
        let mut space = [0; FIRST_MESSAGE];
        let whole = |bytes: &[u8]| match first_message(bytes) {
            Ok(length) => Ok(length.is_some_and(|length| bytes.len() >= length)),
            Err(what) => Err(Error::new(ErrorKind::InvalidData, what)),
        };
        return Bounded::new(socket, by).peek(&mut space, whole).context("it is no migrator");
    };
    let mut config = server.as_ref().clone();
    config.alpn_protocols = vec![KNOCK.to_vec()];
    config.send_tls13_tickets = 0;
    let mut tls = shaken(ServerConnection::new(Arc::new(config))?.into(), socket, by)?;
    if tls.alpn_protocol() != Some(KNOCK) {
        bail!("it does not knock: its Quasar is older than this host's; upgrade it");
    }
    tls.send_close_notify();
    let mut bounded = Bounded::new(socket, by);
    while tls.wants_write() {
        tls.write_tls(&mut bounded)?;
    }
    Ok(())
}

/// [`hear`] for a connection in front of a door.
///
/// # Errors
/// As [`hear`]; also when it has lost its place.
pub fn hear_stranger(
    strangers: &Arc<Strangers>,
    protection: &Protection,
    socket: &TcpStream,
) -> anyhow::Result<()> {
    let visit = strangers.admit(socket)?;
    hear(protection, socket, Instant::now() + crate::HANDSHAKE)?;
    if !visit.proved() {
        bail!("others took its place before it had proved who it is");
    }
    Ok(())
}
