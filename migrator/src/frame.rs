//! Frames: the outermost layer of stream and file.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `QMF1` |
//! | 2 | kind, little-endian |
//! | 2 | zero |
//! | 4 | payload length, little-endian |
//! | 4 | sequence number of the frame in its direction, little-endian |
//! | 8 | first 8 bytes of the BLAKE3 hash of the 16 bytes before and the payload |
//! | n | payload |

use quasar_abi::control::migrator::{FRAME_HEADER as HEADER, OFFER, STREAM_MAGIC as MAGIC};
use std::io::{ErrorKind, Read, Write};

/// Longest payload: a batch of pages that do not compress, and what describes them.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// What a frame carries. A kind that the receiver does not know is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// [`crate::message::Offer`].
    Offer = OFFER,
    /// [`crate::message::Agreement`].
    Agreement = 2,
    /// [`crate::message::Machine`].
    Machine = 3,
    /// Nothing: the receiver has made the VM.
    Ready = 4,
    /// A batch of pages ([`crate::pages`]).
    Pages = 5,
    /// [`crate::message::RoundEnd`].
    RoundEnd = 6,
    /// Nothing: the round has been taken in.
    RoundTaken = 7,
    /// [`crate::message::StatePayload`].
    State = 8,
    /// [`crate::message::Final`].
    Final = 9,
    /// [`crate::message::Accepted`].
    Accepted = 10,
    /// [`crate::message::HandOver`].
    HandOver = 11,
    /// [`crate::message::Running`].
    Running = 12,
    /// [`crate::message::Refused`]: either side gives up.
    Refused = 13,
    /// [`crate::message::Lane`]: the first word of a further connection.
    Lane = 14,
}

impl TryFrom<u16> for Kind {
    type Error = FrameError;
    fn try_from(value: u16) -> Result<Self, FrameError> {
        const ALL: [Kind; 14] = [
            Kind::Offer,
            Kind::Agreement,
            Kind::Machine,
            Kind::Ready,
            Kind::Pages,
            Kind::RoundEnd,
            Kind::RoundTaken,
            Kind::State,
            Kind::Final,
            Kind::Accepted,
            Kind::HandOver,
            Kind::Running,
            Kind::Refused,
            Kind::Lane,
        ];
        ALL.into_iter().find(|kind| *kind as u16 == value).ok_or(FrameError::Kind(value))
    }
}

/// What is wrong with a stream.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Reading or writing failed.
    #[error("the stream broke: {0}")]
    Io(#[from] std::io::Error),
    /// It ended between frames, before what ends it.
    #[error("the stream is cut: it ended at byte {at}, where another frame is due")]
    Ended {
        /// Bytes that there were.
        at: u64,
    },
    /// It ended within a frame.
    #[error("the stream is cut: it ended at byte {at}, where {missing} more bytes of a frame are due")]
    Cut {
        /// Bytes that there were.
        at: u64,
        /// Bytes that are missing for certain: of the frame's header, or of what it announced.
        missing: u64,
    },
    /// Not our protocol, or out of step.
    #[error("no Quasar stream: at byte {at} a frame begins with {found:02x?}")]
    Magic {
        /// What is there instead.
        found: [u8; 4],
        /// Where the frame is.
        at: u64,
    },
    /// Unknown kind.
    #[error("frame of unknown kind {0}; the other side is newer or the stream is damaged")]
    Kind(u16),
    /// Too long.
    #[error("frame of {0} bytes is longer than {MAX_PAYLOAD}")]
    Length(usize),
    /// A frame is missing, doubled or out of order.
    #[error("frame number {found} where {expected} was due")]
    Sequence {
        /// What came.
        found: u32,
        /// What was due.
        expected: u32,
    },
    /// Bytes were changed on the way.
    #[error("frame number {0} is damaged: its hash is wrong")]
    Hash(u32),
}

fn check(header: &[u8], payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(payload);
    let mut short = [0; 8];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    short
}

/// Writes frames and counts their bytes.
pub struct FrameWriter<W> {
    out: W,
    sequence: u32,
    bytes: u64,
}

impl<W: Write> FrameWriter<W> {
    /// Starts a direction of a stream.
    pub fn new(out: W) -> Self {
        Self { out, sequence: 0, bytes: 0 }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// [`FrameError::Io`], [`FrameError::Length`].
    pub fn write(&mut self, kind: Kind, payload: &[u8]) -> Result<(), FrameError> {
        let len = u32::try_from(payload.len()).map_err(|_| FrameError::Length(payload.len()))?;
        if payload.len() > MAX_PAYLOAD {
            return Err(FrameError::Length(payload.len()));
        }
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&MAGIC);
        header[4..6].copy_from_slice(&(kind as u16).to_le_bytes());
        header[8..12].copy_from_slice(&len.to_le_bytes());
        header[12..16].copy_from_slice(&self.sequence.to_le_bytes());
        let hash = check(&header[..16], payload);
        header[16..].copy_from_slice(&hash);
        self.out.write_all(&header)?;
        self.out.write_all(payload)?;
        self.sequence = self.sequence.wrapping_add(1);
        self.bytes += (HEADER + payload.len()) as u64;
        Ok(())
    }

    /// Pushes what is buffered on its way.
    ///
    /// # Errors
    /// [`FrameError::Io`].
    pub fn flush(&mut self) -> Result<(), FrameError> {
        Ok(self.out.flush()?)
    }

