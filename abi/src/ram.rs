//! Guest RAM by guest-physical address.
//!
//! Harts, devices, mmu and migrator touch the same bytes at the same time. So every access is atomic, copies too: they
//! go by relaxed words (by bytes at ragged ends), which no compiler may tear, repeat or invent. Harts mix accesses of
//! several widths to the same bytes, as guests do; Rust leaves open what comes of that, and every host that we build
//! for defines it.
//!
//! What it costs against `memcpy`: of a page that lies in the host's caches 100 ns instead of 50, of one that
//! does not 300 instead of 260; of 64 bytes nothing. Next to the system calls, hashes and compression around each
//! page that is a few in a thousand of a migration or a disk's transfer.

use crate::grants::Grant;
use crate::le::AtomicLe32;
use crate::le::AtomicLe64;
pub use crate::page::{PAGE_BYTES, PAGE_LEN, PAGE_SHIFT};
use crate::segment::{Segment, SegmentError, SegmentKind};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

/// A guest-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpa(pub u64);

impl std::fmt::Display for Gpa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// An access that does not lie wholly in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at guest-physical {gpa:#x} are not RAM")]
pub struct NotRam {
    /// First byte.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
}

/// The guest's RAM as mapped into this process. Cheap to clone.
///
/// Accesses race with other processes by design. Copies may tear between words; aligned accesses of 1, 2, 4 and 8
/// bytes are single-copy atomic, as the guest's memory model demands.
#[derive(Clone, Debug)]
pub struct GuestRam {
    segment: Arc<Segment>,
    base: u64,
    len: u64,
}

/// Bytes of RAM as atomics: single ones up to an aligned word, aligned words, the single ones that remain.
#[derive(Clone, Copy)]
struct Cells<'a> {
    at: *mut u8,
    len: usize,
    ram: PhantomData<&'a GuestRam>,
}

impl<'a> Cells<'a> {
    /// Bytes before the first aligned word.
    fn head(self) -> usize {
        self.at.align_offset(8).min(self.len)
    }

    fn split(self) -> (&'a [AtomicU8], &'a [AtomicU64], &'a [AtomicU8]) {
        let (head, words) = (self.head(), (self.len - self.head()) / 8);
        let tail = self.len - head - words * 8;
        // SAFETY: `at` is the first of `len` mapped bytes (`GuestRam::at`) of a mapping that outlives `ram`; the words
        // begin at an aligned one. Atomics are valid for any bytes and may race with whoever writes them.
        unsafe {
            let middle = self.at.add(head);
            (
                std::slice::from_raw_parts(self.at.cast(), head),
                std::slice::from_raw_parts(middle.cast(), words),
                std::slice::from_raw_parts(middle.add(words * 8).cast(), tail),
            )
        }
    }
}

impl GuestRam {
    /// Attaches to the RAM segment whose first byte has the guest-physical address `base`.
    ///
    /// # Errors
    /// See [`Segment::attach`].
    pub fn attach(grant: &Grant, base: u64) -> Result<Self, SegmentError> {
        Ok(Self::new(Arc::new(Segment::attach(grant, SegmentKind::Ram)?), base))
    }

    /// Takes a RAM segment whose first byte has the guest-physical address `base`.
    #[must_use]
    pub fn new(segment: Arc<Segment>, base: u64) -> Self {
        let len = segment.len() as u64;
        Self { segment, base, len }
    }

    /// The segment.
    #[must_use]
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Guest-physical address of the first byte.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes of RAM.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no RAM.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `[gpa, gpa + len)` lies in RAM.
    #[inline]
    #[must_use]
    pub fn contains(&self, gpa: u64, len: u64) -> bool {
        let offset = gpa.wrapping_sub(self.base);
        offset < self.len && len <= self.len - offset
    }

    #[inline]
    fn at(&self, gpa: u64, len: u64) -> Result<*mut u8, NotRam> {
        if self.contains(gpa, len) {
            #[expect(clippy::cast_possible_truncation, reason = "the offset is inside a mapping")]
            let offset = (gpa - self.base) as usize;
            // SAFETY: the offset is inside the mapping.
            Ok(unsafe { self.segment.payload().add(offset) })
        } else {
            Err(NotRam { gpa, len })
        }
    }

