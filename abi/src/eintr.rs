//! System calls that a signal interrupts are made again.
//!
//! No process of ours has a handler that is meant to end a wait, and still calls come back with EINTR: a debugger
//! attaches or lets go, a library or an emulator of programs has handlers of its own, and a socket with a time-out is
//! interrupted by a mere stop and continue (signal(7)). The standard library makes some calls again, nix none.
//! So every call that can wait goes through here, and `clippy.toml` refuses the bare ones.

#![expect(clippy::disallowed_methods, reason = "this is where they are made")]

use nix::errno::Errno;
use nix::fcntl::FallocateFlags;
use nix::libc::off_t;
use nix::poll::{PollFd, PollTimeout};
use nix::sys::socket::MsgFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Most descriptors that [`recv_with`] takes beside one message's bytes.
pub const MOST_DESCRIPTORS: usize = 32;

/// An error that may say that a signal interrupted the call.
pub trait Interruptible {
    /// Whether it says so: nothing was done, and the call can be made again.
    fn is_interrupted(&self) -> bool;
}

impl Interruptible for Errno {
    fn is_interrupted(&self) -> bool {
        *self == Self::EINTR
    }
}

impl Interruptible for rustix::io::Errno {
    fn is_interrupted(&self) -> bool {
        *self == Self::INTR
    }
}

impl Interruptible for std::io::Error {
    fn is_interrupted(&self) -> bool {
        self.kind() == std::io::ErrorKind::Interrupted
    }
}

/// Makes a call until no signal interrupts it.
///
/// # Errors
/// Any other error of the call.
pub fn retry<T, E: Interruptible>(mut call: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    loop {
        match call() {
            Err(error) if error.is_interrupted() => {}
            done => return done,
        }
    }
}

/// What is left of a time-out that began at `start`, for a call that counts milliseconds and drops what is below: rounded
/// up, so that nobody is told too early that the time has passed.
#[must_use]
pub fn left_of(timeout: Duration, start: Instant) -> Duration {
    timeout.saturating_sub(start.elapsed()).saturating_add(Duration::from_micros(999))
}

/// poll(2) for the whole of `timeout` (for ever without one), however often it is interrupted. Returns how many
/// descriptors have something to say: zero when the time has passed.
///
/// # Errors
/// What the system says, EINTR never.
pub fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> nix::Result<usize> {
    let start = Instant::now();
    retry(|| {
        let left = timeout.map_or(PollTimeout::NONE, |timeout| {
            PollTimeout::try_from(left_of(timeout, start)).unwrap_or(PollTimeout::MAX)
        });
        nix::poll::poll(fds, left)
    })
    .map(|ready| usize::try_from(ready).unwrap_or(0))
}

/// send(2).
///
/// # Errors
/// What the system says, EINTR never.
pub fn send(socket: &impl AsRawFd, bytes: &[u8], flags: MsgFlags) -> nix::Result<usize> {
    retry(|| nix::sys::socket::send(socket.as_raw_fd(), bytes, flags))
}

/// sendmsg(2) with descriptors beside the bytes.
///
/// # Errors
/// What the system says, EINTR never.
pub fn send_with(
    socket: &impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> nix::Result<usize> {
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(descriptors).size()];
    retry(|| {
        let mut beside = SendAncillaryBuffer::new(&mut space);
        beside.push(SendAncillaryMessage::ScmRights(descriptors));
        sendmsg(socket, &[IoSlice::new(bytes)], &mut beside, flags)
    })
    .map_err(|error| Errno::from_raw(error.raw_os_error()))
}

/// recvmsg(2) with at most [`MOST_DESCRIPTORS`] beside the bytes, closed on exec. Those of a message with more are lost, and it is an
/// error (EMSGSIZE), as they are when this process has no room for them.
///
/// # Errors
/// What the system says, EINTR never.
pub fn recv_with(
    socket: &impl AsFd,
    space: &mut [u8],
    flags: RecvFlags,
) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut beside = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let (got, descriptors) = retry(|| {
        let mut beside = RecvAncillaryBuffer::new(&mut beside);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(socket, &mut [IoSliceMut::new(space)], &mut beside, flags)?;
        let descriptors: Vec<OwnedFd> = beside
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        Ok((got, descriptors))
    })
    .map_err(|error: rustix::io::Errno| Errno::from_raw(error.raw_os_error()))?;
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((got.bytes, descriptors))
}

/// recv(2).
///
/// # Errors
/// What the system says, EINTR never.
pub fn recv(socket: &impl AsRawFd, space: &mut [u8], flags: MsgFlags) -> nix::Result<usize> {
    retry(|| nix::sys::socket::recv(socket.as_raw_fd(), space, flags))
}

/// read(2).
///
/// # Errors
/// What the system says, EINTR never.
pub fn read(fd: &impl AsFd, space: &mut [u8]) -> nix::Result<usize> {
    retry(|| nix::unistd::read(fd, space))
}

/// write(2).
///
/// # Errors
/// What the system says, EINTR never.
pub fn write(fd: &impl AsFd, bytes: &[u8]) -> nix::Result<usize> {
    retry(|| nix::unistd::write(fd, bytes))
}

/// fallocate(2).
///
/// # Errors
/// What the system says, EINTR never.
pub fn fallocate(fd: &impl AsFd, flags: FallocateFlags, offset: off_t, len: off_t) -> nix::Result<()> {
    retry(|| nix::fcntl::fallocate(fd, flags, offset, len))
}

/// posix_fallocate(3): takes room for a range of a file.
///
/// # Errors
/// What the system says, EINTR never.
pub fn posix_fallocate(fd: &impl AsFd, offset: off_t, len: off_t) -> nix::Result<()> {
    retry(|| nix::fcntl::posix_fallocate(fd, offset, len))
}
