//! A terminal attached to a guest's console.

use super::client::{Client, ClientError};
use super::interrupts::{Interrupt, Interrupts};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use quasar_abi::output::OutputError;
use quasar_abi::{eintr, note, output};
use std::io::IsTerminal;
use std::os::fd::AsFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Ctrl-].
const DETACH: u8 = 0x1d;

/// How an attachment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The user typed Ctrl-].
    Detached,
    /// The VM has ended, or the daemon.
    Closed,
    /// The user wants it to end.
    Interrupted,
    /// The user, the terminal or whoever read the output has left. The exit status says how.
    Left(u8),
}

/// What to attach to.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The virtio console rather than the UART.
    pub virtio: bool,
    /// Take no input.
    pub no_input: bool,
    /// Show nothing of what was shown before.
    pub no_history: bool,
}

/// The terminal in raw mode; dropping it brings the old mode back.
struct Raw(Termios);

impl Raw {
    fn enter() -> std::io::Result<Self> {
        let stdin = std::io::stdin();
        let old = tcgetattr(&stdin)?;
        let mut raw = old.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
        Ok(Self(old))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        match tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0) {
            // A terminal that has hung up has no mode any more.
            Ok(()) | Err(Errno::EIO) => {}
            Err(error) => note!("quasar: the terminal's mode cannot be restored ({error}); type `reset`"),
        }
    }
}

/// What comes from the input.
enum Typed {
    Bytes(Vec<u8>),
    /// Ctrl-].
    Detach,
    /// The end of a terminal: it has hung up. (In raw mode Ctrl-D is a byte like any other.)
    HungUp,
}

/// Reads the input, also where somebody has made it non-blocking.
fn read(buffer: &mut [u8]) -> nix::Result<usize> {
    let stdin = std::io::stdin();
    loop {
        match eintr::read(&stdin, buffer) {
            Err(Errno::EAGAIN) => {
                eintr::poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], None)?;
            }
            other => return other,
        }
    }
}

/// Reads the input in a thread that is left behind when the attachment ends.
fn read_input(terminal: bool) -> mpsc::Receiver<Typed> {
    let (send, receive) = mpsc::channel(16);
    let forward = move || {
        let mut buffer = [0; 1024];
        loop {
            let count = read(&mut buffer).unwrap_or(0);
            if count == 0 {
                if terminal {
                    drop(send.blocking_send(Typed::HungUp));
                }
                return;
            }
            let bytes = &buffer[..count];
            let detach = terminal.then(|| bytes.iter().position(|b| *b == DETACH)).flatten();
            let sent = send.blocking_send(Typed::Bytes(bytes[..detach.unwrap_or(count)].to_vec()));
            if sent.is_err() || (detach.is_some() && send.blocking_send(Typed::Detach).is_ok()) {
                return;
            }
        }
    };
    std::thread::spawn(forward);
    receive
}

/// Attaches to a VM's console until it ends, the user detaches, or a signal comes.
///
/// # Errors
/// [`ClientError`], and [`OutputError`] when the output cannot be written though somebody is there to read it.
pub async fn attach(
    client: &Client,
    name: &str,
    options: Options,
    interrupts: &mut Interrupts,
) -> anyhow::Result<End> {
    let port = if options.virtio { "virtio" } else { "uart" };
    let path = format!(
        "/v1/vms/{name}/console?port={port}&read_only={}&history={}",
        options.no_input, !options.no_history
    );
    let stream = client.console(&path).await?;
    let terminal = std::io::stdin().is_terminal() && !options.no_input;
    let _raw = if terminal { Some(Raw::enter()?) } else { None };
    let (mut from_guest, mut to_guest) = tokio::io::split(stream);
    let mut input = if options.no_input { None } else { Some(read_input(terminal)) };
    let mut buffer = vec![0; 16 << 10];
    loop {
        let typed = async {
            match &mut input {
                Some(input) => input.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            read = from_guest.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return Ok(End::Closed),
                Ok(count) => match output::write(&buffer[..count]) {
                    Ok(()) => {}
                    Err(gone) if gone.is_quiet() => return Ok(End::Left(gone.status())),
                    Err(error) => return Err(error.into()),
                },
            },
            typed = typed => match typed {
                Some(Typed::Bytes(bytes)) => {
                    if to_guest.write_all(&bytes).await.is_err() || to_guest.flush().await.is_err() {
                        input = None;
                    }
                }
                Some(Typed::Detach) => return Ok(End::Detached),
                Some(Typed::HungUp) => return Ok(End::Left(OutputError::HungUp.status())),
                // The end of a file: the guest is still to be heard.
                None => input = None,
            },
            signal = interrupts.next() => return Ok(match signal {
                Interrupt::End => End::Interrupted,
                Interrupt::Leave(status) => End::Left(status),
            }),
        }
    }
}

/// Whether an error says that the VM is not there.
#[must_use]
pub fn is_unknown(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { status, .. } if *status == hyper::StatusCode::NOT_FOUND)
}
