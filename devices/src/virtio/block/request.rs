//! One block request (virtio 1.3, 5.2.6), from the driver's buffers to the file and back.

use super::backing::Backing;
use super::config::{F_FLUSH, MAX_RANGE_SECTORS, MAX_RANGES, SECTOR};
use super::room::NoRoom;
use crate::dma::Dma;
use crate::error::DevicesError;
use crate::virtio::queue::{Chain, RingError};
use quasar_abi::machine::OnEnospc;
use quasar_abi::report::DiskCounters;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
/// Bytes of a request's header.
const HEADER: u64 = 16;
/// Bytes of a range to zero.
const RANGE: u64 = 16;
const ID_BYTES: usize = 20;
const UNMAP: u32 = 1;
/// Bytes that pass between file and guest at a time.
const BOUNCE: usize = 256 * 1024;

/// The status byte (virtio 1.3, 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Not done.
    IoError = 1,
    /// No such request.
    Unsupported = 2,
}

/// What has been done.
#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    errors: AtomicU64,
}

/// A disk: its file and what it answers.
#[derive(Debug)]
pub struct Disk {
    backing: Backing,
    serial: [u8; ID_BYTES],
    on_enospc: OnEnospc,
    counters: Counters,
}

/// What came of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It is done, with so many bytes of the chain written, or was none.
    Done(Result<u32, RingError>),
    /// The host has no room for it: to be repeated when there is.
    NoRoom(NoRoom),
}

/// Why a request was not carried out: the driver broke the ring, or the status says what happened.
enum Failure {
    Ring(RingError),
    Status(Status),
    NoRoom(NoRoom),
}

impl From<RingError> for Failure {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

impl Disk {
    /// A disk on `backing` that names itself `serial`.
    ///
    /// # Errors
    /// [`DevicesError::Config`] when the serial is longer than 20 bytes.
    pub fn new(backing: Backing, serial: &str, on_enospc: OnEnospc) -> Result<Self, DevicesError> {
        let mut padded = [0; ID_BYTES];
        let Some(place) = padded.get_mut(..serial.len()) else {
            let what = format!("the serial {serial:?} is longer than {ID_BYTES} bytes; choose a shorter one");
            return Err(DevicesError::Config { device: backing.path().display().to_string(), what });
        };
        place.copy_from_slice(serial.as_bytes());
        Ok(Self { backing, serial: padded, on_enospc, counters: Counters::default() })
    }

    /// The file.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// What has been done.
    #[must_use]
    pub fn counters(&self) -> DiskCounters {
        let Counters { reads, writes, flushes, errors } = &self.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskCounters {
            reads: count(reads),
            writes: count(writes),
            flushes: count(flushes),
            errors: count(errors),
        }
    }

    /// Carries out a request. Repeating one is harmless.
    pub fn execute(&self, dma: &Dma, chain: &Chain, features: u64) -> Outcome {
        match self.carry_out(dma, chain, features) {
            Ok(written) => Outcome::Done(Ok(written)),
            Err(Failure::Ring(error)) => Outcome::Done(Err(error)),
            Err(Failure::NoRoom(what)) => Outcome::NoRoom(what),
            // Every status is in the chain.
            Err(Failure::Status(_)) => Outcome::Done(Ok(0)),
        }
    }

    fn carry_out(&self, dma: &Dma, chain: &Chain, features: u64) -> Result<u32, Failure> {
        let mut header = [0; 16];
        chain.read(dma, 0, &mut header)?;
        let [t0, t1, t2, t3, _, _, _, _, s0, s1, s2, s3, s4, s5, s6, s7] = header;
        let kind = u32::from_le_bytes([t0, t1, t2, t3]);
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let room = chain.writable_len();
        let status_at = room.checked_sub(1).ok_or(RingError::Short { needed: 1, found: 0 })?;
        let result = match kind {
            IN => self.read(dma, chain, sector, status_at),
            OUT => self.write(dma, chain, sector, features),
            FLUSH => self.flush().map(|()| 0),
            GET_ID => self.identify(dma, chain, status_at),
            DISCARD => self.zero_ranges(dma, chain, features, true).map(|()| 0),
            WRITE_ZEROES => self.zero_ranges(dma, chain, features, false).map(|()| 0),
            _ => Err(Failure::Status(Status::Unsupported)),
        };
        let (status, written) = match result {
            Ok(written) => (Status::Ok, written),
            Err(Failure::Status(status)) => (status, 0),
            Err(failure) => return Err(failure),
        };
        self.counters.errors.fetch_add(u64::from(status == Status::IoError), Ordering::Relaxed);
        chain.write(dma, status_at, &[status as u8])?;
        // The driver may rely on the first `len` bytes having been written; the status byte stands last.
        let len = if status_at == written { written + 1 } else { written };
        Ok(u32::try_from(len).unwrap_or(u32::MAX))
    }

