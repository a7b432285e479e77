//! Where everything is kept between builds, and the lock that lets one build at a time work there.
//!
//! Below the root: `apt-<suite>/` the isolated apt, `pool/` packages, `bench/<hash>/` compiled programs, `keys/`,
//! `resolution-<suite>.json` what apt chose last, `images/<suite>-<key>/` finished images.

use super::error::{ImageError, IoContext};
use super::options::Progress;
use quasar_places as places;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The cache root: `$XDG_CACHE_HOME/quasar`, or `~/.cache/quasar`.
pub fn default_root() -> PathBuf {
    places::of_user("XDG_CACHE_HOME", ".cache")
}

/// Holds the cache for this process; the lock ends with the value (or with the process).
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the cache's lock; waits for a build that runs in another process.
pub fn lock(root: &Path, progress: &dyn Progress) -> Result<Lock, ImageError> {
    places::own_directory(root).at("making directory", root)?;
    let path = root.join("lock");
    let file = places::own_file(&path, OpenOptions::new().create(true).truncate(false).write(true));
    let file = file.at("opening", &path)?;
    if file.try_lock().is_err() {
        progress.step("waiting for another build to end");
        file.lock().at("locking", &path)?;
    }
    Ok(Lock { _file: file })
}

/// Removes what builds that were killed have left. The lock must be held.
pub fn remove_drafts(root: &Path) {
    for directory in [root.to_owned(), root.join("images")] {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        // The names that tempfile gives.
        for draft in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp")) {
            if let Err(error) = std::fs::remove_dir_all(draft.path()) {
                log::warn!("{} cannot be removed: {error}", draft.path().display());
            }
        }
    }
}

/// SHA-256 over parts; each part's length counts, so that shifting a boundary changes the result.
#[derive(Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds a part.
    pub fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    /// The hash in hexadecimal.
    pub fn hex(self) -> String {
        hex(&self.0.finalize())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a file, in hexadecimal.
pub fn sha256_file(path: &Path) -> Result<String, ImageError> {
    let mut file = File::open(path).at("opening", path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).at("reading", path)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_know_their_parts() {
        let hash = |parts: &[&str]| {
            let mut hasher = Hasher::default();
            parts.iter().for_each(|part| hasher.add(part.as_bytes()));
            hasher.hex()
        };
        assert_eq!(hash(&["ab", "c"]), hash(&["ab", "c"]));
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }

    #[test]
    fn file_hash_is_sha256() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "abc").expect("writable");
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_file(file.path()).expect("readable"), expected);
    }

    #[test]
    fn killed_builds_leave_nothing_for_good() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for kept in ["images/.tmpAbC/x", ".tmp123/y", "images/trixie-1/z", "pool/.tmpq"] {
            std::fs::create_dir_all(dir.path().join(kept)).expect("writable");
        }
        remove_drafts(dir.path());
        let there = |name: &str| dir.path().join(name).exists();
        assert!(!there("images/.tmpAbC") && !there(".tmp123"));
        assert!(there("images/trixie-1/z") && there("pool/.tmpq"));
    }

    #[test]
    fn the_lock_excludes_until_it_is_dropped() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let held = lock(dir.path(), &super::super::NoProgress).expect("free");
        let other = File::create(dir.path().join("lock")).expect("writable");
        assert!(other.try_lock().is_err());
        drop(held);
        assert!(other.try_lock().is_ok());
    }
}
