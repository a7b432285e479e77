//! A terminal attached to a guest's console.

use super::client::{Client, ClientError};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
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
    /// A signal came.
    Signal,
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
        if let Err(error) = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0) {
            eprintln!("quasar: the terminal's mode cannot be restored ({error}); type `reset`");
        }
    }
}

/// Reads the terminal in a thread that is left behind when the attachment ends.
fn read_input(terminal: bool) -> mpsc::Receiver<Option<Vec<u8>>> {
    let (send, receive) = mpsc::channel(16);
    let read = move || {
        let mut buffer = [0; 1024];
        while let Ok(count) = std::io::stdin().read(&mut buffer) {
            if count == 0 {
                return;
            }
            let bytes = &buffer[..count];
            let detach = terminal.then(|| bytes.iter().position(|b| *b == DETACH)).flatten();
            let sent = send.blocking_send(Some(bytes[..detach.unwrap_or(count)].to_vec()));
            if sent.is_err() || (detach.is_some() && send.blocking_send(None).is_ok()) {
                return;
            }
        }
    };
    std::thread::spawn(read);
    receive
}

/// Attaches to a VM's console until it ends, the user detaches, or a signal comes.
///
/// # Errors
/// [`ClientError`], and when the terminal cannot be written.
pub async fn attach(client: &Client, name: &str, options: Options) -> anyhow::Result<End> {
    let port = if options.virtio { "virtio" } else { "uart" };
    let path = format!(
        "/v1/vms/{name}/console?port={port}&read_only={}&history={}",
        options.no_input, !options.no_history
    );
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
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
                Ok(count) => {
                    let mut out = std::io::stdout();
                    out.write_all(&buffer[..count])?;
                    out.flush()?;
                }
            },
            typed = typed => match typed {
                Some(Some(bytes)) => {
                    if to_guest.write_all(&bytes).await.is_err() || to_guest.flush().await.is_err() {
                        input = None;
                    }
                }
                Some(None) => return Ok(End::Detached),
                // The end of a file: the guest is still to be heard.
                None => input = None,
            },
            _ = interrupt.recv() => return Ok(End::Signal),
            _ = terminate.recv() => return Ok(End::Signal),
            _ = hang_up.recv() => return Ok(End::Signal),
        }
    }
}

/// Whether an error says that the VM is not there.
#[must_use]
pub fn is_unknown(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { status, .. } if *status == hyper::StatusCode::NOT_FOUND)
}
