//! The hash of a VM's memory and state: what both sides of a migration compare at the switch, and what tells two
//! deterministic runs apart.
//!
//! Each page has a hash over its place and its bytes; zero pages have none. The hash of the memory is the
//! exclusive or of its pages' hashes, so that pages are hashed as they travel, by any thread in any order,
//! and the pause pays for the last ones alone.

use crate::ram::{PAGE_BYTES, PAGE_LEN};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A page's hash: 16 bytes of BLAKE3.
pub type PageHash = [u64; 2];

/// The hash of page `index` of `area` (0 RAM, 1 + slot for disks).
#[must_use]
pub fn page_hash(area: u8, index: u64, bytes: &[u8]) -> PageHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes).update(&[area]).update(&index.to_le_bytes());
    let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7, ..] = *hasher.finalize().as_bytes();
    [
        u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
        u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
    ]
}

/// The hashes of an area's pages, as they were last sent or received.
#[derive(Debug)]
pub struct AreaHashes {
    area: u8,
    pages: Vec<[AtomicU64; 2]>,
    /// Of all of them, kept up to date: a pause has no time to go through them.
    sum: [AtomicU64; 2],
}

impl AreaHashes {
    /// An area of `bytes` bytes, all zero.
    #[must_use]
    pub fn new(area: u8, bytes: u64) -> Self {
        let pages = usize::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(0);
        Self {
            area,
            pages: (0..pages).map(|_| <[AtomicU64; 2]>::default()).collect(),
            sum: Default::default(),
        }
    }

    /// An area that lies in a file from `offset` on and that nobody changes meanwhile. Holes stay holes.
    ///
    /// # Errors
    /// When the file cannot be read or is shorter.
    pub fn of_file(area: u8, file: &File, offset: u64, bytes: u64) -> std::io::Result<Self> {
        let hashes = Self::new(area, bytes);
        let mut chunk = vec![0; 256 * PAGE_LEN];
        let mut done = 0;
        while done < bytes {
            let len = usize::try_from(bytes - done).map_or(chunk.len(), |left| left.min(chunk.len()));
            // The last page of an odd length ends in zeroes.
            chunk[len..].fill(0);
            file.read_exact_at(&mut chunk[..len], offset + done)?;
            let pages = chunk.chunks_exact(PAGE_LEN).take(len.div_ceil(PAGE_LEN));
            for (index, page) in (done / PAGE_BYTES..).zip(pages) {
                if page.iter().any(|byte| *byte != 0) {
                    hashes.note(index, page);
                }
            }
            done += len as u64;
        }
        Ok(hashes)
    }

    /// The area's number.
    #[must_use]
    pub fn area(&self) -> u8 {
        self.area
    }

    fn set(&self, index: u64, hash: PageHash) {
        if let Some(cell) = usize::try_from(index).ok().and_then(|i| self.pages.get(i)) {
            for ((word, sum), new) in cell.iter().zip(&self.sum).zip(hash) {
                let old = word.swap(new, Ordering::Relaxed);
                if old != new {
                    sum.fetch_xor(old ^ new, Ordering::Relaxed);
                }
            }
        }
    }

    /// Notes a page's content. A page must not be noted by two threads at once.
    pub fn note(&self, index: u64, bytes: &[u8]) {
        self.set(index, page_hash(self.area, index, bytes));
    }

    /// Notes that a page is zero.
    pub fn note_zero(&self, index: u64) {
        self.set(index, [0, 0]);
    }

    /// Whether a page is zero as far as it was noted.
    #[must_use]
    pub fn is_zero(&self, index: u64) -> bool {
        let cell = usize::try_from(index).ok().and_then(|i| self.pages.get(i));
        cell.is_none_or(|page| page[0].load(Ordering::Relaxed) == 0 && page[1].load(Ordering::Relaxed) == 0)
    }

    /// The area's hash.
    #[must_use]
    pub fn sum(&self) -> PageHash {
        self.sum.each_ref().map(|word| word.load(Ordering::Relaxed))
    }
}

/// The number of RAM's area.
pub const RAM_AREA: u8 = 0;

/// The hash over all areas and state payloads, in their order.
#[must_use]
pub fn whole<'a>(
    areas: impl Iterator<Item = &'a AreaHashes>,
    payloads: impl Iterator<Item = &'a [u8]>,
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for area in areas {
        let sum = area.sum();
        hasher.update(&[area.area]).update(&sum[0].to_le_bytes()).update(&sum[1].to_le_bytes());
    }
    for payload in payloads {
        hasher.update(&(payload.len() as u64).to_le_bytes()).update(payload);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_stream_format() {
        let area = AreaHashes::new(0, 1 << 16);
        area.note(3, &[7; 4096]);
        assert_eq!(area.sum(), [0x1a08_1cfb_c24e_de02, 0xd6f1_42fd_2ba2_906b]);
        let hash = whole([&area].into_iter(), [&b"state"[..]].into_iter());
        area.note_zero(3);
        assert_eq!(area.sum(), [0, 0]);
        let text: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "017c7bcce9fe850106d05e49a7ea3dbbeb8b30cfa66e23581b728dfc52298652");
    }

    #[test]
    fn a_file_has_the_hash_of_its_pages() {
        let path = std::env::temp_dir().join(format!("quasar-test-{}-hash", std::process::id()));
        let bytes: Vec<u8> =
            (0..301 * 4096 + 5_u32).map(|i| (i / 4096 % 3 * (i % 251)).to_le_bytes()[0]).collect();
        std::fs::write(&path, [&[9; 100][..], &bytes].concat()).expect("a file");
        let file = File::open(&path).expect("the file");
        std::fs::remove_file(&path).expect("its name");
        let noted = AreaHashes::new(2, bytes.len() as u64);
        for (index, page) in (0..).zip(bytes.chunks(4096)) {
            let mut whole = [0; 4096];
            whole[..page.len()].copy_from_slice(page);
            if whole != [0; 4096] {
                noted.note(index, &whole);
            }
        }
        let read = AreaHashes::of_file(2, &file, 100, bytes.len() as u64).expect("readable");
        assert_eq!(read.sum(), noted.sum());
        assert!(read.is_zero(0) && !read.is_zero(301));
        assert!(AreaHashes::of_file(2, &file, 101, bytes.len() as u64).is_err(), "too short");
    }

    #[test]
    fn content_and_place_count_order_of_arrival_does_not() {
        let page = |byte| vec![byte; 4096];
        let (a, b, c) =
            (AreaHashes::new(0, 1 << 20), AreaHashes::new(0, 1 << 20), AreaHashes::new(0, 1 << 20));
        a.note(3, &page(1));
        a.note(5, &page(2));
        b.note(5, &page(9));
        b.note(5, &page(2));
        b.note(3, &page(1));
        b.note(7, &page(1));
        b.note_zero(7);
        c.note(5, &page(1));
        c.note(3, &page(2));
        assert_eq!(a.sum(), b.sum());
        assert_ne!(a.sum(), c.sum());
        let none: [&[u8]; 0] = [];
        assert_ne!(whole([&a].into_iter(), none.into_iter()), whole([&c].into_iter(), none.into_iter()));
        assert_ne!(
            whole([&a].into_iter(), [&b"ab"[..], &b"c"[..]].into_iter()),
            whole([&a].into_iter(), [&b"a"[..], &b"bc"[..]].into_iter())
        );
    }
}
