//! Areas whose pages travel: guest RAM and disks.

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use quasar_abi::GuestRam;
use quasar_abi::dirty::PageMaps;
use quasar_abi::ram::{PAGE_BYTES, PAGE_LEN};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a segment's payload begins in its file.
const SEGMENT_HEADER: u64 = quasar_abi::segment::HEADER_BYTES as u64;

/// Pages by index from 0, with the maps that say which were written.
pub trait PageStore: Send + Sync {
    /// Number on the wire: 0 RAM, 1 + slot for a disk.
    fn area(&self) -> u8;
    /// Length in bytes.
    fn bytes(&self) -> u64;
    /// Copies neighbouring pages out, from this one on. Past the end of an area that is no multiple of a page, zeroes.
    ///
    /// # Errors
    /// When a page is outside or cannot be read.
    fn read(&self, first: u64, pages: &mut [u8]) -> std::io::Result<()>;
    /// Copies neighbouring pages in, from this one on.
    ///
    /// # Errors
    /// When a page is outside or cannot be written.
    fn write(&self, first: u64, pages: &[u8]) -> std::io::Result<()>;
    /// Takes the pages that were written in a closed epoch.
    fn drain(&self, epoch: u64, page: &mut dyn FnMut(u64));
    /// How many pages are marked in an epoch.
    fn dirty(&self, epoch: u64) -> u64;
    /// Ranges of pages that may hold something else than zeroes, in order.
    ///
    /// # Errors
    /// When the storage cannot be asked.
    fn populated(&self) -> std::io::Result<Vec<std::ops::Range<u64>>>;
    /// Makes what was written durable.
    ///
    /// # Errors
    /// When the storage reports one.
    fn sync(&self) -> std::io::Result<()>;
}

/// Ranges of pages with data, as the file system knows them: holes are zeroes and need not be read.
fn data_ranges(file: &File, skip_bytes: u64, bytes: u64) -> std::io::Result<Vec<std::ops::Range<u64>>> {
    let end = skip_bytes + bytes;
    let offset = |value: u64| i64::try_from(value).map_err(std::io::Error::other);
    let mut ranges: Vec<std::ops::Range<u64>> = vec![];
    let mut at = skip_bytes;
    while at < end {
        let data = match lseek(file, offset(at)?, Whence::SeekData) {
            Ok(data) => u64::try_from(data).map_err(std::io::Error::other)?,
            Err(Errno::ENXIO) => break,
            // A file system without the notion: everything may be data.
            Err(Errno::EINVAL) => at,
            Err(error) => return Err(error.into()),
        };
        if data >= end {
            break;
        }
        let hole = match lseek(file, offset(data)?, Whence::SeekHole) {
            Ok(hole) => u64::try_from(hole).map_err(std::io::Error::other)?,
            Err(_) => end,
        };
        let first = (data.max(skip_bytes) - skip_bytes) / PAGE_BYTES;
        let last = (hole.min(end) - skip_bytes).div_ceil(PAGE_BYTES);
        match ranges.last_mut() {
            Some(before) if before.end >= first => before.end = last,
            _ => ranges.push(first..last),
        }
        at = hole.max(data + 1);
    }
    Ok(ranges)
}

/// Guest RAM.
pub struct RamStore {
    ram: GuestRam,
    maps: PageMaps,
    /// The segment as a file: it knows of holes, and fresh memory is cheaper to fill through it than by page faults.
    file: File,
}

impl RamStore {
    /// RAM with its maps.
    ///
    /// # Errors
    /// When there is no descriptor for its file.
    pub fn new(ram: GuestRam, maps: PageMaps) -> std::io::Result<Self> {
        let file = ram.segment().file()?;
        Ok(Self { ram, maps, file })
    }

    fn offset(&self, first: u64, len: usize) -> std::io::Result<u64> {
        let inside = |offset: &u64| offset.checked_add(len as u64).is_some_and(|end| end <= self.ram.len());
        let offset = first.checked_mul(PAGE_BYTES).filter(inside);
        offset.ok_or_else(|| std::io::Error::other(format!("page {first} is not RAM")))
    }
}

impl PageStore for RamStore {
    fn area(&self) -> u8 {
        0
    }

    fn bytes(&self) -> u64 {
        self.ram.len()
    }

    fn read(&self, first: u64, pages: &mut [u8]) -> std::io::Result<()> {
        let gpa = self.ram.base() + self.offset(first, pages.len())?;
        self.ram.read(gpa, pages).map_err(std::io::Error::other)
    }

