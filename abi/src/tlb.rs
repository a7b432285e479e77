//! L2: each hart's translation cache in shared memory.
//!
//! Filled by the mmu process, and only while the hart waits for it; probed and flushed by the hart, and
//! only while it does not wait; a hart that gave up waiting takes the answer before it does anything else.
//! So one side at a time touches a hart's cache, ordered by the mailbox, and
//! no entry needs a lock. A flush is a generation; clearing memory is never needed.

use crate::le::AtomicLe64;
use crate::party::MAX_HARTS;
use crate::shm_struct;
use std::sync::atomic::Ordering;

/// Sets of 4 KiB entries per hart: what programs that fill 128 MiB use is found without a question. Memory is taken
/// for those alone that are used.
pub const SMALL_SETS: usize = if cfg!(loom) { 1 } else { 8192 };
/// Sets of large entries per hart.
pub const LARGE_SETS: usize = if cfg!(loom) { 1 } else { 64 };
/// Entries per set.
pub const WAYS: usize = if cfg!(loom) { 1 } else { 4 };
/// ASID generations kept; ASIDs share a slot when they are equal modulo this.
pub const ASID_SLOTS: usize = if cfg!(loom) { 1 } else { 256 };

/// Access rights and attributes in [`TlbEntry::gpa_flags`]. Bits 1 to 7 are those of the PTE
/// (RISC-V Privileged 1.13, 12.3.1).
pub mod flag {
    /// Readable.
    pub const R: u64 = 1 << 1;
    /// Writable.
    pub const W: u64 = 1 << 2;
    /// Executable.
    pub const X: u64 = 1 << 3;
    /// User page.
    pub const U: u64 = 1 << 4;
    /// Global mapping.
    pub const G: u64 = 1 << 5;
    /// The PTE's A bit is set.
    pub const A: u64 = 1 << 6;
    /// The PTE's D bit is set.
    pub const D: u64 = 1 << 7;
    /// PMP grants reads of the whole page at the privilege that asked.
    pub const PMP_R: u64 = 1 << 8;
    /// PMP grants writes of the whole page.
    pub const PMP_W: u64 = 1 << 9;
    /// PMP grants fetches from the whole page.
    pub const PMP_X: u64 = 1 << 10;
    /// All of the low bits above.
    pub const MASK: u64 = 0xfff;
    /// Not RAM: accesses go to the devices process.
    pub const IO: u64 = 1 << 63;
    /// The guest-physical page address.
    pub const GPA: u64 = 0x00ff_ffff_ffff_f000;
}

/// Values of `space` that are not a guest's satp.
pub mod space {
    /// S- or U-mode with satp in Bare mode.
    pub const BARE: u64 = 0;
    /// M-mode without MPRV: no translation, machine PMP rules.
    pub const MACHINE: u64 = 1 << 59;
}

/// What an access is, as requests carry it.
pub mod access {
    /// Load.
    pub const READ: u64 = 0;
    /// Store or AMO.
    pub const WRITE: u64 = 1;
    /// Instruction fetch.
    pub const FETCH: u64 = 2;
}

shm_struct! {
    /// One translation.
    pub struct TlbEntry: 32 => {
        /// First virtual address of the page | level (0 4 KiB, 1 2 MiB, 2 1 GiB, 3 512 GiB) | 0x800 when valid.
        pub tag: AtomicLe64,
        /// The satp under which it holds, or a value of [`space`].
        pub space: AtomicLe64,
        /// First guest-physical address of the page and [`flag`]s.
        pub gpa_flags: AtomicLe64,
        /// Global generation << 32 | ASID-slot generation at the time of the walk.
        pub generation: AtomicLe64,
    }
}

/// Marks a tag as valid.
pub const TAG_VALID: u64 = 0x800;

