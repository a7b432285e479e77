//! The connection between two migrators.

use crate::frame::{FrameError, FrameReader, FrameWriter, Kind};
use crate::message::{self, Refused};
use parking_lot::Mutex;
use quasar_abi::control::codec::CodecError;
use serde::{Serialize, de::DeserializeOwned};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the other side may stay silent, or take nothing, before the connection counts as broken.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How often a waiting side looks whether it was told to end.
const GLANCE: Duration = Duration::from_millis(100);

/// What carries the bytes.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Why talking to the other side failed.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The stream.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message.
    #[error("malformed message: {0}")]
    Message(#[from] CodecError),
    /// It does not want.
    #[error("the other side gave up: {0}")]
    Refused(String),
    /// It is out of step.
    #[error("{found:?} came where {expected:?} was due")]
    Unexpected {
        /// What came.
        found: Kind,
        /// What was due.
        expected: Kind,
    },
}

/// One direction of the stream; both share it.
pub struct Half {
    stream: Arc<Mutex<Box<dyn Stream>>>,
    cancelled: Arc<AtomicBool>,
    patience: Duration,
    /// When all of it must be over, however lively the other side is.
    by: Option<Instant>,
    /// Whether one direction's patience has ended. Then nobody waits again: for last words, or to say some.
    gone: Arc<AtomicBool>,
}

impl Half {
    /// Repeats an operation that gives up every [`GLANCE`] until it does something, is cancelled, or the
    /// other side has been still for too long.
    fn patiently(
        &self,
        mut operation: impl FnMut(&mut dyn Stream) -> std::io::Result<usize>,
    ) -> std::io::Result<usize> {
        let start = Instant::now();
        loop {
            if self.by.is_some_and(|by| Instant::now() >= by) {
                self.gone.store(true, Ordering::Release);
                let what = "the other side has not said what was due in time";
                return Err(std::io::Error::new(ErrorKind::TimedOut, what));
            }
            let result = operation(&mut **self.stream.lock());
            match result {
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) =>
                {
                    if self.cancelled.load(Ordering::Acquire) {
                        return Err(std::io::Error::other("cancelled"));
                    }
                    if self.gone.load(Ordering::Acquire) || start.elapsed() > self.patience {
                        self.gone.store(true, Ordering::Release);
                        let what =
                            format!("the other side has been silent for {} s", self.patience.as_secs());
                        return Err(std::io::Error::new(ErrorKind::TimedOut, what));
                    }
                }
                other => return other,
            }
        }
    }
}

impl Read for Half {
    fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
        self.patiently(|stream| stream.read(space))
    }
}

impl Write for Half {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.patiently(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.patiently(|stream| stream.flush().map(|()| 0)).map(drop)
    }
}

/// The other side.
pub struct Peer {
    /// What we send.
    pub out: FrameWriter<BufWriter<Half>>,
    /// What we receive.
    pub input: FrameReader<BufReader<Half>>,
}

/// Prepares a socket for [`Peer::new`]: short time-outs, which [`Half`] turns into patience, and no delay.
///
/// # Errors
/// When the socket is closed already.
pub fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(GLANCE))?;
    socket.set_write_timeout(Some(GLANCE))
}

/// Decodes a frame that was read, when it is of the kind that is due.
///
/// # Errors
/// As [`Peer::expect`].
pub fn decode<T: DeserializeOwned>(found: Kind, expected: Kind, payload: &[u8]) -> Result<T, PeerError> {
    if found == expected {
        return Ok(message::decode(payload)?);
    }
    if found == Kind::Refused {
        return Err(PeerError::Refused(message::decode::<Refused>(payload)?.reason));
    }
    Err(PeerError::Unexpected { found, expected })
}

impl Peer {
    /// Takes a connected stream. A side that is silent for `patience` ([`PATIENCE`]) counts as gone.
    #[must_use]
    pub fn new(stream: Box<dyn Stream>, cancelled: &Arc<AtomicBool>, patience: Duration) -> Self {
        let stream = Arc::new(Mutex::new(stream));
        let gone = Arc::<AtomicBool>::default();
        let half = || Half {
            stream: Arc::clone(&stream),
            cancelled: Arc::clone(cancelled),
            patience,
            by: None,
            gone: Arc::clone(&gone),
        };
        Self {
            out: FrameWriter::new(BufWriter::with_capacity(256 * 1024, half())),
            input: FrameReader::new(BufReader::with_capacity(256 * 1024, half())),
        }
    }

