//! The file behind a disk: the one place through which its bytes are read and written.

use super::config::SECTOR;
use super::lock;
use crate::error::DevicesError;
use nix::errno::Errno;
use nix::fcntl::FallocateFlags;
use nix::sys::statvfs::fstatvfs;
use quasar_abi::Grant;
use quasar_abi::dirty::PageMaps;
use quasar_abi::eintr::fallocate;
use quasar_abi::files::{self, Access, UserFile};
use quasar_abi::ram::PAGE_BYTES;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes for which room is looked for at a time.
const PROBE_BYTES: u64 = 1 << 20;

/// A raw disk image, locked: any number of readers, or one writer. The lock goes with the process.
#[derive(Debug)]
pub struct Backing {
    file: File,
    /// The VM comes from another host, which has the lock until it has let go.
    owed: AtomicBool,
    path: PathBuf,
    read_only: bool,
    bytes: u64,
    /// Where writes are marked while they are logged; nothing for a disk that stays where it is.
    maps: Option<PageMaps>,
}

impl Backing {
    /// Opens and locks the file, and attaches to its dirty maps when there are some. A VM that is `arriving` from
    /// another host on a shared disk finds it locked by that host still: it owes itself the lock then
    /// ([`Backing::own`]).
    ///
    /// # Errors
    /// [`DevicesError::Disk`], [`DevicesError::DiskInUse`], [`DevicesError::Segment`].
    pub fn open(
        path: &Path,
        read_only: bool,
        maps: Option<&Grant>,
        arriving: bool,
    ) -> Result<Self, DevicesError> {
        let failed = |what| move |source| DevicesError::Disk { path: path.to_owned(), what, source };
        let access = if read_only { Access::Read } else { Access::Write };
        let UserFile { file, bytes: end } = files::open(path, access).map_err(failed("cannot be opened"))?;
        let owed = match lock::take(&file, read_only) {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) if arriving => true,
            Err(TryLockError::WouldBlock) => {
                return Err(DevicesError::DiskInUse { path: path.to_owned(), read_only });
            }
            Err(TryLockError::Error(error)) => return Err(failed("cannot be locked")(error)),
        };
        let bytes = end / SECTOR * SECTOR;
        let maps = maps.map(|maps| PageMaps::attach(maps, 0, bytes.next_multiple_of(PAGE_BYTES)));
        let owed = AtomicBool::new(owed);
        Ok(Self { file, owed, path: path.to_owned(), read_only, bytes, maps: maps.transpose()? })
    }

    /// Whether the file is this VM's: takes the lock if it is owed and can be had now.
    ///
    /// # Errors
    /// What the system says.
    pub fn own(&self) -> io::Result<bool> {
        if !self.owed.load(Ordering::Relaxed) {
            return Ok(true);
        }
        match lock::take(&self.file, self.read_only) {
            Ok(()) => {
                self.owed.store(false, Ordering::Relaxed);
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether writes are refused.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Where writes are marked, if anywhere.
    #[must_use]
    pub fn maps(&self) -> Option<&PageMaps> {
        self.maps.as_ref()
    }

    /// Whole sectors in the file.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.bytes / SECTOR
    }

    /// Whether `[offset, offset + len)` lies on the disk.
    #[must_use]
    pub fn contains(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.bytes)
    }

    /// An error about this file.
    #[must_use]
    pub fn error(&self, what: &'static str, source: io::Error) -> DevicesError {
        DevicesError::Disk { path: self.path.clone(), what, source }
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.changing()?;
        self.file.write_all_at(bytes, offset)
    }

    /// Makes a range read as zeros, giving its space back to the host where that is possible.
    ///
    /// # Errors
    /// What the system says.
    pub fn zero(&self, offset: u64, len: u64, give_back: bool) -> io::Result<()> {
        self.changing()?;
        let mode = if give_back {
            FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE
        } else {
            FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE
        };
        let signed =
            |value: u64| i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        match fallocate(&self.file, mode, signed(offset)?, signed(len)?) {
            Ok(()) => Ok(()),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.write_zeros(offset, len),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether a write to this range would find room, as far as that can be known. Nothing of the content changes.
    #[must_use]
    pub fn has_room(&self, offset: u64, len: u64) -> bool {
        let signed = i64::try_from(offset).ok().zip(i64::try_from(len.min(PROBE_BYTES)).ok());
        let Some((offset, len)) = signed else { return false };
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, len) {
            Ok(()) => true,
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => fstatvfs(&self.file)
                .is_ok_and(|fs| fs.blocks_available().saturating_mul(fs.fragment_size()) >= PROBE_BYTES),
            Err(_) => false,
        }
    }

    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = vec![0; 1 << 16];
        let mut done = 0;
        while done < len {
            let piece = usize::try_from(len - done).unwrap_or(zeros.len()).min(zeros.len());
            self.file.write_all_at(&zeros[..piece], offset + done)?;
            done += piece as u64;
        }
        Ok(())
    }

    /// Waits until what was written is on the host's disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.file.sync_data() }
    }

    fn changing(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }
}