shm_struct! {
    /// One hart's cache.
    pub struct HartTlb: 1_058_880 => {
        /// Global generation (low 32 bits count): the hart adds 1 to drop everything.
        pub generation: AtomicLe64,
        /// Next way to replace; kept by the mmu.
        pub victim: AtomicLe64,
        /// Entries of level 2 and above ever filled since the last global flush: 0 spares the hart their probe.
        pub huge_filled: AtomicLe64,
        /// Entries ever filled, since the last global flush, that cover but a part of their superpage: then a
        /// page flush cannot find all of a superpage's entries and drops everything. Kept by the mmu.
        pub fractured: AtomicLe64,
        /// Zero.
        pub reserved: [AtomicLe64; 4],
        /// Generation per ASID slot (low 32 bits count). Global entries use none of them.
        pub asid_generation: [AtomicLe64; ASID_SLOTS],
        /// 4 KiB pages, set by page number.
        pub small: [[TlbEntry; WAYS]; SMALL_SETS],
        /// Larger pages, set by 2 MiB or 1 GiB number (level 3 by 1 GiB number too).
        pub large: [[TlbEntry; WAYS]; LARGE_SETS],
    }
}

/// Payload bytes of the segment for all harts.
pub const TLB_SEGMENT_BYTES: usize = size_of::<HartTlb>() * MAX_HARTS;

/// log2 of a level's page size.
#[inline]
#[must_use]
pub const fn level_shift(level: u32) -> u32 {
    12 + 9 * level
}

/// The set of `va`'s 4 KiB page.
#[inline]
#[must_use]
pub const fn small_set(va: u64) -> usize {
    let set = (va >> 12) as usize;
    set & (SMALL_SETS - 1)
}

/// The set of `va`'s page at a level above 0.
#[inline]
#[must_use]
pub const fn large_set(va: u64, level: u32) -> usize {
    let shift = if level == 1 { 21 } else { 30 };
    #[expect(clippy::cast_possible_truncation, reason = "masked to the number of sets")]
    let set = (va >> shift) as usize;
    set & (LARGE_SETS - 1)
}

/// The tag of `va`'s page at a level.
#[inline]
#[must_use]
pub const fn tag(va: u64, level: u32) -> u64 {
    (va >> level_shift(level) << level_shift(level)) | level as u64 | TAG_VALID
}

/// The ASID of a satp value (RISC-V Privileged 1.13, 12.1.11).
#[inline]
#[must_use]
pub const fn asid(satp: u64) -> u64 {
    (satp >> 44) & 0xffff
}

impl TlbEntry {
    /// The stores that fill an entry, in order: it has no tag while its other words change, so that
    /// whoever is killed between two of them leaves no entry that mixes two pages.
    const fn stores(&self, tag: u64, space: u64, gpa_flags: u64, generation: u64) -> [(&AtomicLe64, u64); 5] {
        [
            (&self.tag, 0),
            (&self.space, space),
            (&self.gpa_flags, gpa_flags),
            (&self.generation, generation),
            (&self.tag, tag),
        ]
    }
}

