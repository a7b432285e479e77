//! A TAP interface of the host (Linux, `Documentation/networking/tuntap.rst`).

use super::{Ingress, Port, PortError};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags};
use quasar_abi::eintr;
use quasar_abi::frames::MAX_FRAME_BYTES;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a silent interface's thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);

nix::ioctl_write_ptr_bad!(
    /// Names an open tun descriptor (TUNSETIFF).
    tun_set_iff,
    libc::TUNSETIFF,
    libc::ifreq
);

/// An open TAP interface.
pub struct TapPort {
    file: File,
    interface: String,
    ingress: Ingress,
    stopped: AtomicBool,
}

impl TapPort {
    /// Opens the interface, making it when it is not there. Bringing it up and joining it to a bridge is
    /// the administrator's.
    ///
    /// # Errors
    /// Without the right to do so, or when the name is too long or taken by another kind of interface.
    pub fn open(interface: &str, ingress: Ingress) -> Result<Arc<Self>, PortError> {
        if interface.is_empty() || interface.len() >= libc::IFNAMSIZ || !interface.is_ascii() {
            return Err(PortError::InterfaceName(interface.to_owned()));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(PortError::Driver)?;
        // SAFETY: ifreq is plain data; all zeroes is valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (cell, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *cell = libc::c_char::from_ne_bytes([byte]);
        }
        request.ifr_ifru.ifru_flags =
            libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI).expect("flags of 16 bits");
        // SAFETY: the descriptor is open and the request is an initialised ifreq that outlives the call.
        unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }
            .map_err(|source| PortError::Interface { interface: interface.to_owned(), source })?;
        Ok(Arc::new(Self { file, interface: interface.to_owned(), ingress, stopped: AtomicBool::new(false) }))
    }

    fn serve(&self) {
        let mut frame = vec![0; MAX_FRAME_BYTES];
        while !self.stopped.load(Ordering::Acquire) {
            match eintr::read(&self.file, &mut frame) {
                Ok(len) => self.ingress.frame(&frame[..len]),
                Err(Errno::EAGAIN) => {
                    let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
                    // An error shows again at the read.
                    let _ = eintr::poll(&mut fds, Some(LOOK));
                }
                Err(error) => {
                    log::error!("TAP interface {}: {error}; its port is down", self.interface);
                    return;
                }
            }
        }
    }
}

impl Port for TapPort {
    fn start(self: Arc<Self>) {
        let name = self.interface.clone();
        if let Err(error) =
            std::thread::Builder::new().name(format!("tap {name}")).spawn(move || self.serve())
        {
            log::error!("TAP interface {name}: no thread: {error}");
        }
    }

    fn send(&self, frame: &[u8], _patience: Duration) -> bool {
        eintr::write(&self.file, frame).is_ok()
    }

    /// Nobody moves an uplink.
    fn settle(&self) {}

    /// What went into the host's network stays there.
    fn take_back(&self) -> Vec<Vec<u8>> {
        vec![]
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }
}
