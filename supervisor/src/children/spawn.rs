//! Spawning bound to this process's life; the supervisor's only unsafe code.

#![allow(
    unsafe_code,
    reason = "what a child does between fork and exec must be async-signal-safe, and a signal is ignored by libc alone: \
              neither has a safe wrapper"
)]

use nix::libc;
use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A file that may not become longer is an error of the write from now on, and no reason to die.
pub fn survive_file_limits() {
    // SAFETY: to ignore a signal runs no code of ours.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if before == libc::SIG_ERR {
        log::debug!("SIGXFSZ is not ignored: {}", io::Error::last_os_error());
    }
}

/// A descriptor of a process: readable when it has ended, and a safe address for signals (a number could by
/// then belong to another process).
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    killed: AtomicBool,
}

impl PidFd {
    fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { fd: pidfd_open(pid, PidfdFlags::empty())?, killed: AtomicBool::new(false) })
    }

    /// Sends SIGKILL; a process that has ended is left alone.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        drop(self.send(libc::SIGKILL));
    }

    /// Whether we have killed it.
    #[must_use]
    pub fn killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        drop(self.send(libc::SIGTERM));
    }

    /// Sends a signal by its number on this machine.
    ///
    /// # Errors
    /// When the process has ended, or there is no such signal.
    pub fn send(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(pidfd_send_signal(&self.fd, signal)?)
    }

    /// Whether the process has ended, waiting for it at most `timeout`.
    #[must_use]
    pub fn ended(&self, timeout: Duration) -> bool {
        use nix::poll::{PollFd, PollFlags};
        use quasar_abi::eintr::poll;
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, Some(timeout)), Ok(n) if n > 0)
    }
}

/// Starts `command` in a process group of its own (a terminal's Ctrl-C is for the supervisor), with no
/// signals blocked, to be killed when the calling *thread* ends. `inherit` stay open in it under their numbers.
///
/// # Errors
/// What the system says; a program that cannot be executed is reported here too.
pub fn spawn_bound(command: &mut Command, inherit: &[BorrowedFd<'_>]) -> io::Result<(Child, PidFd)> {
    let parent = rustix::process::getpid();
    let inherit: Vec<_> = inherit.iter().map(AsRawFd::as_raw_fd).collect();
    command.process_group(0);
    // SAFETY: the closure makes only async-signal-safe system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            let check = |result: i32| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
            let mut none = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut none);
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))?;
            // A file that may not become longer is an error of the write, and no reason to die.
            if libc::signal(libc::SIGXFSZ, libc::SIG_IGN) == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if getppid() != Some(parent) {
                // The parent died before the line above: nobody will send the signal.
                libc::_exit(1);
            }
            for fd in &inherit {
                check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
            }
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    match PidFd::open(child.id()) {
        Ok(pidfd) => Ok((child, pidfd)),
        Err(error) => {
            // Not watched, so not wanted. Both can only fail when it has ended already.
            drop(child.kill());
            drop(child.wait());
            Err(error)
        }
    }
}
