//! Guest RAM: volatile and atomic access by guest-physical address.

use crate::le::AtomicLe32;
use crate::le::AtomicLe64;
pub use crate::page::{PAGE_BYTES, PAGE_LEN, PAGE_SHIFT};
use crate::segment::{Segment, SegmentError, SegmentKind};
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
/// Accesses race with other processes by design. Byte copies are volatile and may tear; aligned
/// accesses of 1, 2, 4 and 8 bytes are single-copy atomic, as the guest's memory model demands.
#[derive(Clone, Debug)]
pub struct GuestRam {
    segment: Arc<Segment>,
    base: u64,
    len: u64,
}

impl GuestRam {
    /// Attaches to the RAM segment `name` whose first byte has the guest-physical address `base`.
    ///
    /// # Errors
    /// See [`Segment::attach`].
    pub fn attach(name: &str, base: u64) -> Result<Self, SegmentError> {
        Ok(Self::new(Arc::new(Segment::attach(name, SegmentKind::Ram)?), base))
    }

    /// Takes a RAM segment whose first byte has the guest-physical address `base`.
    #[must_use]
    pub fn new(segment: Arc<Segment>, base: u64) -> Self {
        let len = segment.len() as u64;
        Self { segment, base, len }
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
    /// lives; accesses through it must be atomic or volatile, in little-endian order.
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
        let from = self.at(gpa, out.len() as u64)?;
        // SAFETY: source in range; the destination is ours and disjoint. Racing writers are other processes
        // (or threads through this same raw mapping), never Rust references.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// Copies bytes into guest memory.
    ///
    /// # Errors
    /// [`NotRam`] when the range does not lie in RAM.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), NotRam> {
        let to = self.at(gpa, bytes.len() as u64)?;
        // SAFETY: destination in range; the source is ours and disjoint; see `read`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// Fills a range with one byte.
    ///
    /// # Errors
    /// [`NotRam`] when the range does not lie in RAM.
    pub fn fill(&self, gpa: u64, byte: u8, len: u64) -> Result<(), NotRam> {
        let to = self.at(gpa, len)?;
        // SAFETY: in range; see `read`.
        unsafe { std::ptr::write_bytes(to, byte, usize::try_from(len).unwrap_or(0)) };
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
        let page = self.page_ptr(gpa)?;
        let mut words = 0..(PAGE_BYTES / 8);
        #[expect(clippy::cast_possible_truncation, reason = "below 512")]
        // SAFETY: 512 aligned words inside the page.
        let zero =
            words.all(|i| unsafe { &*page.cast::<AtomicU64>().add(i as usize) }.load(Ordering::Relaxed) == 0);
        Ok(zero)
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