    fn range(&self, sector: u64, len: u64) -> Result<u64, Failure> {
        let offset = sector.checked_mul(SECTOR).filter(|offset| self.backing.contains(*offset, len));
        match offset {
            Some(offset) if len.is_multiple_of(SECTOR) => Ok(offset),
            _ => Err(Failure::Status(Status::IoError)),
        }
    }

    fn done<T>(&self, what: &str, result: io::Result<T>) -> Result<T, Failure> {
        result.map_err(|error| {
            log::error!("disk {}: {what}: {error}", self.backing.path().display());
            Failure::Status(Status::IoError)
        })
    }

    /// [`Disk::done`] for what may lack room. Not for flushes: the system tells of a write that it could not carry out
    /// late once, and a flush that is repeated succeeds without it.
    fn written(&self, what: &str, offset: u64, len: u64, result: io::Result<()>) -> Result<(), Failure> {
        match result.as_ref().err().and_then(|error| NoRoom::of(error, offset, len)) {
            Some(no_room) if self.on_enospc == OnEnospc::Pause => Err(Failure::NoRoom(no_room)),
            _ => self.done(what, result),
        }
    }

    fn read(&self, dma: &Dma, chain: &Chain, sector: u64, len: u64) -> Result<u64, Failure> {
        let offset = self.range(sector, len)?;
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        for_pieces(len, |at, bounce| {
            self.done("read", self.backing.read(offset + at, bounce))?;
            Ok(chain.write(dma, at, bounce)?)
        })?;
        Ok(len)
    }

    fn write(&self, dma: &Dma, chain: &Chain, sector: u64, features: u64) -> Result<u64, Failure> {
        let len = chain.readable_len() - HEADER;
        let offset = self.range(sector, len)?;
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        for_pieces(len, |at, bounce| {
            chain.read(dma, HEADER + at, bounce)?;
            let write = || self.backing.write(offset + at, bounce);
            let (at, len) = (offset + at, bounce.len() as u64);
            self.written("write", at, len, dma.write_disk(self.backing.maps(), at, len, write))
        })?;
        self.write_through(features)?;
        Ok(0)
    }

    /// A driver that cannot flush expects its writes to last (virtio 1.3, 5.2.6.2).
    fn write_through(&self, features: u64) -> Result<(), Failure> {
        if features & F_FLUSH == 0 { self.flush() } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), Failure> {
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        self.done("flush", self.backing.sync())
    }

    fn identify(&self, dma: &Dma, chain: &Chain, room: u64) -> Result<u64, Failure> {
        let len = usize::try_from(room).unwrap_or(ID_BYTES).min(ID_BYTES);
        chain.write(dma, 0, &self.serial[..len])?;
        Ok(len as u64)
    }

    fn zero_ranges(&self, dma: &Dma, chain: &Chain, features: u64, discard: bool) -> Result<(), Failure> {
        let len = chain.readable_len() - HEADER;
        let ranges = len / RANGE;
        if !len.is_multiple_of(RANGE) || ranges > u64::from(MAX_RANGES) || self.backing.read_only() {
            return Err(Failure::Status(Status::IoError));
        }
        for range in 0..ranges {
            let mut bytes = [0; 16];
            chain.read(dma, HEADER + RANGE * range, &mut bytes)?;
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = bytes;
            let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
            let flags = u32::from_le_bytes([f0, f1, f2, f3]);
            if flags & !UNMAP != 0 || discard && flags != 0 {
                return Err(Failure::Status(Status::Unsupported));
            }
            if sectors > MAX_RANGE_SECTORS {
                return Err(Failure::Status(Status::IoError));
            }
            let len = u64::from(sectors) * SECTOR;
            let offset = self.range(u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]), len)?;
            if len > 0 {
                let zero = || self.backing.zero(offset, len, discard || flags & UNMAP != 0);
                self.written("zero", offset, len, dma.write_disk(self.backing.maps(), offset, len, zero))?;
            }
        }
        self.write_through(features)
    }
}

/// Cuts `len` bytes into pieces that fit a bounce buffer.
fn for_pieces(len: u64, mut each: impl FnMut(u64, &mut [u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut bounce = vec![0; usize::try_from(len).unwrap_or(BOUNCE).min(BOUNCE)];
    let mut at = 0;
    while at < len {
        let piece = usize::try_from(len - at).unwrap_or(BOUNCE).min(BOUNCE);
        each(at, &mut bounce[..piece])?;
        at += piece as u64;
    }
    Ok(())
}
