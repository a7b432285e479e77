//! Standard outputs that take nothing: a full device, a pipe without a reader, none at all; and terminals.

use anyhow::Context;
use nix::pty::{OpenptyResult, openpty};
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// Where a program writes to that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// `/dev/full`.
    Full,
    /// A pipe whose reader has left.
    Left,
}

impl Sink {
    /// It, as a program's output.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(self) -> anyhow::Result<Stdio> {
        match self {
            Self::Full => {
                let full = OpenOptions::new().write(true).open("/dev/full");
                Ok(full.context("/dev/full")?.into())
            }
            Self::Left => {
                let (_, writer) = std::io::pipe()?;
                Ok(writer.into())
            }
        }
    }
}

/// How a program ended whose output goes there: its exit status (a signal counts as 128 and its number), and what it
/// said.
///
/// # Errors
/// When it cannot be started.
pub fn status(command: &mut Command, sink: Sink) -> anyhow::Result<(i32, String)> {
    use std::os::unix::process::ExitStatusExt;
    command.stdin(Stdio::null()).stdout(sink.open()?).stderr(Stdio::piped());
    let out = command.spawn().with_context(|| format!("{command:?}"))?.wait_with_output()?;
    let code = out.status.code().or_else(|| out.status.signal().map(|signal| 128 + signal));
    Ok((code.unwrap_or(-1), String::from_utf8_lossy(&out.stderr).into_owned()))
}

/// A program at a terminal of its own.
pub struct AtTerminal {
    /// The program.
    pub child: std::process::Child,
    /// The terminal's other side; it hangs up when this is dropped.
    pub terminal: OwnedFd,
}

impl AtTerminal {
    /// Starts a program in a session of its own whose terminal is the program's input and outputs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &Command) -> anyhow::Result<Self> {
        let OpenptyResult { master, slave } = openpty(None, None).context("a terminal")?;
        // Other programs that this one starts must not keep the terminal's other side open.
        nix::fcntl::fcntl(&master, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        let mut setsid = Command::new("setsid");
        // It becomes the program; whoever started us may have told us to ignore the signal.
        setsid.args(["--ctty", "env", "--default-signal=HUP,INT,QUIT"]);
        setsid.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => setsid.env(name, value),
                None => setsid.env_remove(name),
            };
        }
        setsid.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        let child = setsid.spawn().context("cannot start setsid")?;
        Ok(Self { child, terminal: master })
    }
}
