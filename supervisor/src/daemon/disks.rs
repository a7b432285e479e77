//! What a disk's file must be like, and which file it is, whatever it is called.

use quasar_abi::files;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// A disk's file as the host knows it: the same for hard links, symbolic links, and another way to the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskId {
    /// A regular file.
    File {
        /// The file system's device.
        device: u64,
        /// The file.
        inode: u64,
    },
    /// A block device.
    Device {
        /// Its number.
        number: u64,
        /// The number of the device that it is a partition of.
        whole: Option<u64>,
    },
}

/// The device that a partition is on. Sysfs has the partition in its device's directory.
fn whole_device(number: u64) -> Option<u64> {
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let place: PathBuf = format!("/sys/dev/block/{major}:{minor}").into();
    let place = place.canonicalize().ok().filter(|place| place.join("partition").exists())?;
    let text = std::fs::read_to_string(place.parent()?.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?))
}

impl DiskId {
    /// Of an open file's metadata.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            let number = metadata.rdev();
            Self::Device { number, whole: whole_device(number) }
        } else {
            Self::File { device: metadata.dev(), inode: metadata.ino() }
        }
    }

    /// Whether what is written to one is, or may be, written to the other: they are one file, one device, or a device
    /// and a partition of it.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Device { number, whole }, Self::Device { number: theirs, whole: their_whole }) => {
                number == theirs || *whole == Some(*theirs) || *their_whole == Some(*number)
            }
            _ => self == other,
        }
    }
}

/// Which file a disk is now.
///
/// # Errors
/// When it is not there.
pub fn identify(path: &Path) -> std::io::Result<DiskId> {
    std::fs::metadata(path).map(|metadata| DiskId::of(&metadata))
}

/// A disk that a VM takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Where.
    pub path: PathBuf,
    /// Which file it is.
    pub id: DiskId,
    /// The VM only reads it.
    pub read_only: bool,
}

impl Claim {
    /// Whether two VMs cannot have both.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.id.overlaps(&other.id) && !(self.read_only && other.read_only)
    }
}

/// What becomes of a VM's disks when it ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disks {
    /// They stay.
    Keep,
    /// Those that were made for it go.
    Owned,
    /// Those that were made here when it came go.
    Made,
}

/// Removes a disk, and the directory made for it when nothing else is in it.
pub(super) fn remove_disk(path: &Path) {
    // The disk first: what is left between the two is found by the mark.
    if let Err(error) = std::fs::remove_file(path) {
        log::warn!("disk {} cannot be removed: {error}", path.display());
    }
    if let Err(error) = files::has_arrived(path) {
        log::warn!("the mark of disk {} cannot be removed: {error}", path.display());
    }
    if let Some(directory) = path.parent() {
        drop(std::fs::remove_dir(directory));
    }
}

/// Whether a file of so many bytes is whole sectors.
///
/// # Errors
/// In words for people: what to do about it.
pub fn check_length(bytes: u64) -> std::io::Result<()> {
    let refused = |text: String| Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text));
    match bytes % SECTOR {
        _ if bytes == 0 => refused("it is empty; `truncate -s 4G FILE` gives it a size".into()),
        0 => Ok(()),
        rest => refused(format!(
            "it has {bytes} bytes, and a guest sees whole sectors of {SECTOR}: the last {rest} would be out of its reach; \
             `truncate -s {} FILE` makes it whole",
            bytes.next_multiple_of(SECTOR)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_whatever_it_is_called() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a"), "a").expect("write");
        std::fs::write(path("b"), "a").expect("write");
        std::fs::hard_link(path("a"), path("hard")).expect("link");
        std::os::unix::fs::symlink(path("a"), path("soft")).expect("link");
        let id = |name: &str| DiskId::of(&std::fs::metadata(path(name)).expect("metadata"));
        assert!(id("a").overlaps(&id("hard")) && id("soft").overlaps(&id("a")));
        assert!(!id("a").overlaps(&id("b")));
        let moved = id("a");
        std::fs::rename(path("a"), path("c")).expect("rename");
        assert!(moved.overlaps(&id("c")));
    }

    #[test]
    fn a_partition_overlaps_its_device_and_no_other_partition() {
        let whole = DiskId::Device { number: 0x800, whole: None };
        let part = |number| DiskId::Device { number, whole: Some(0x800) };
        assert!(whole.overlaps(&part(0x801)) && part(0x801).overlaps(&whole));
        assert!(part(0x801).overlaps(&part(0x801)) && !part(0x801).overlaps(&part(0x802)));
        assert!(!whole.overlaps(&DiskId::Device { number: 0x810, whole: None }));
        assert!(!whole.overlaps(&DiskId::File { device: 0x800, inode: 5 }));
    }

    #[test]
    fn a_length_is_whole_sectors() {
        check_length(512).expect("one sector");
        assert!(check_length(0).expect_err("empty").to_string().contains("it is empty"));
        let error = check_length(1_000_000).expect_err("no whole sectors").to_string();
        assert!(error.contains("the last 64 would") && error.contains("truncate -s 1000448 FILE"), "{error}");
    }
}
