//! A file that a machine is started from: opened once, looked at, and copied into guest memory piece by piece.

use super::error::BootError;
use quasar_abi::GuestRam;
use quasar_abi::files::{self, Access, UserFile};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of a file's beginning that are looked at.
pub const HEAD_BYTES: usize = 4096;
/// Bytes copied at a time: no file's length decides about this process's memory.
const PIECE_BYTES: usize = 256 << 10;

/// An open file.
#[derive(Debug)]
pub struct Source {
    /// Its role.
    pub what: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Its length when it was opened.
    pub bytes: u64,
    head: Vec<u8>,
    file: File,
}

impl Source {
    /// Opens a file and reads its beginning.
    ///
    /// # Errors
    /// [`BootError::Read`].
    pub fn open(what: &'static str, path: &Path) -> Result<Self, BootError> {
        let cannot = |source| BootError::Read { what, path: path.to_owned(), source };
        let UserFile { file, bytes } = files::open(path, Access::Read).map_err(cannot)?;
        if bytes == 0 {
            let empty = std::io::Error::new(std::io::ErrorKind::InvalidData, "it is empty");
            return Err(cannot(empty));
        }
        let mut source = Self { what, path: path.to_owned(), bytes, head: vec![], file };
        source.head = source.read(0, bytes.min(HEAD_BYTES as u64))?;
        Ok(source)
    }

    /// Its first [`HEAD_BYTES`] bytes, or all of them.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    fn cannot(&self, source: std::io::Error) -> BootError {
        BootError::Read { what: self.what, path: self.path.clone(), source }
    }

    fn read_into(&self, at: u64, out: &mut [u8]) -> Result<(), BootError> {
        self.file.read_exact_at(out, at).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.changed(),
            _ => self.cannot(error),
        })
    }

    fn changed(&self) -> BootError {
        let now = self.file.metadata().map_or(0, |metadata| metadata.len());
        let bytes = self.bytes;
        let text = format!("somebody writes it: it had {bytes} bytes when it was opened and has {now} now");
        self.cannot(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, text))
    }

    /// Reads a part; the caller has bounded its length.
    ///
    /// # Errors
    /// [`BootError::Read`], also when it is not there any more.
    pub fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, BootError> {
        let mut out = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.read_into(at, &mut out)?;
        Ok(out)
    }

    /// Copies `len` bytes from offset `from` on to the guest-physical address `to`.
    ///
    /// # Errors
    /// [`BootError::Read`], [`BootError::Ram`].
    pub fn copy(&self, from: u64, len: u64, ram: &GuestRam, to: u64) -> Result<(), BootError> {
        let mut piece = vec![0; PIECE_BYTES];
        let mut done = 0;
        while done < len {
            let count = usize::try_from(len - done).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            self.read_into(from + done, &mut piece[..count])?;
            ram.write(to + done, &piece[..count])?;
            done += count as u64;
        }
        Ok(())
    }

    /// Says whether the file has kept its length: one that is being written is of no use.
    ///
    /// # Errors
    /// [`BootError::Read`].
    pub fn is_whole(&self) -> Result<(), BootError> {
        let metadata = self.file.metadata().map_err(|error| self.cannot(error))?;
        if metadata.is_file() && metadata.len() != self.bytes { Err(self.changed()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::{Segment, SegmentKind};
    use std::sync::Arc;

    #[test]
    fn a_file_that_shrinks_or_grows_meanwhile_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("Image");
        std::fs::write(&path, vec![7; 3 * PIECE_BYTES + 1]).expect("write");
        let name = format!("/quasar-test-{}-source", std::process::id());
        let segment = Segment::create(&name, SegmentKind::Ram, 1 << 20, 1).expect("create");
        let ram = GuestRam::new(Arc::new(segment), 0x8000_0000);
        let source = Source::open("kernel", &path).expect("open");
        assert_eq!(source.head().len(), HEAD_BYTES);
        source.copy(0, source.bytes, &ram, 0x8000_0000).expect("copy");
        source.is_whole().expect("whole");
        let mut last = [0; 2];
        ram.read(0x8000_0000 + 3 * PIECE_BYTES as u64, &mut last).expect("read");
        assert_eq!(last, [7, 0]);

        let file = File::options().write(true).open(&path).expect("open");
        file.set_len(source.bytes + 1).expect("grow");
        let error = source.is_whole().expect_err("it grew").to_string();
        assert!(error.contains("somebody writes it") && error.contains("786434"), "{error}");
        file.set_len(5).expect("shrink");
        assert!(source.copy(0, source.bytes, &ram, 0x8000_0000).is_err());
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "").expect("write");
        assert!(Source::open("kernel", &empty).expect_err("empty").to_string().contains("it is empty"));
    }
}