impl HartTlb {
    /// The generation word an entry must carry to be valid now. Global entries survive ASID flushes.
    #[inline]
    #[must_use]
    pub fn generation_word(&self, space: u64, flags: u64) -> u64 {
        let low = if flags & flag::G != 0 {
            0
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "reduced modulo the table's length")]
            let slot = asid(space) as usize % ASID_SLOTS;
            self.asid_generation[slot].get() & 0xffff_ffff
        };
        (self.generation.get() << 32) | low
    }

    fn entry_matches(&self, entry: &TlbEntry, tag: u64, space: u64) -> Option<u64> {
        if entry.tag.get() != tag {
            return None;
        }
        let flags = entry.gpa_flags.get();
        let found = entry.space.get();
        let same_space = found == space || (flags & flag::G != 0 && found >> 60 == space >> 60);
        (same_space && entry.generation.get() == self.generation_word(space, flags)).then_some(flags)
    }

    /// Finds `va` under `space`: the `gpa_flags` of its 4 KiB page (a large page is narrowed to it).
    ///
    /// `wanted` are flag bits that the entry must have all of (for example [`flag::D`]); an
    /// entry without them is passed over, because a narrower one may have them.
    #[must_use]
    pub fn probe(&self, va: u64, space: u64, wanted: u64) -> Option<u64> {
        let small = tag(va, 0);
        for entry in &self.small[small_set(va)] {
            if let Some(flags) = self.entry_matches(entry, small, space)
                && flags & wanted == wanted
            {
                return Some(flags);
            }
        }
        let top = if self.huge_filled.get() == 0 { 1 } else { 3 };
        for level in 1..=top {
            let large = tag(va, level);
            for entry in &self.large[large_set(va, level)] {
                if let Some(flags) = self.entry_matches(entry, large, space)
                    && flags & wanted == wanted
                {
                    let inside = va & ((1 << level_shift(level)) - 1) & flag::GPA;
                    return Some(flags + inside);
                }
            }
        }
        None
    }

    /// mmu: puts a translation in, replacing one of the same page, an outdated one, or the next victim.
    ///
    /// `generation` is [`HartTlb::generation_word`] read before the walk.
    ///
    /// A mmu process killed in the middle leaves the entry without a tag ([`TlbEntry::stores`]).
    pub fn fill(&self, va: u64, level: u32, space: u64, gpa_flags: u64, generation: u64) {
        let tag = tag(va, level);
        let set = if level == 0 { &self.small[small_set(va)] } else { &self.large[large_set(va, level)] };
        let same =
            set.iter().find(|e| e.tag.get() == tag && (e.space.get() == space || gpa_flags & flag::G != 0));
        let entry = same
            .or_else(|| set.iter().find(|e| e.tag.get() == 0))
            .or_else(|| set.iter().find(|e| e.generation.get() >> 32 != generation >> 32))
            .unwrap_or_else(|| {
                let way = self.victim.get();
                self.victim.set(way.wrapping_add(1));
                #[expect(clippy::cast_possible_truncation, reason = "reduced modulo the ways")]
                let way = way as usize % WAYS;
                &set[way]
            });
        if level > 1 {
            self.huge_filled.bump(1);
        }
        for (cell, value) in entry.stores(tag, space, gpa_flags, generation) {
            cell.store(value, Ordering::Release);
        }
    }

    /// mmu: says that an entry about to be filled covers but a part of the guest's superpage.
    pub fn note_fractured(&self) {
        self.fractured.bump(1);
    }

    /// Hart: drops everything.
    ///
    /// Release: who reads the new generation sees what the hart had seen before, the epoch among it.
    pub fn flush_all(&self) {
        self.generation.store(self.generation.get().wrapping_add(1) & 0xffff_ffff, Ordering::Release);
        self.huge_filled.set(0);
        self.fractured.set(0);
    }

    /// Hart: drops the non-global translations of an ASID (and of those that share its slot).
    pub fn flush_asid(&self, asid: u64) {
        #[expect(clippy::cast_possible_truncation, reason = "reduced modulo the table's length")]
        let cell = &self.asid_generation[asid as usize % ASID_SLOTS];
        cell.store(cell.get().wrapping_add(1) & 0xffff_ffff, Ordering::Release);
    }

    /// Hart: drops what translates `va`, in every address space and at every level.
    ///
    /// Any address of a superpage drops all of it (RISC-V Privileged 1.13, 12.2.1). A superpage that was
    /// filled in parts is found only by dropping everything. An engine's own cache of 4 KiB pages has the
    /// same duty.
    pub fn flush_page(&self, va: u64) {
        if self.fractured.get() != 0 {
            return self.flush_all();
        }
        for entry in &self.small[small_set(va)] {
            if entry.tag.get() == tag(va, 0) {
                entry.tag.set(0);
            }
        }
        for level in 1..=3 {
            for entry in &self.large[large_set(va, level)] {
                if entry.tag.get() == tag(va, level) {
                    entry.tag.set(0);
                }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::segment::{Segment, SegmentKind};

    const SV39: u64 = 8 << 60;

    fn cache(test: &str) -> Segment {
        let name = format!("/quasar-test-{}-tlb-{test}", std::process::id());
        Segment::create(&name, SegmentKind::Tlb, size_of::<HartTlb>(), 1).expect("create")
    }

    fn put(tlb: &HartTlb, va: u64, level: u32, space: u64, gpa_flags: u64) {
        tlb.fill(va, level, space, gpa_flags, tlb.generation_word(space, gpa_flags));
    }

    #[test]
    fn a_large_entry_is_narrowed_and_a_narrower_one_goes_first() {
        let segment = cache("narrow");
        let tlb: &HartTlb = segment.view(0).expect("view");
        put(tlb, 0x4000_0000, 1, SV39, 0x8020_0000 | flag::R);
        assert_eq!(tlb.probe(0x4000_5123, SV39, 0), Some(0x8020_5000 | flag::R));
        assert_eq!(tlb.probe(0x4000_5123, SV39, flag::D), None);
        put(tlb, 0x4000_5000, 0, SV39, 0x8020_5000 | flag::R | flag::D);
        assert!(tlb.probe(0x4000_5123, SV39, flag::D).is_some());
        assert_eq!(tlb.probe(0x4000_5123, SV39 | 1, 0), None, "another root");
    }

    #[test]
    fn global_entries_outlive_their_asid_and_serve_every_space_of_their_mode() {
        let segment = cache("global");
        let tlb: &HartTlb = segment.view(0).expect("view");
        let space = SV39 | (7 << 44);
        put(tlb, 0x1000, 0, space, 0x8000_1000 | flag::R);
        put(tlb, 0x2000, 0, space, 0x8000_2000 | flag::R | flag::G);
        tlb.flush_asid(7);
        assert_eq!(tlb.probe(0x1000, space, 0), None);
        assert!(tlb.probe(0x2000, SV39 | (9 << 44) | 5, 0).is_some());
        assert_eq!(tlb.probe(0x2000, 9 << 60, 0), None, "Sv48 is another mode");
        tlb.flush_all();
        assert_eq!(tlb.probe(0x2000, space, 0), None);
    }

    #[test]
    fn a_fill_cut_short_anywhere_translates_nothing_wrongly() {
        let segment = cache("cut");
        let tlb: &HartTlb = segment.view(0).expect("view");
        let (old, new) = (0x1000, 0x1000 + ((SMALL_SETS as u64) << 12));
        for cut in 0..=5 {
            let entry = &tlb.small[small_set(old)][0];
            let generation = tlb.generation_word(SV39, 0);
            for (cell, value) in entry.stores(tag(old, 0), SV39, 0x8000_1000 | flag::R, generation) {
                cell.set(value);
            }
            let stores = entry.stores(tag(new, 0), SV39, 0x8000_2000 | flag::R, generation);
            for (cell, value) in stores.into_iter().take(cut) {
                cell.set(value);
            }
            let (of_old, of_new) = (tlb.probe(old, SV39, 0), tlb.probe(new, SV39, 0));
            assert!(matches!(of_old, None | Some(0x8000_1002)), "{cut} stores: {of_old:x?}");
            assert!(matches!(of_new, None | Some(0x8000_2002)), "{cut} stores: {of_new:x?}");
            assert_eq!(of_new.is_some(), cut == 5);
        }
    }

    #[test]
    fn a_page_flush_finds_all_parts_of_a_superpage() {
        let segment = cache("parts");
        let tlb: &HartTlb = segment.view(0).expect("view");
        put(tlb, 0x9000, 0, SV39, 0x8000_9000 | flag::R);
        put(tlb, 0x4000_0000, 1, SV39, 0x8020_0000 | flag::R);
        tlb.flush_page(0x4012_3000);
        assert_eq!(tlb.probe(0x4000_0000, SV39, 0), None, "any address drops the large entry");
        assert!(tlb.probe(0x9000, SV39, 0).is_some(), "and nothing else");
        for part in [0x4000_1000, 0x4000_2000] {
            tlb.note_fractured();
            put(tlb, part, 0, SV39, 0x8020_0000 | flag::R);
        }
        tlb.flush_page(0x4000_1000);
        assert_eq!(tlb.probe(0x4000_2000, SV39, 0), None);
        assert_eq!(tlb.fractured.get(), 0);
    }

    #[test]
    fn free_and_outdated_ways_are_used_before_one_that_serves() {
        let segment = cache("ways");
        let tlb: &HartTlb = segment.view(0).expect("view");
        let page = |n: u64| 0x1000 + n * ((SMALL_SETS as u64) << 12);
        for n in 0..4 {
            put(tlb, page(n), 0, SV39, flag::R);
        }
        tlb.flush_page(page(2));
        put(tlb, page(4), 0, SV39, flag::R);
        for n in [0, 1, 3, 4] {
            assert!(tlb.probe(page(n), SV39, 0).is_some(), "page {n} was replaced without need");
        }
    }
}
