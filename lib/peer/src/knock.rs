//! What a caller shows to the daemon before a process is started for it.
//!
//! A migrator keeps its connection's keys to itself and its TLS in its own process, which cannot be handed to it by one
//! that has shaken hands already. So a caller shakes hands twice over one connection. First with the daemon, a *knock*
//! that carries nothing: both sides prove who they are, and the daemon ends that talk. Then with the migrator that the
//! daemon has started, by the keys of that second handshake. A caller says that it will do so by the protocol that it
//! names in its first words (ALPN); a host that is older chooses none, and its first answer is the migrator's.
//!
//! Without TLS, over loopback, the first message must have arrived whole; it is left there for the migrator.

use crate::protection::{Protection, calls, shaken, takes};
use crate::{Bounded, Strangers, TrustError};
use quasar_abi::control::migrator::{FIRST_MESSAGE, first_message};
use rustls::Connection;
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
pub fn knock(
    protection: &Protection,
    socket: &TcpStream,
    by: Instant,
) -> Result<Option<Connection>, TrustError> {
    let Protection::Tls { client, .. } = protection else { return protection.secure(socket, true, by) };
    let mut config = client.as_ref().clone();
    config.alpn_protocols = vec![KNOCK.to_vec()];
    let mut tls = shaken(calls(Arc::new(config))?, socket, by)?;
    if tls.alpn_protocol() != Some(KNOCK) {
        return Ok(Some(tls));
    }
    // It ends that talk when it has seen our certificate, and says nothing more on its own: no byte that follows is lost.
    let mut bounded = Bounded::new(socket, by);
    let mut nothing = [0];
    loop {
        match tls.reader().read(&mut nothing) {
            Ok(0) => break,
            Ok(_) => return Err(TrustError::Talks),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(TrustError::NotTaken(error)),
        }
        tls.read_tls(&mut bounded).map_err(TrustError::NotTaken)?;
        tls.process_new_packets()
            .map_err(|error| TrustError::NotTaken(Error::new(ErrorKind::InvalidData, error)))?;
    }
    protection.secure(socket, true, by).map_err(|error| TrustError::NotLetIn(Box::new(error)))
}

/// Hears a knock: whether a migrator may be started for this connection, over which it goes on.
///
/// # Errors
/// When the other side is no host that we trust, or has not proved it by then.
pub fn hear(protection: &Protection, socket: &TcpStream, by: Instant) -> Result<(), TrustError> {
    let Protection::Tls { server, .. } = protection else {
        protection.secure(socket, false, by)?;
        let mut space = [0; FIRST_MESSAGE];
        let whole = |bytes: &[u8]| match first_message(bytes) {
            Ok(length) => Ok(length.is_some_and(|length| bytes.len() >= length)),
            Err(what) => Err(Error::new(ErrorKind::InvalidData, what)),
        };
        return Bounded::new(socket, by).peek(&mut space, whole).map_err(TrustError::NoMigrator);
    };
    let mut config = server.as_ref().clone();
    config.alpn_protocols = vec![KNOCK.to_vec()];
    config.send_tls13_tickets = 0;
    let mut tls = shaken(takes(Arc::new(config))?, socket, by)?;
    if tls.alpn_protocol() != Some(KNOCK) {
        return Err(TrustError::NoKnock);
    }
    tls.send_close_notify();
    let mut bounded = Bounded::new(socket, by);
    while tls.wants_write() {
        tls.write_tls(&mut bounded).map_err(TrustError::Gone)?;
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
) -> Result<(), TrustError> {
    let visit = strangers.admit(socket).map_err(TrustError::Gone)?;
    hear(protection, socket, Instant::now() + crate::HANDSHAKE)?;
    if !visit.proved() {
        return Err(TrustError::LostPlace);
    }
    Ok(())
}
