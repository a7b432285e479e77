//! L1: a hart's own direct-mapped translation cache, and the accesses that go through it.
//!
//! All of `mem`'s `unsafe` is here. An entry is put in only by [`L1::fill_data`], with the host address of
//! a whole page of RAM that `ram` keeps mapped; a lookup matches only an aligned access inside that page.

use quasar_abi::GuestRam;
use quasar_abi::le::{AtomicLe32, AtomicLe64, ShmLayout};
use quasar_abi::ram::PAGE_SHIFT;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Entries per table.
const SLOTS: usize = 4096;
const PAGE_MASK: u64 = !0xfff;

/// A context as it is put into tags: bits 3 to 11. Bits 0 to 2 stay zero, so that a misaligned address
/// never matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Context(pub u64);

impl Context {
    /// One more than the greatest context number.
    pub const COUNT: u64 = 512;

    pub const fn number(number: u64) -> Self {
        Self(number << 3)
    }
}

/// `tag` is the page's virtual address with the context. `to` is what added to a virtual address gives
/// the host address (data) or the guest-physical one (fetches). Zero tags match nothing: no context is 0.
#[derive(Clone, Copy)]
#[repr(C)]
struct Slot {
    tag: u64,
    to: u64,
}

const _: () = {
    assert!(size_of::<Slot>() == 16 && offset_of!(Slot, tag) == 0 && offset_of!(Slot, to) == 8);
    assert!(offset_of!(L1, read) == 0 && offset_of!(L1, write) == 8 && offset_of!(L1, fetch) == 16);
};

const EMPTY: Slot = Slot { tag: 0, to: 0 };

fn table() -> Box<[Slot; SLOTS]> {
    Box::new([EMPTY; SLOTS])
}

/// The three tables of a hart. A table is a pointer to [`SLOTS`] slots; generated code may look a page up as
/// [`L1::load`], [`L1::store`] and [`L1::fetch_gpa`] do.
#[repr(C)]
pub(super) struct L1 {
    read: Box<[Slot; SLOTS]>,
    write: Box<[Slot; SLOTS]>,
    fetch: Box<[Slot; SLOTS]>,
    ram: GuestRam,
    /// Host address of RAM's first byte.
    host_base: u64,
}

/// An access width. The conversions keep the bytes little-endian in memory.
pub trait Width {
    /// Bytes.
    const BYTES: u64;
    /// Loads the value at a host address.
    ///
    /// # Safety
    /// `at` is aligned to `BYTES` and inside mapped RAM.
    unsafe fn load(at: u64) -> u64;
    /// Stores the low bytes of `value` at a host address.
    ///
    /// # Safety
    /// As for `load`.
    unsafe fn store(at: u64, value: u64);
}

macro_rules! width {
    ($int:ty, $atomic:ty, $bytes:literal) => {
        impl Width for $int {
            const BYTES: u64 = $bytes;
            #[inline(always)]
            unsafe fn load(at: u64) -> u64 {
                let at = std::ptr::with_exposed_provenance::<$atomic>(at as usize);
                // SAFETY: aligned and mapped, says the caller; atomics may race with anyone.
                u64::from(<$int>::from_le(unsafe { &*at }.load(Ordering::Relaxed)))
            }
            #[inline(always)]
            unsafe fn store(at: u64, value: u64) {
                let at = std::ptr::with_exposed_provenance::<$atomic>(at as usize);
                // SAFETY: as above.
                unsafe { &*at }.store((value as $int).to_le(), Ordering::Relaxed);
            }
        }
    };
}
width!(u8, AtomicU8, 1);
width!(u16, AtomicU16, 2);
width!(u32, AtomicU32, 4);
width!(u64, AtomicU64, 8);

/// A width of which words are changed atomically.
pub trait Word: Width {
    /// Such a word in memory: an atomic of its size, without any padding.
    type Cell: ShmLayout;
}

impl Word for u32 {
    type Cell = AtomicLe32;
}

impl Word for u64 {
    type Cell = AtomicLe64;
}

#[inline(always)]
const fn index(va: u64) -> usize {
    (va >> PAGE_SHIFT) as usize & (SLOTS - 1)
}

