//! `manifest.json`: what an image was made of, and what apt chose.

use super::apt::Package;
use super::cache;
use super::error::{ImageError, IoContext};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Names of the files in an image directory.
pub mod names {
    /// The kernel.
    pub const KERNEL: &str = "Image";
    /// Initramfs of the small guest.
    pub const INITRD: &str = "initramfs.cpio";
    /// The disk.
    pub const DISK: &str = "disk.ext4";
    /// Initramfs of the disk.
    pub const DISK_INITRD: &str = "disk-initrd.cpio";
    /// Private ssh key.
    pub const SSH_KEY: &str = "id_ed25519";
    /// The manifest itself.
    pub const MANIFEST: &str = "manifest.json";
}

/// What apt chose for the two images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// Packages of the disk.
    pub disk: Vec<Package>,
    /// Packages that the small guest and the kernel come from.
    pub initramfs: Vec<Package>,
}

/// Size and hash of a finished file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Size in bytes.
    pub size_bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// The record of one build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Debian suite.
    pub suite: String,
    /// Architecture.
    pub architecture: String,
    /// Release of the kernel.
    pub kernel_version: String,
    /// Cache key: equal keys mean equal content.
    pub key: String,
    /// The packages.
    pub packages: Resolution,
    /// The finished files, by name.
    pub files: BTreeMap<String, FileRecord>,
}

/// The record of a file in `dir`.
pub fn record(dir: &Path, name: &str) -> Result<(String, FileRecord), ImageError> {
    let path = dir.join(name);
    let size_bytes = std::fs::metadata(&path).at("reading", &path)?.len();
    Ok((name.into(), FileRecord { size_bytes, sha256: cache::sha256_file(&path)? }))
}

/// Reads a JSON file that an earlier run wrote; `None` if there is none or it can't be understood any more.
pub fn load<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Writes a JSON file at once or not at all.
pub fn store<T: Serialize>(path: &Path, value: &T) -> Result<(), ImageError> {
    let draft = path.with_extension("draft");
    let text = serde_json::to_vec_pretty(value).map_err(std::io::Error::from).at("writing", path)?;
    std::fs::write(&draft, text).at("writing", &draft)?;
    std::fs::rename(&draft, path).at("moving to", path)
}

/// What apt chose when it was last asked, and for which archive and package lists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedResolution {
    /// When, in seconds since 1970.
    pub time_s: u64,
    /// Hash of the archive's address and the package lists.
    pub inputs: String,
    /// What it chose.
    pub resolution: Resolution,
}

impl SavedResolution {
    /// True if it answers the same question and isn't older than a day (nor from the future).
    pub fn is_fresh(&self, inputs: &str, now: SystemTime) -> bool {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(self.time_s);
        self.inputs == inputs && now.duration_since(then).is_ok_and(|age| age < DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolution_ages_and_belongs_to_its_inputs() {
        let resolution = Resolution { disk: Vec::new(), initramfs: Vec::new() };
        let saved = SavedResolution { time_s: 1_000_000, inputs: "a".into(), resolution };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(saved.is_fresh("a", at(1_000_060)));
        assert!(!saved.is_fresh("b", at(1_000_060)));
        assert!(!saved.is_fresh("a", at(1_000_000 + 24 * 3600)));
        assert!(!saved.is_fresh("a", at(999_000)));
    }

    #[test]
    fn json_is_written_and_read_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.json");
        assert_eq!(load::<FileRecord>(&path), None);
        let value = FileRecord { size_bytes: 3, sha256: "00".into() };
        store(&path, &value).expect("writable");
        assert_eq!(load(&path), Some(value));
        std::fs::write(&path, "{").expect("writable");
        assert_eq!(load::<FileRecord>(&path), None);
    }
}
