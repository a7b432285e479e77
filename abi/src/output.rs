//! What programs print for people. Nobody may be there to read it: a pipe whose reader has left, a terminal that has
//! hung up, a device that is full. `println!` panics then, which in our builds is SIGABRT; so nothing prints but this
//! module (clippy's `print_stdout` and `print_stderr` hold that).
//!
//! [`say!`](crate::say) prints a line to the standard output and says when that failed; [`note!`](crate::note) prints
//! one to the standard error, where there is nobody left to tell.

use crate::eintr;
use crate::words::whole;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::stat::{SFlag, fstat};
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

/// Why the standard output took nothing more.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever read it has left, as `head` does: no fault.
    #[error("nobody reads the standard output any more")]
    Closed,
    /// The terminal has hung up.
    #[error("the terminal is gone")]
    HungUp,
    /// It cannot be written.
    #[error("the standard output cannot be written: {0}")]
    Failed(io::Error),
}

impl OutputError {
    /// The exit status of a program that ends for it: what a shell shows of one that SIGPIPE or SIGHUP has ended; 1
    /// for a failure.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Closed => 141,
            Self::HungUp => 129,
            Self::Failed(_) => 1,
        }
    }

    /// Whether there is nobody to tell.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }

    /// Ends a program for it, with a word where somebody may read it.
    #[must_use]
    pub fn conclude(&self) -> ExitCode {
        if !self.is_quiet() {
            note(format_args!("quasar: {self}"));
        }
        ExitCode::from(self.status())
    }
}

/// Ends a program that has a tool for its users: silently, or with the error as one line. `error` may be anyhow's.
#[must_use]
pub fn conclude<E: AsRef<dyn Error + Send + Sync>>(result: Result<(), E>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let error: &(dyn Error + Send + Sync + 'static) = error.as_ref();
    match error.downcast_ref::<OutputError>() {
        Some(output) => output.conclude(),
        None => {
            note(format_args!("quasar: {}", whole(error)));
            ExitCode::FAILURE
        }
    }
}

/// Of an error of writing to the standard output.
impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPIPE) => Self::Closed,
            // Of a file it would be a broken disk.
            Some(Errno::EIO) if is_terminal_like(io::stdout()) => Self::HungUp,
            _ => Self::Failed(error),
        }
    }
}

/// A terminal that has hung up answers no question about terminals, but is a character device still.
fn is_terminal_like(fd: impl AsFd) -> bool {
    fstat(fd).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR)
}

/// Writes all of it, also where somebody has made the file non-blocking (it is shared with whoever started us).
fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match eintr::write(&fd, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::EAGAIN) => {
                eintr::poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The standard output as a writer without a buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_all(io::stdout(), bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to the standard output.
///
/// # Errors
/// [`OutputError`]; part of it may have been written.
pub fn write(bytes: &[u8]) -> Result<(), OutputError> {
    Ok(write_all(io::stdout(), bytes)?)
}

/// Prints to the standard output; see [`say!`](crate::say).
///
/// # Errors
/// [`OutputError`].
pub fn print(text: fmt::Arguments<'_>) -> Result<(), OutputError> {
    write(text.to_string().as_bytes())
}

/// Writes text to the standard error, in one piece, so that lines of several processes do not mix. There is nowhere to say
/// that it failed.
pub fn warn(text: &str) {
    drop(write_all(io::stderr(), text.as_bytes()));
}

/// Prints a line to the standard error; see [`note!`](crate::note).
pub fn note(text: fmt::Arguments<'_>) {
    warn(&format!("{text}\n"));
}

/// `println!` that answers an [`OutputError`] instead of panicking.
#[macro_export]
macro_rules! say {
    () => {
        $crate::output::write(b"\n")
    };
    ($($text:tt)*) => {
        $crate::output::print(format_args!("{}\n", format_args!($($text)*)))
    };
}

/// `eprintln!` that does not mind when nobody reads it.
#[macro_export]
macro_rules! note {
    ($($text:tt)*) => {
        $crate::output::note(format_args!($($text)*))
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use std::io::Read;

    #[test]
    fn a_file_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("non-blocking");
        let text = vec![7; 1 << 20];
        let read = std::thread::spawn(move || {
            let mut all = vec![];
            reader.read_to_end(&mut all).map(|_| all)
        });
        write_all(&writer, &text).expect("all of it");
        drop(writer);
        assert_eq!(read.join().expect("the reader").expect("read"), text);
    }

    #[test]
    fn who_has_left_is_no_failure() {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let error = OutputError::from(write_all(&writer, b"x").expect_err("nobody reads"));
        assert!(matches!(error, OutputError::Closed) && error.status() == 141, "{error}");
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let error = OutputError::from(write_all(&full, b"x").expect_err("full"));
        assert!(matches!(error, OutputError::Failed(_)) && error.status() == 1, "{error}");
    }
}