impl L1 {
    pub fn new(ram: GuestRam) -> Self {
        let host_base = ram.page_ptr(ram.base()).map_or(0, |p| p.expose_provenance() as u64);
        Self { read: table(), write: table(), fetch: table(), ram, host_base }
    }

    /// An aligned load, when its page is known to be readable.
    #[inline(always)]
    pub fn load<W: Width>(&self, context: Context, va: u64) -> Option<u64> {
        let slot = &self.read[index(va)];
        if slot.tag == va & (PAGE_MASK | (W::BYTES - 1)) | context.0 {
            // SAFETY: the tag matches, so the page is mapped RAM at `to` and the address is aligned.
            Some(unsafe { W::load(va.wrapping_add(slot.to)) })
        } else {
            None
        }
    }

    /// An aligned store, when its page is known to be writable. Returns whether it was done.
    #[inline(always)]
    pub fn store<W: Width>(&self, context: Context, va: u64, value: u64) -> bool {
        let slot = &self.write[index(va)];
        let hit = slot.tag == va & (PAGE_MASK | (W::BYTES - 1)) | context.0;
        if hit {
            // SAFETY: as for `load`.
            unsafe { W::store(va.wrapping_add(slot.to), value) };
        }
        hit
    }

    /// An aligned word, when its page is known to be writable.
    #[inline(always)]
    pub fn cell<W: Word>(&self, context: Context, va: u64) -> Option<&W::Cell> {
        const { assert!(size_of::<W::Cell>() as u64 == W::BYTES && align_of::<W::Cell>() as u64 == W::BYTES) };
        let slot = &self.write[index(va)];
        (slot.tag == va & (PAGE_MASK | (W::BYTES - 1)) | context.0).then(|| {
            let at = std::ptr::with_exposed_provenance::<W::Cell>(va.wrapping_add(slot.to) as usize);
            // SAFETY: as for `load`; every value of its bytes is one of the type, which is atomic, and `ram` keeps it mapped.
            unsafe { &*at }
        })
    }

    /// The guest-physical address of `va` when its page is known to be readable (or writable).
    #[inline]
    pub fn data_gpa(&self, context: Context, va: u64, write: bool) -> Option<u64> {
        let slot = if write { &self.write[index(va)] } else { &self.read[index(va)] };
        (slot.tag == va & PAGE_MASK | context.0)
            .then(|| va.wrapping_add(slot.to).wrapping_sub(self.host_base).wrapping_add(self.ram.base()))
    }

    /// The guest-physical address of `va` when its page is known to be executable.
    #[inline]
    pub fn fetch_gpa(&self, context: Context, va: u64) -> Option<u64> {
        let slot = &self.fetch[index(va)];
        (slot.tag == va & PAGE_MASK | context.0).then(|| va.wrapping_add(slot.to))
    }

    /// Enters a page of RAM into the table of loads or of stores. Other pages are left out.
    pub fn fill_data(&mut self, context: Context, va: u64, gpa: u64, write: bool) {
        let Ok(host) = self.ram.page_ptr(gpa) else { return };
        let host = host.expose_provenance() as u64;
        let page = va & PAGE_MASK;
        let slot = Slot { tag: page | context.0, to: host.wrapping_sub(page) };
        let table = if write { &mut self.write } else { &mut self.read };
        table[index(va)] = slot;
    }

    /// Enters a page into the table of fetches.
    pub fn fill_fetch(&mut self, context: Context, va: u64, gpa: u64) {
        let page = va & PAGE_MASK;
        self.fetch[index(va)] = Slot { tag: page | context.0, to: (gpa & PAGE_MASK).wrapping_sub(page) };
    }

    /// Drops whatever lies in the slots of `va`.
    pub fn drop_page(&mut self, va: u64) {
        for table in [&mut self.read, &mut self.write, &mut self.fetch] {
            table[index(va)] = EMPTY;
        }
    }

    /// Drops what may be written.
    pub fn wipe_writes(&mut self) {
        self.write.fill(EMPTY);
    }

    /// Drops everything.
    pub fn wipe(&mut self) {
        for table in [&mut self.read, &mut self.write, &mut self.fetch] {
            table.fill(EMPTY);
        }
    }
}