    /// The host address of a guest page, for an engine's own translation cache. Valid while this handle
    /// lives; accesses through it must be atomic, in little-endian order.
    ///
    /// # Errors
    /// [`NotRam`] when the page does not lie in RAM.
    #[inline]
    pub fn page_ptr(&self, gpa: u64) -> Result<*mut u8, NotRam> {
        self.at(gpa & !(PAGE_BYTES - 1), PAGE_BYTES)
    }

    /// Copies guest memory out. Bytes that others write meanwhile may be old or new.
    ///
    /// # Errors
    /// [`NotRam`] when the range does not lie in RAM.
    pub fn read(&self, gpa: u64, out: &mut [u8]) -> Result<(), NotRam> {
        let from = Cells { at: self.at(gpa, out.len() as u64)?, len: out.len(), ram: PhantomData };
        let (first, rest) = out.split_at_mut(from.head());
        let (words, last) = rest.as_chunks_mut();
        let (first_cells, word_cells, last_cells) = from.split();
        for (byte, cell) in first.iter_mut().zip(first_cells).chain(last.iter_mut().zip(last_cells)) {
            *byte = cell.load(Ordering::Relaxed);
        }
        for (word, cell) in words.iter_mut().zip(word_cells) {
            *word = cell.load(Ordering::Relaxed).to_ne_bytes();
        }
        Ok(())
    }

