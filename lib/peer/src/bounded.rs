//! Reading and writing with one deadline for all of it.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A blocking socket whose every operation ends at one instant. A time-out for each read would let whoever sends a byte
/// now and then stay for ever.
pub struct Bounded<'a> {
    socket: &'a TcpStream,
    by: Instant,
}

impl<'a> Bounded<'a> {
    /// The socket's own time-outs are changed; whoever uses it afterwards sets them anew.
    #[must_use]
    pub fn new(socket: &'a TcpStream, by: Instant) -> Self {
        Self { socket, by }
    }

    fn left(&self) -> Result<Duration> {
        let left = self.by.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(ErrorKind::TimedOut, "the time for it is over"));
        }
        Ok(left)
    }

    /// Looks at what has come without taking it, until `enough` says yes.
    ///
    /// # Errors
    /// When the time is over, the other side has closed, or what came fills `space` and is not enough.
    pub fn peek(&self, space: &mut [u8], enough: impl Fn(&[u8]) -> Result<bool>) -> Result<()> {
        loop {
            self.socket.set_read_timeout(Some(self.left()?))?;
            match self.socket.peek(space) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) if enough(&space[..n])? => return Ok(()),
                Ok(n) if n == space.len() => return Err(ErrorKind::InvalidData.into()),
                // What is there is seen again at once: a moment for more to come.
                Ok(_) => std::thread::sleep(Duration::from_millis(10)),
                Err(error) if again(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn again(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl Read for Bounded<'_> {
    fn read(&mut self, space: &mut [u8]) -> Result<usize> {
        loop {
            self.socket.set_read_timeout(Some(self.left()?))?;
            match self.socket.read(space) {
                Err(error) if again(&error) => {}
                other => return other,
            }
        }
    }
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        loop {
            self.socket.set_write_timeout(Some(self.left()?))?;
            match self.socket.write(bytes) {
                Err(error) if again(&error) => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
