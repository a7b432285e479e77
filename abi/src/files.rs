//! Files that users name.
//!
//! A path may lead to anything: a FIFO that nobody writes to, a device without an end, a directory. Whoever opens one
//! for a user does it here: without waiting, and only what has an end.

use nix::fcntl::OFlag;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is read.
    Read,
    /// It is read and written.
    Write,
}

/// An open regular file or block device.
#[derive(Debug)]
pub struct UserFile {
    /// The file.
    pub file: File,
    /// Bytes to its end when it was opened. Others may change that at any time.
    pub bytes: u64,
}

fn kind(of: FileType) -> Option<&'static str> {
    match of {
        _ if of.is_file() || of.is_block_device() => None,
        _ if of.is_dir() => Some("a directory"),
        _ if of.is_fifo() => Some("a FIFO"),
        _ if of.is_socket() => Some("a socket"),
        _ if of.is_char_device() => Some("a character device"),
        _ => Some("something else"),
    }
}

/// Says whether this is a regular file or a block device.
///
/// # Errors
/// Of kind `InvalidInput`: what it is instead.
pub fn check(metadata: &Metadata) -> io::Result<()> {
    kind(metadata.file_type()).map_or(Ok(()), |what| {
        let text = format!("it is {what}, not a file or a block device");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    })
}

/// Opens what a user has named, without waiting for anybody.
///
/// # Errors
/// What the system says, or that it is no regular file and no block device.
pub fn open(path: &Path, access: Access) -> io::Result<UserFile> {
    // Looked at before it is opened, since opening alone can have effects, and afterwards, since it may have been
    // exchanged.
    check(&std::fs::metadata(path)?)?;
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let mut file =
        OpenOptions::new().read(true).write(access == Access::Write).custom_flags(flags.bits()).open(path)?;
    check(&file.metadata()?)?;
    // Of block devices the end is the size, where metadata say nothing.
    let bytes = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    Ok(UserFile { file, bytes })
}

/// The mark of a disk that is on its way to this host: whoever makes the disk makes the mark before it and holds a lock
/// on it; it goes, durably, before the other host is told that all has come. So a disk with a mark that nobody locks
/// is what a killed arrival has left, and one without may be a VM's only state.
#[must_use]
pub fn arrival_mark(disk: &Path) -> PathBuf {
    let mut name = disk.as_os_str().to_owned();
    name.push(ARRIVAL_SUFFIX);
    name.into()
}

/// What the name of such a mark ends with.
pub const ARRIVAL_SUFFIX: &str = ".arriving";

/// Removes a disk's mark, if it has one, and makes that durable.
///
/// # Errors
/// What the system says.
pub fn has_arrived(disk: &Path) -> io::Result<()> {
    match std::fs::remove_file(arrival_mark(disk)) {
        Ok(()) => File::open(disk.parent().unwrap_or(Path::new("/")))?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// As [`open`], and when it is longer.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path, Access::Read)?;
    let long = |bytes| {
        let text = format!("it has {bytes} bytes, more than the {limit} that are expected at most");
        io::Error::new(io::ErrorKind::FileTooLarge, text)
    };
    if file.bytes > limit {
        return Err(long(file.bytes));
    }
    let mut content = vec![];
    // It may grow meanwhile, and some files do not know their length.
    file.file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit { Err(long(content.len() as u64)) } else { Ok(content) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_what_has_an_end_is_opened_and_nothing_is_waited_for() {
        let name = format!("quasar-files-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).expect("a directory");
        let path = |name: &str| directory.join(name);
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let socket = UnixListener::bind(path("socket")).expect("a socket");
        for access in [Access::Read, Access::Write] {
            let refused = |path: &Path| open(path, access).expect_err("refused").to_string();
            assert!(refused(&path("fifo")).contains("a FIFO"), "{access:?}");
            assert!(refused(&path("socket")).contains("a socket"), "{access:?}");
            assert!(refused(&directory).contains("a directory"), "{access:?}");
            assert!(refused(Path::new("/dev/zero")).contains("a character device"), "{access:?}");
        }
        drop(socket);
        std::fs::write(path("file"), "12345").expect("write");
        assert_eq!(open(&path("file"), Access::Read).expect("a file").bytes, 5);
        assert_eq!(read(&path("file"), 5).expect("a file"), b"12345");
        assert!(read(&path("file"), 4).expect_err("too long").to_string().contains("5 bytes"));
        let sparse = File::create(path("sparse")).expect("a file");
        sparse.set_len(20 << 30).expect("a long file");
        assert!(read(&path("sparse"), 1 << 20).is_err());
        assert_eq!(open(&path("none"), Access::Read).expect_err("none").kind(), io::ErrorKind::NotFound);
        std::fs::remove_dir_all(&directory).expect("remove");
    }
}