    /// Copies bytes into guest memory.
    ///
    /// # Errors
    /// [`NotRam`] when the range does not lie in RAM.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), NotRam> {
        let to = Cells { at: self.at(gpa, bytes.len() as u64)?, len: bytes.len(), ram: PhantomData };
        let (first, rest) = bytes.split_at(to.head());
        let (words, last) = rest.as_chunks();
        let (first_cells, word_cells, last_cells) = to.split();
        for (byte, cell) in first.iter().zip(first_cells).chain(last.iter().zip(last_cells)) {
            cell.store(*byte, Ordering::Relaxed);
        }
        for (word, cell) in words.iter().zip(word_cells) {
            cell.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Fills a range with one byte.
    ///
    /// # Errors
    /// [`NotRam`] when the range does not lie in RAM.
    pub fn fill(&self, gpa: u64, byte: u8, len: u64) -> Result<(), NotRam> {
        let at = self.at(gpa, len)?;
        let to = Cells { at, len: usize::try_from(len).unwrap_or(0), ram: PhantomData };
        let (first, words, last) = to.split();
        for cell in first.iter().chain(last) {
            cell.store(byte, Ordering::Relaxed);
        }
        for cell in words {
            cell.store(u64::from_ne_bytes([byte; 8]), Ordering::Relaxed);
        }
        Ok(())
    }

    /// An aligned 8-byte cell.
    ///
    /// # Errors
    /// [`NotRam`] when it does not lie in RAM or is misaligned.
    #[inline]
    pub fn cell64(&self, gpa: u64) -> Result<&AtomicLe64, NotRam> {
        if !gpa.is_multiple_of(8) {
            return Err(NotRam { gpa, len: 8 });
        }
        let at = self.at(gpa, 8)?;
        // SAFETY: in range, aligned (the payload is page-aligned), atomic type, lives as long as self.
        Ok(unsafe { &*at.cast::<AtomicLe64>() })
    }

    /// An aligned 4-byte cell.
    ///
    /// # Errors
    /// [`NotRam`] when it does not lie in RAM or is misaligned.
    #[inline]
    pub fn cell32(&self, gpa: u64) -> Result<&AtomicLe32, NotRam> {
        if !gpa.is_multiple_of(4) {
            return Err(NotRam { gpa, len: 4 });
        }
        let at = self.at(gpa, 4)?;
        // SAFETY: as for cell64.
        Ok(unsafe { &*at.cast::<AtomicLe32>() })
    }

    /// Loads an aligned little-endian 16-bit word with acquire order (ring indices).
    ///
    /// # Errors
    /// [`NotRam`] when it does not lie in RAM or is misaligned.
    pub fn load16(&self, gpa: u64) -> Result<u16, NotRam> {
        if !gpa.is_multiple_of(2) {
            return Err(NotRam { gpa, len: 2 });
        }
        let at = self.at(gpa, 2)?;
        // SAFETY: in range and aligned.
        Ok(u16::from_le(unsafe { &*at.cast::<AtomicU16>() }.load(Ordering::Acquire)))
    }

    /// Stores an aligned little-endian 16-bit word with release order (ring indices).
    ///
    /// # Errors
    /// [`NotRam`] when it does not lie in RAM or is misaligned.
    pub fn store16(&self, gpa: u64, value: u16) -> Result<(), NotRam> {
        if !gpa.is_multiple_of(2) {
            return Err(NotRam { gpa, len: 2 });
        }
        let at = self.at(gpa, 2)?;
        // SAFETY: in range and aligned.
        unsafe { &*at.cast::<AtomicU16>() }.store(value.to_le(), Ordering::Release);
        Ok(())
    }

    /// Whether a whole page is zero (relaxed reads).
    ///
    /// # Errors
    /// [`NotRam`] when the page does not lie in RAM.
    pub fn page_is_zero(&self, gpa: u64) -> Result<bool, NotRam> {
        let page = Cells { at: self.page_ptr(gpa)?, len: PAGE_LEN, ram: PhantomData };
        Ok(page.split().1.iter().all(|word| word.load(Ordering::Relaxed) == 0))
    }

    /// One byte of RAM.
    ///
    /// # Errors
    /// [`NotRam`] when it does not lie in RAM.
    pub fn cell8(&self, gpa: u64) -> Result<&AtomicU8, NotRam> {
        let at = self.at(gpa, 1)?;
        // SAFETY: in range.
        Ok(unsafe { &*at.cast::<AtomicU8>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x8000_0000;

    fn ram(what: &str) -> GuestRam {
        let name = format!("/quasar-test-{}-ram-{what}", std::process::id());
        GuestRam::new(Arc::new(Segment::create(&name, SegmentKind::Ram, 8192, 1).expect("segment")), BASE)
    }

    #[test]
    fn copies_of_every_alignment_and_length_touch_their_bytes_alone() {
        let ram = ram("copies");
        for start in 0..9 {
            for len in (0..40).chain([4096, 8192 - 9]) {
                let gpa = BASE + start;
                let bytes: Vec<u8> = (1..=255).cycle().take(len).collect();
                ram.fill(BASE, 0, 8192).expect("all of it");
                ram.write(gpa, &bytes).expect("inside");
                let mut all = vec![0xaa; 8192];
                ram.read(BASE, &mut all).expect("all of it");
                let (before, rest) = all.split_at(usize::try_from(start).expect("small"));
                let (written, after) = rest.split_at(bytes.len());
                assert_eq!(written, bytes, "start {start}, {len} bytes");
                assert!(before.iter().chain(after).all(|byte| *byte == 0), "start {start}, {len} bytes");
                let mut back = vec![0; bytes.len()];
                ram.read(gpa, &mut back).expect("inside");
                assert_eq!(back, bytes, "start {start}, {len} bytes");
                ram.fill(gpa, 0, bytes.len() as u64).expect("inside");
                assert_eq!((ram.page_is_zero(BASE), ram.page_is_zero(BASE + 4096)), (Ok(true), Ok(true)));
            }
        }
        assert!(ram.write(BASE + 8190, &[0; 3]).is_err() && ram.read(BASE - 1, &mut [0; 2]).is_err());
        assert!(ram.fill(BASE + 1, 0, 8192).is_err());
    }

    /// What copies promise to rings and page tables: an aligned word is old or new, never half of each.
    #[test]
    fn aligned_words_do_not_tear_in_copies() {
        let ram = ram("tear");
        let writer = ram.clone();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let writing = std::thread::spawn(move || {
            let patterns = [[0x00_u8; 256], [0xff; 256]];
            for pattern in patterns.iter().cycle().take_while(|_| !told.load(Ordering::Relaxed)) {
                writer.write(BASE, pattern).expect("inside");
            }
        });
        let mut bytes = [0; 256];
        for _ in 0..100_000 {
            ram.read(BASE, &mut bytes).expect("inside");
            let words = bytes.as_chunks::<8>().0;
            assert!(
                words.iter().all(|word| [0, u64::MAX].contains(&u64::from_ne_bytes(*word))),
                "{bytes:x?}"
            );
        }
        stop.store(true, Ordering::Relaxed);
        writing.join().expect("the writer");
    }
}