    fn write(&self, first: u64, pages: &[u8]) -> std::io::Result<()> {
        let offset = self.offset(first, pages.len())?;
        self.file.write_all_at(pages, SEGMENT_HEADER + offset)
    }

    fn drain(&self, epoch: u64, page: &mut dyn FnMut(u64)) {
        self.maps.drain(epoch, |gpa| page((gpa - self.ram.base()) / PAGE_BYTES));
    }

    fn dirty(&self, epoch: u64) -> u64 {
        self.maps.count(epoch)
    }

    fn populated(&self) -> std::io::Result<Vec<std::ops::Range<u64>>> {
        data_ranges(&self.file, SEGMENT_HEADER, self.ram.len())
    }

    fn sync(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A raw disk file.
pub struct DiskStore {
    area: u8,
    file: File,
    bytes: u64,
    maps: Option<PageMaps>,
}

impl DiskStore {
    /// Opens a disk of `bytes` bytes at virtio slot `slot`. Without `maps` it is written only.
    ///
    /// # Errors
    /// When the file cannot be opened, or is shorter than the disk.
    pub fn open(path: &Path, slot: u8, bytes: u64, maps: Option<PageMaps>) -> std::io::Result<Self> {
        let file = OpenOptions::new().read(true).write(maps.is_none()).open(path)?;
        if file.metadata()?.len() < bytes {
            return Err(std::io::Error::other(format!(
                "{} is shorter than its {bytes} bytes",
                path.display()
            )));
        }
        Ok(Self { area: slot + 1, file, bytes, maps })
    }

    /// Offset of these pages, and how many of their bytes are the disk's.
    fn span(&self, first: u64, len: usize) -> std::io::Result<(u64, usize)> {
        let pages = (len / PAGE_LEN) as u64;
        let last = first.checked_add(pages).filter(|end| *end <= self.bytes.div_ceil(PAGE_BYTES));
        let offset = last.and(first.checked_mul(PAGE_BYTES)).filter(|offset| *offset < self.bytes);
        let offset =
            offset.ok_or_else(|| std::io::Error::other(format!("block {first} is past the disk's end")))?;
        Ok((offset, usize::try_from(self.bytes - offset).map_or(len, |left| left.min(len))))
    }
}

impl PageStore for DiskStore {
    fn area(&self) -> u8 {
        self.area
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, first: u64, pages: &mut [u8]) -> std::io::Result<()> {
        let (offset, len) = self.span(first, pages.len())?;
        pages[len..].fill(0);
        self.file.read_exact_at(&mut pages[..len], offset)
    }

    fn write(&self, first: u64, pages: &[u8]) -> std::io::Result<()> {
        let (offset, len) = self.span(first, pages.len())?;
        self.file.write_all_at(&pages[..len], offset)
    }

    fn drain(&self, epoch: u64, page: &mut dyn FnMut(u64)) {
        if let Some(maps) = &self.maps {
            maps.drain(epoch, |offset| page(offset / PAGE_BYTES));
        }
    }

    fn dirty(&self, epoch: u64) -> u64 {
        self.maps.as_ref().map_or(0, |maps| maps.count(epoch))
    }

    fn populated(&self) -> std::io::Result<Vec<std::ops::Range<u64>>> {
        data_ranges(&self.file, 0, self.bytes)
    }

    fn sync(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_not_read_and_odd_lengths_are_padded() {
        let file = tempfile::NamedTempFile::new().expect("file");
        file.as_file().set_len((64 << 20) + 100).expect("length");
        file.as_file().write_all_at(&[1; 10], 32 << 20).expect("write");
        let disk = DiskStore::open(file.path(), 2, (64 << 20) + 100, None).expect("open");
        let populated = disk.populated().expect("ranges");
        let pages: u64 = populated.iter().map(|r| r.end - r.start).sum();
        assert!(populated.iter().any(|r| r.contains(&(32 << 8))), "{populated:?}");
        assert!(pages < 4096, "{populated:?}");
        let last = (64 << 20) / PAGE_BYTES;
        disk.write(last, &[9; 4096]).expect("write");
        let mut page = [7; 4096];
        disk.read(last, &mut page).expect("read");
        assert_eq!((&page[..100], page[100..].iter().all(|b| *b == 0)), (&[9; 100][..], true));
        let mut two = [7; 2 * 4096];
        disk.read(last - 1, &mut two).expect("read");
        assert_eq!((&two[..4096], &two[4096..]), (&[0; 4096][..], &page[..]));
        assert!(disk.read(last, &mut two).is_err());
        assert!(disk.read(last + 1, &mut page).is_err());
        assert!(disk.read(u64::MAX / 2, &mut page).is_err());
    }
}
