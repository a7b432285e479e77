//! The bytes between two switches: mutual TLS 1.3, or nothing over loopback.

use super::GreetError;
use nix::poll::{PollFd, PollFlags};
use parking_lot::Mutex;
use quasar_abi::eintr::poll;
use quasar_peer::Protection;
use rustls::Connection;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub use quasar_peer::HOST_NAME;

/// Makes a channel of a connected socket; `dialled` when we connected.
///
/// # Errors
/// When the other side is no host that we trust, or has not proved it by then.
pub fn secure(
    protection: &Protection,
    socket: TcpStream,
    dialled: bool,
    by: Instant,
) -> Result<Channel, GreetError> {
    let tls = protection.secure(&socket, dialled, by)?.map(|mut tls| {
        tls.set_buffer_limit(None);
        Mutex::new(tls)
    });
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(Channel { socket, tls })
}

/// A connection: one thread reads, another writes.
pub struct Channel {
    socket: TcpStream,
    tls: Option<Mutex<Connection>>,
}

fn would_block(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Channel {
    fn ready(&self, flags: PollFlags, timeout: Duration) -> bool {
        poll(&mut [PollFd::new(self.socket.as_fd(), flags)], Some(timeout)).is_ok_and(|n| n > 0)
    }

    /// Reads what there is; `None` when nothing came within `timeout`. Zero bytes are the end.
    ///
    /// # Errors
    /// When the connection is broken or what came is not TLS of our peer.
    pub fn read(&self, space: &mut [u8], timeout: Duration) -> std::io::Result<Option<usize>> {
        let Some(tls) = &self.tls else {
            return self.raw_read(space, timeout);
        };
        match tls.lock().reader().read(space) {
            Err(error) if would_block(&error) => {}
            other => return other.map(Some),
        }
        if !self.ready(PollFlags::POLLIN, timeout) {
            return Ok(None);
        }
        let mut tls = tls.lock();
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
            tls.lock().writer().write_all(bytes)?;
        }
        loop {
            let step = match &self.tls {
                Some(tls) => {
                    let mut tls = tls.lock();
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
