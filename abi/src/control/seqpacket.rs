//! Records over a SEQPACKET socket: u32 LE length, u32 LE kind, payload; one record per packet. What a message gives
//! ([`crate::grants`]) goes beside its record, as descriptors.

use super::codec::{self, CodecError, MAX_MESSAGE_BYTES};
use crate::eintr::{MOST_DESCRIPTORS, poll, recv, recv_with, send, send_with};
use crate::grants::{self, Grant};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair};
use rustix::net::{RecvFlags, SendFlags};
use serde::{Serialize, de::DeserializeOwned};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

const HEADER: usize = 8;

/// Why a record could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The peer is gone.
    #[error("the peer has closed its end")]
    Closed,
    /// The peer does not read; nothing was sent.
    #[error("the peer does not read its messages")]
    Busy,
    /// The record breaks the framing.
    #[error("malformed record: {0}")]
    Malformed(String),
    /// The payload is no such message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The system refused.
    #[error("socket: {0}")]
    System(#[from] Errno),
}

/// One end.
#[derive(Debug)]
pub struct SeqPacket {
    fd: OwnedFd,
}

impl SeqPacket {
    /// A connected pair; both ends are closed on exec.
    ///
    /// # Errors
    /// [`SocketError::System`].
    pub fn pair() -> Result<(Self, Self), SocketError> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// Takes a descriptor that is such a socket.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// A second handle on the same end.
    ///
    /// # Errors
    /// [`SocketError::System`].
    pub fn try_clone(&self) -> Result<Self, SocketError> {
        let fd = self.fd.try_clone().map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
        Ok(Self { fd })
    }

    /// The descriptor, for polling or handing over.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Sends one message without ever waiting.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn send<T: Serialize>(&self, kind: u32, value: &T) -> Result<(), SocketError> {
        let (payload, given) = grants::beside(|| codec::encode(value));
        self.send_encoded(kind, &payload?, &given)
    }

    /// Sends one message that was encoded, with what it gives.
    ///
    /// # Errors
    /// [`SocketError`].
    pub(super) fn send_encoded(&self, kind: u32, payload: &[u8], given: &[Grant]) -> Result<(), SocketError> {
        let len = u32::try_from(payload.len()).map_err(|_| CodecError::TooLong(payload.len()))?;
        let mut record = Vec::with_capacity(HEADER + payload.len());
        record.extend_from_slice(&len.to_le_bytes());
        record.extend_from_slice(&kind.to_le_bytes());
        record.extend_from_slice(payload);
        let sent = if given.is_empty() {
            send(&self.fd, &record, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
        } else if given.len() > MOST_DESCRIPTORS {
            return Err(SocketError::Malformed(format!("{} segments in one message", given.len())));
        } else {
            let given: Vec<BorrowedFd<'_>> = given.iter().map(AsFd::as_fd).collect();
            send_with(&self.fd, &record, &given, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        };
        match sent {
            Ok(_) => Ok(()),
            Err(Errno::EAGAIN) => Err(SocketError::Busy),
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => Err(SocketError::Closed),
            Err(e) => Err(e.into()),
        }
    }

    /// Receives one message of the kind; `None` when `timeout` passed (forever without one). It can give nothing: what
    /// comes beside it is dropped by the system.
    ///
    /// # Errors
    /// [`SocketError`]. After `Malformed` or `Codec` the socket goes on with the next record.
    pub fn recv<T: DeserializeOwned>(
        &self,
        kind: u32,
        timeout: Option<Duration>,
    ) -> Result<Option<T>, SocketError> {
        let take = |space: &mut [u8]| Ok((recv(&self.fd, space, MsgFlags::MSG_DONTWAIT)?, vec![]));
        self.recv_by(take, kind, timeout)
    }

    /// [`SeqPacket::recv`] from a peer that is trusted with this process's descriptors: with what the message gives.
    ///
    /// # Errors
    /// As there; also when something was given of which the message says nothing.
    pub fn recv_given<T: DeserializeOwned>(
        &self,
        kind: u32,
        timeout: Option<Duration>,
    ) -> Result<Option<T>, SocketError> {
        self.recv_by(|space| recv_with(&self.fd, space, RecvFlags::DONTWAIT), kind, timeout)
    }

    fn recv_by<T: DeserializeOwned>(
        &self,
        take: impl FnOnce(&mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)>,
        kind: u32,
        timeout: Option<Duration>,
    ) -> Result<Option<T>, SocketError> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, timeout)? == 0 {
            return Ok(None);
        }
        // One byte more than allowed, so that a longer record shows.
        let mut record = vec![0; HEADER + MAX_MESSAGE_BYTES + 1];
        let (got, given) = match take(&mut record) {
            Ok((0, _)) | Err(Errno::ECONNRESET) => return Err(SocketError::Closed),
            Ok(taken) => taken,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let malformed = |what: String| Err(SocketError::Malformed(what));
        let Some((header, payload)) = record[..got].split_first_chunk::<HEADER>() else {
            return malformed(format!("{got} bytes are less than a header"));
        };
        let [l0, l1, l2, l3, k0, k1, k2, k3] = *header;
        let (len, found) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([k0, k1, k2, k3]));
        if u32::try_from(payload.len()) != Ok(len) {
            return malformed(format!("header says {len} bytes, {} came", payload.len()));
        }
        if found != kind {
            return malformed(format!("kind {found}, expected {kind}"));
        }
        let (value, left) = grants::among(given, || codec::decode(payload));
        if left > 0 {
            return malformed(format!("{left} descriptors came of which it says nothing"));
        }
        Ok(Some(value?))
    }
}

impl AsFd for SeqPacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