    /// Sends a message at once.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn tell<T: Serialize>(&mut self, kind: Kind, message: &T) -> Result<(), PeerError> {
        self.out.write(kind, &message::encode(message)?)?;
        self.out.flush()?;
        Ok(())
    }

    /// Receives the message that is due.
    ///
    /// # Errors
    /// [`PeerError`], [`PeerError::Refused`] when the other side says why it ends.
    pub fn expect<T: DeserializeOwned>(&mut self, kind: Kind) -> Result<T, PeerError> {
        let (found, payload) = self.input.read()?;
        decode(found, kind, &payload)
    }

    /// From here on nobody here can end the talk but the other side, or its silence: what was said cannot be taken
    /// back.
    pub fn commit(&mut self) {
        for half in [self.out.get_mut().get_mut(), self.input.get_mut().get_mut()] {
            half.cancelled = Arc::default();
        }
    }

    /// All that comes from here on must have come by then; nothing for whatever time it takes, as long as the other side
    /// is not silent.
    pub fn finish_by(&mut self, by: Option<Instant>) {
        for half in [self.out.get_mut().get_mut(), self.input.get_mut().get_mut()] {
            half.by = by;
        }
    }

    /// From here on a side that is silent for `patience` counts as gone.
    pub fn be_patient(&mut self, patience: Duration) {
        for half in [self.out.get_mut().get_mut(), self.input.get_mut().get_mut()] {
            half.patience = patience;
        }
    }

    /// After sending failed: what the other side may have said before it closed.
    #[must_use]
    pub fn last_words(&mut self) -> Option<String> {
        // What it said before, and we did not come to read, may be in front of it.
        let frames = std::iter::from_fn(|| self.input.read().ok()).take(4);
        let refusals = frames.filter(|(kind, _)| *kind == Kind::Refused);
        refusals.filter_map(|(_, payload)| message::decode::<Refused>(&payload).ok()).next().map(|r| r.reason)
    }

    /// Says that we give up; whether the other side hears it does not matter.
    pub fn refuse(&mut self, reason: &str) {
        let _ = self.tell(Kind::Refused, &Refused { reason: reason.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Takes and gives nothing, and counts how often it was asked.
    struct Silence(Arc<AtomicUsize>);

    impl Silence {
        fn asked<T>(&self) -> std::io::Result<T> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(ErrorKind::WouldBlock.into())
        }
    }

    impl Read for Silence {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            self.asked()
        }
    }

    impl Write for Silence {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            self.asked()
        }

        fn flush(&mut self) -> std::io::Result<()> {
            self.asked()
        }
    }

    /// Gives a byte at a time, each well within anybody's patience.
    struct Drip;

    impl Read for Drip {
        fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
            std::thread::sleep(Duration::from_millis(5));
            space[0] = b'Q';
            Ok(1)
        }
    }

    impl Write for Drip {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_is_never_silent_ends_in_time_too() {
        let (by, patience) = (Instant::now() + Duration::from_millis(60), Duration::from_secs(3600));
        let mut peer = Peer::new(Box::new(Drip), &Arc::default(), patience);
        peer.finish_by(Some(by));
        let mut all = vec![0; 1 << 20];
        let error = peer.input.get_mut().read_exact(&mut all).expect_err("it is slow");
        assert!(error.to_string().contains("in time") && Instant::now() >= by, "{error}");
    }

    #[test]
    fn patience_with_a_silent_side_ends_once() {
        let asked = Arc::<AtomicUsize>::default();
        let patience = Duration::from_millis(50);
        let mut peer = Peer::new(Box::new(Silence(Arc::clone(&asked))), &Arc::default(), patience);
        let error = peer.expect::<u64>(Kind::RoundTaken).expect_err("silence");
        assert!(error.to_string().contains("silent"), "{error}");
        let before = asked.load(Ordering::Relaxed);
        assert_eq!(peer.last_words(), None);
        peer.refuse("enough");
        drop(peer);
        let more = asked.load(Ordering::Relaxed) - before;
        assert!(more < 10, "asked {more} times more");
    }
}
