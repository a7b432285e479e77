//! Dirty and residency maps, and the epoch that closes a round.
//!
//! Two bitmaps of one bit per guest page; the epoch's lowest bit says into which one writers mark. A
//! round is closed in this order, and no other loses nothing:
//! 1. the collector adds 1 to the epoch and calls every party;
//! 2. every running party drops its writable translations (or finishes its write), then acknowledges;
//!    a parked party has none and acknowledges when it goes on;
//! 3. only then the collector drains the previous map and copies the pages.
//!
//! While [`crate::vm::VmControl::log_active`] is zero nobody marks. Switching it on is the first step of
//! a first round, followed by 1 and 2, after which every write is marked.

#[cfg(not(loom))]
use crate::grants::Grant;
use crate::le::AtomicLe64;
use crate::page::PAGE_SHIFT;
#[cfg(not(loom))]
use crate::segment::SegmentKind;
use crate::segment::{Segment, SegmentError};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Words of 64 pages that a map of `ram_bytes` needs.
#[must_use]
pub const fn map_words(ram_bytes: u64) -> u64 {
    (ram_bytes >> PAGE_SHIFT).div_ceil(64)
}

/// Payload bytes of the maps segment: two dirty maps and the residency map.
#[must_use]
pub const fn maps_bytes(ram_bytes: u64) -> u64 {
    map_words(ram_bytes) * 8 * 3
}

/// The maps of a VM as attached by this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PageMaps {
    segment: Arc<Segment>,
    ram_base: u64,
    pages: u64,
    words: usize,
}

impl PageMaps {
    /// Attaches to the maps segment of a VM with `ram_bytes` of RAM at `ram_base`.
    ///
    /// # Errors
    /// [`SegmentError`] when the segment is not there or too small.
    #[cfg(not(loom))]
    pub fn attach(grant: &Grant, ram_base: u64, ram_bytes: u64) -> Result<Self, SegmentError> {
        Self::new(Arc::new(Segment::attach(grant, SegmentKind::Maps)?), ram_base, ram_bytes)
    }

    /// Takes an attached or created segment.
    ///
    /// # Errors
    /// [`SegmentError::Range`] when it is too small for the RAM.
    pub fn new(segment: Arc<Segment>, ram_base: u64, ram_bytes: u64) -> Result<Self, SegmentError> {
        let words = usize::try_from(map_words(ram_bytes)).unwrap_or(usize::MAX);
        segment.slice::<AtomicLe64>(0, words.saturating_mul(3))?;
        Ok(Self { segment, ram_base, pages: ram_bytes >> PAGE_SHIFT, words })
    }

    fn map(&self, index: usize) -> &[AtomicLe64] {
        // The length was checked when the maps were taken, and a mapping does not shrink.
        self.segment.slice(index * self.words * 8, self.words).unwrap_or(&[])
    }

    fn page_of(&self, gpa: u64) -> Option<u64> {
        let page = gpa.checked_sub(self.ram_base)? >> PAGE_SHIFT;
        (page < self.pages).then_some(page)
    }

    fn cell(&self, index: usize, page: u64) -> Option<(&AtomicLe64, u64)> {
        self.map(index).get((page / 64) as usize).map(|cell| (cell, 1 << (page % 64)))
    }

    /// Marks the pages of `[gpa, gpa + len)` as dirty in `epoch`. Idempotent. Ranges outside RAM are ignored.
    /// Returns how many were not marked.
    pub fn mark(&self, epoch: u64, gpa: u64, len: u64) -> u64 {
        let Some(first) = self.page_of(gpa).filter(|_| len != 0) else { return 0 };
        let mut marked = 0;
        let last = ((gpa - self.ram_base + (len - 1)) >> PAGE_SHIFT).min(self.pages - 1);
        for page in first..=last {
            if let Some((cell, bit)) = self.cell(usize::from(epoch & 1 != 0), page)
                && cell.get() & bit == 0
            {
                cell.fetch_or(bit, Ordering::AcqRel);
                marked += 1;
            }
        }
        marked
    }

    /// Whether the page of `gpa` is marked in `epoch`.
    #[must_use]
    pub fn is_dirty(&self, epoch: u64, gpa: u64) -> bool {
        self.page_of(gpa)
            .and_then(|page| self.cell(usize::from(epoch & 1 != 0), page))
            .is_some_and(|(cell, bit)| cell.load(Ordering::Acquire) & bit != 0)
    }

    /// Takes and clears the map of a closed epoch: calls `page` with each marked page's guest-physical
    /// address, in order. Only after every party has acknowledged a later epoch.
    pub fn drain(&self, epoch: u64, mut page: impl FnMut(u64)) {
        for (word, cell) in self.map(usize::from(epoch & 1 != 0)).iter().enumerate() {
            let mut bits = if cell.get() == 0 { 0 } else { cell.swap(0, Ordering::AcqRel) };
            while bits != 0 {
                let index = word as u64 * 64 + u64::from(bits.trailing_zeros());
                page(self.ram_base + (index << PAGE_SHIFT));
                bits &= bits - 1;
            }
        }
    }

    /// How many pages are marked in `epoch` now.
    #[must_use]
    pub fn count(&self, epoch: u64) -> u64 {
        self.map(usize::from(epoch & 1 != 0)).iter().map(|cell| u64::from(cell.get().count_ones())).sum()
    }

    /// Whether the page of `gpa` is here. Meaningful while `residency_active` is set; every page is here otherwise.
    #[must_use]
    pub fn is_resident(&self, gpa: u64) -> bool {
        self.page_of(gpa)
            .and_then(|page| self.cell(2, page))
            .is_some_and(|(cell, bit)| cell.load(Ordering::Acquire) & bit != 0)
    }

    /// Says that the page of `gpa` is here (after its bytes were written) or is not.
    pub fn set_resident(&self, gpa: u64, here: bool) {
        if let Some((cell, bit)) = self.page_of(gpa).and_then(|page| self.cell(2, page)) {
            if here {
                cell.fetch_or(bit, Ordering::AcqRel);
            } else {
                cell.fetch_and(!bit, Ordering::AcqRel);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn marks_are_kept_per_epoch_and_drained_once() {
        let name = format!("/quasar-test-{}-maps", std::process::id());
        let ram = 300 * 4096;
        let len = usize::try_from(maps_bytes(ram)).expect("small");
        let segment = Arc::new(Segment::create(&name, SegmentKind::Maps, len, 1).expect("create"));
        let maps = PageMaps::new(segment, 0x8000_0000, ram).expect("maps");
        maps.mark(4, 0x8000_0fff, 2);
        maps.mark(4, 0x8000_0000 + ram - 1, 100);
        maps.mark(5, 0x8000_5000, 1);
        maps.mark(5, 0x7fff_f000, 1);
        let mut seen = vec![];
        maps.drain(4, |gpa| seen.push(gpa));
        assert_eq!(seen, [0x8000_0000, 0x8000_1000, 0x8000_0000 + ram - 4096]);
        assert!(!maps.is_dirty(4, 0x8000_0000));
        assert!(maps.is_dirty(5, 0x8000_5fff));
        assert_eq!((maps.count(4), maps.count(5)), (0, 1));
    }
}