    /// The stream itself.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }
}

/// Reads frames.
pub struct FrameReader<R> {
    input: R,
    sequence: u32,
    bytes: u64,
}

impl<R: Read> FrameReader<R> {
    /// Starts a direction of a stream.
    pub fn new(input: R) -> Self {
        Self { input, sequence: 0, bytes: 0 }
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads the next frame, checked.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is of no use afterwards.
    pub fn read(&mut self) -> Result<(Kind, Vec<u8>), FrameError> {
        self.read_into(vec![])
    }

    /// [`Self::read`] into memory that is there already.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_into(&mut self, mut payload: Vec<u8>) -> Result<(Kind, Vec<u8>), FrameError> {
        let mut header = [0; HEADER];
        self.fill(&mut header, 0)?;
        let [m0, m1, m2, m3, k0, k1, _, _, l0, l1, l2, l3, s0, s1, s2, s3, hash @ ..] = header;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(FrameError::Magic { found: [m0, m1, m2, m3], at: self.bytes });
        }
        let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if len > MAX_PAYLOAD {
            return Err(FrameError::Length(len));
        }
        let found = u32::from_le_bytes([s0, s1, s2, s3]);
        payload.resize(len, 0);
        self.fill(&mut payload, HEADER as u64)?;
        if check(&header[..16], &payload) != hash {
            return Err(FrameError::Hash(found));
        }
        if found != self.sequence {
            return Err(FrameError::Sequence { found, expected: self.sequence });
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.bytes += (HEADER + len) as u64;
        Ok((Kind::try_from(u16::from_le_bytes([k0, k1]))?, payload))
    }

    /// Reads all of a frame's part, which begins `before` bytes into it.
    fn fill(&mut self, part: &mut [u8], before: u64) -> Result<(), FrameError> {
        let mut have = 0;
        while have < part.len() {
            match self.input.read(&mut part[have..]) {
                Ok(0) if before == 0 && have == 0 => return Err(FrameError::Ended { at: self.bytes }),
                Ok(0) => {
                    let at = self.bytes + before + have as u64;
                    return Err(FrameError::Cut { at, missing: (part.len() - have) as u64 });
                }
                Ok(count) => have += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The stream itself.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream() -> Vec<u8> {
        let mut writer = FrameWriter::new(Vec::new());
        writer.write(Kind::Offer, b"first").expect("write");
        writer.write(Kind::Ready, b"").expect("write");
        writer.write(Kind::Pages, &[7; 5000]).expect("write");
        writer.out
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = stream();
        let mut reader = FrameReader::new(&bytes[..]);
        assert_eq!(reader.read().expect("frame"), (Kind::Offer, b"first".to_vec()));
        assert_eq!(reader.read().expect("frame"), (Kind::Ready, vec![]));
        assert_eq!(reader.read().expect("frame"), (Kind::Pages, vec![7; 5000]));
        assert!(matches!(reader.read(), Err(FrameError::Ended { at }) if at == bytes.len() as u64));
        assert_eq!(reader.bytes(), bytes.len() as u64);
    }

    #[test]
    fn a_stream_that_is_cut_says_where() {
        let bytes = stream();
        let frames = [0, HEADER + 5, 2 * HEADER + 5];
        for end in 0..bytes.len() {
            let mut reader = FrameReader::new(&bytes[..end]);
            let error = (0..3).find_map(|_| reader.read().err()).expect("it is cut");
            match error {
                FrameError::Ended { at } => assert!(at == end as u64 && frames.contains(&end), "{end}"),
                FrameError::Cut { at, missing } => {
                    assert!(at == end as u64 && !frames.contains(&end), "{end}");
                    assert!(missing > 0 && end as u64 + missing <= bytes.len() as u64, "{end}: {missing}");
                }
                other => panic!("cut at {end}: {other}"),
            }
        }
    }

    #[test]
    fn the_bytes_of_a_frame_are_frozen() {
        let bytes = stream();
        assert_eq!(bytes[..16], *b"QMF1\x01\0\0\0\x05\0\0\0\0\0\0\0");
        assert_eq!(bytes[24..29], *b"first");
        assert_eq!(bytes[29..45], *b"QMF1\x04\0\0\0\0\0\0\0\x01\0\0\0");
    }

    #[test]
    fn missing_doubled_and_swapped_frames_show() {
        let bytes = stream();
        let (first, second) = (&bytes[..29], &bytes[29..53]);
        let mut reader = FrameReader::new(second);
        assert!(matches!(reader.read(), Err(FrameError::Sequence { found: 1, expected: 0 })));
        let doubled = [first, first].concat();
        let mut reader = FrameReader::new(&doubled[..]);
        reader.read().expect("first");
        assert!(matches!(reader.read(), Err(FrameError::Sequence { found: 0, expected: 1 })));
    }

    proptest! {
        /// No change of any byte goes unnoticed, and no garbage makes the reader panic or allocate at will.
        #[test]
        fn any_change_shows(at in 0usize..5077, xor in 1u8..) {
            let mut bytes = stream();
            let at = at % bytes.len();
            bytes[at] ^= xor;
            let mut reader = FrameReader::new(&bytes[..]);
            // The two reserved bytes and every other one are under the hash.
            let all = (0..3).try_for_each(|_| reader.read().map(drop));
            prop_assert!(all.is_err());
        }

        #[test]
        fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(FrameReader::new(&bytes[..]).read().is_err());
        }
    }
}
