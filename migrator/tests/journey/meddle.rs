//! A connection that does something to one frame on its way.

use crate::wire::connected;
use quasar_migrator::frame::Kind;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Fields of a frame's header.
const HEADER: usize = 24;
const LENGTH: std::ops::Range<usize> = 8..12;
const SEQUENCE: usize = 12;
const HASHED: usize = 16;

/// What is done.
#[derive(Clone, Debug)]
pub enum Trick {
    /// The connection breaks before the frame.
    Cut,
    /// It breaks in the middle of it.
    Truncate,
    /// Nothing comes from here on, and nobody says so.
    Stall,
    /// The frame is left out.
    Skip,
    /// It comes twice.
    Double,
    /// A bit of its last byte changes: of the payload, or of the hash.
    Flip,
    /// It has another number.
    Renumber,
    /// It says that it is this long, under a right hash.
    Length(u32),
    /// It is of this kind, under a right hash.
    Kind(u16),
    /// It carries this, under a right hash.
    Payload(Vec<u8>),
    /// Somebody is told, and a while passes before it goes on.
    Tell(Arc<AtomicBool>),
}

/// Longer than it takes a side that waits to see that it was told.
const A_WHILE: Duration = Duration::from_millis(400);

/// A frame as bytes.
struct Frame(Vec<u8>);

impl Frame {
    fn read(from: &mut TcpStream) -> std::io::Result<Self> {
        let mut bytes = vec![0; HEADER];
        from.read_exact(&mut bytes)?;
        let length = u32::from_le_bytes(bytes[LENGTH].try_into().expect("four bytes"));
        bytes.resize(HEADER + usize::try_from(length).expect("small"), 0);
        from.read_exact(&mut bytes[HEADER..])?;
        Ok(Self(bytes))
    }

    fn kind(&self) -> u16 {
        u16::from_le_bytes([self.0[4], self.0[5]])
    }

    /// The right hash of what it is now.
    fn sign(&mut self) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0[..HASHED]).update(&self.0[HEADER..]);
        self.0[HASHED..HEADER].copy_from_slice(&hasher.finalize().as_bytes()[..HEADER - HASHED]);
    }
}

struct Meddler {
    from: TcpStream,
    to: TcpStream,
    kind: Kind,
    trick: Trick,
    met: Arc<AtomicBool>,
}

impl Meddler {
    fn pass_on(&mut self) -> std::io::Result<()> {
        loop {
            let mut frame = Frame::read(&mut self.from)?;
            if frame.kind() != self.kind as u16 || self.met.swap(true, Ordering::AcqRel) {
                self.to.write_all(&frame.0)?;
                continue;
            }
            match self.trick.clone() {
                Trick::Cut => return self.cut(),
                Trick::Truncate => {
                    self.to.write_all(&frame.0[..frame.0.len() - 1])?;
                    return self.cut();
                }
                Trick::Stall => return std::io::copy(&mut self.from, &mut std::io::sink()).map(drop),
                Trick::Skip => continue,
                Trick::Double => self.to.write_all(&frame.0)?,
                Trick::Flip => *frame.0.last_mut().expect("a header") ^= 0x10,
                Trick::Renumber => {
                    frame.0[SEQUENCE] ^= 1;
                    frame.sign();
                }
                Trick::Length(length) => {
                    frame.0[LENGTH].copy_from_slice(&length.to_le_bytes());
                    frame.sign();
                }
                Trick::Kind(kind) => {
                    frame.0[4..6].copy_from_slice(&kind.to_le_bytes());
                    frame.sign();
                }
                Trick::Payload(payload) => {
                    let length = u32::try_from(payload.len()).expect("small");
                    frame.0[LENGTH].copy_from_slice(&length.to_le_bytes());
                    frame.0.truncate(HEADER);
                    frame.0.extend(payload);
                    frame.sign();
                }
                Trick::Tell(whom) => {
                    whom.store(true, Ordering::Release);
                    std::thread::sleep(A_WHILE);
                }
            }
            self.to.write_all(&frame.0)?;
        }
    }

    fn cut(&self) -> std::io::Result<()> {
        self.from.shutdown(Shutdown::Both)?;
        self.to.shutdown(Shutdown::Both)
    }
}

/// A connection from source to destination that does something to the first frame of a kind, in whichever direction;
/// and whether it has.
pub fn meddled(kind: Kind, trick: &Trick) -> ((TcpStream, TcpStream), Arc<AtomicBool>) {
    let (client, near) = connected();
    let (far, server) = connected();
    let met = Arc::<AtomicBool>::default();
    let clone = |socket: &TcpStream| socket.try_clone().expect("clone");
    for (from, to) in [(clone(&near), clone(&far)), (far, near)] {
        let mut meddler = Meddler { from, to, kind, trick: trick.clone(), met: Arc::clone(&met) };
        std::thread::spawn(move || {
            // Whoever has said all may still be told something.
            if meddler.pass_on().is_err() {
                drop(meddler.to.shutdown(Shutdown::Write));
            }
        });
    }
    ((client, server), met)
}
