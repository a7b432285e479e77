//! What daemons that were killed have left, found by the next one. Only what nobody holds a lock on is touched: other
//! daemons, with other sockets, may be at work beside this one.

use quasar_abi::files::{self, ARRIVAL_SUFFIX};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The lock inside a directory of copies: who made it holds it.
pub(super) const LOCK: &str = ".lock";
/// What such a directory's name begins with.
pub(super) const COPY: &str = "verify-";

/// Whether the file is there and nobody holds it.
fn is_free(lock: &Path) -> bool {
    OpenOptions::new().read(true).write(true).open(lock).is_ok_and(|file| file.try_lock().is_ok())
}

/// Marks a directory as in use until what is returned is dropped.
///
/// # Errors
/// What the system says.
pub(super) fn hold(directory: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).open(directory.join(LOCK))?;
    file.lock()?;
    Ok(file)
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The disk that a mark is of.
fn marked(mark: &Path) -> Option<PathBuf> {
    let disk = mark.as_os_str().as_bytes().strip_suffix(ARRIVAL_SUFFIX.as_bytes())?;
    Some(std::ffi::OsString::from_vec(disk.to_vec()).into())
}

/// Removes disks that were to come and never did, and copies of disks that nobody uses; returns what was removed. A
/// disk that has come is never touched, whoever has died since.
pub(super) fn sweep_data(data: &Path) -> Vec<PathBuf> {
    let mut removed = vec![];
    for directory in entries(data).filter(|path| path.is_dir()) {
        let copy =
            directory.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(COPY.as_bytes()));
        if copy && is_free(&directory.join(LOCK)) && std::fs::remove_dir_all(&directory).is_ok() {
            removed.push(directory);
            continue;
        }
        let mut cleared = false;
        for mark in entries(&directory) {
            let Some(disk) = marked(&mark).filter(|_| is_free(&mark)) else { continue };
            // The disk first: what is left between the two is found by the mark.
            if std::fs::remove_file(&disk).is_ok() {
                removed.push(disk.clone());
            }
            match files::has_arrived(&disk) {
                Ok(()) => cleared = true,
                Err(error) => log::warn!("{}: {error}", mark.display()),
            }
        }
        if cleared {
            // It goes when nothing else is in it.
            drop(std::fs::remove_dir(&directory));
        }
    }
    removed
}

/// Removes what a dead daemon of the same socket kept there; only while its lock is ours.
pub(super) fn sweep_runtime(directory: &Path) -> Vec<PathBuf> {
    let remove = |path: &PathBuf| {
        let is_directory = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        if is_directory { std::fs::remove_dir_all(path).is_ok() } else { std::fs::remove_file(path).is_ok() }
    };
    entries(directory).filter(remove).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_and_no_vm_needs_is_removed() {
        let data = tempfile::tempdir().expect("a directory");
        let make = |vm: &str, name: &str| {
            let directory = data.path().join(vm);
            std::fs::create_dir_all(&directory).expect("a directory");
            let path = directory.join(name);
            std::fs::write(&path, name).expect("write");
            path
        };
        let mark = |disk: &Path| std::fs::write(files::arrival_mark(disk), "").expect("write");
        let killed = make("gone", "disk0-0.raw");
        mark(&killed);
        let [whole, half] = ["disk0-0.raw", "disk1-0.raw"].map(|name| make("web", name));
        mark(&half);
        // Its daemon was killed before the disk was made.
        mark(&data.path().join("web/disk2-0.raw"));
        let coming = make("coming", "disk0-0.raw");
        mark(&coming);
        let held = File::create(files::arrival_mark(&coming)).expect("open");
        held.lock().expect("lock");
        let own = make("mine", "disk.ext4");
        let copy = make("verify-a", "disk0");
        let in_use = make("verify-b", "disk0");
        make("verify-a", LOCK);
        let _used = hold(in_use.parent().expect("parent")).expect("hold");

        let mut removed = sweep_data(data.path());
        removed.sort();
        assert_eq!(removed, [killed.clone(), data.path().join("verify-a"), half.clone()]);
        for path in [&whole, &coming, &own, &in_use] {
            assert!(path.exists(), "{}", path.display());
        }
        assert!(!copy.exists() && !data.path().join("gone").exists());
        assert_eq!(entries(&data.path().join("web")).count(), 1);
        // The daemon that it was coming to is killed.
        drop(held);
        assert_eq!(sweep_data(data.path()), [coming]);
    }
}
