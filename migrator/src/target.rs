//! A file that appears under its name when it is whole, and never in the place of another.
//!
//! Until then it has no name where the file system can do that, so that nothing is left of it when this process is
//! killed. Elsewhere it has a hidden one, and a lock by which the next suspension tells what nobody writes any more.

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".partial";

/// A file that is being written.
#[derive(Debug)]
pub struct Target {
    file: File,
    path: PathBuf,
    /// Its name meanwhile, if it needs one.
    partial: Option<PathBuf>,
}

/// The directory of a file.
fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What the names of a file's unfinished versions begin with.
fn prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

fn nameless(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(OFlag::O_TMPFILE.bits()).open(directory(path))
}

fn named(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut name = prefix(path);
    name.push(std::process::id().to_string());
    name.push(SUFFIX);
    let partial = directory(path).join(name);
    let file = OpenOptions::new().write(true).create_new(true).open(&partial)?;
    file.lock()?;
    Ok((file, partial))
}

/// Removes unfinished versions that nobody writes any more.
fn sweep(path: &Path) {
    let prefix = prefix(path);
    let Ok(entries) = std::fs::read_dir(directory(path)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let (name, prefix) = (name.as_encoded_bytes(), prefix.as_encoded_bytes());
        let ours = name.starts_with(prefix) && name.ends_with(SUFFIX.as_bytes());
        let regular = || entry.file_type().is_ok_and(|kind| kind.is_file());
        if ours && regular() && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            // It may have been removed by another one that looks.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl Target {
    /// Begins a file that will appear at `path`.
    ///
    /// # Errors
    /// When something is there already, or the directory cannot be written.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        if path.symlink_metadata().is_ok() {
            bail!("{} exists already; remove it or choose another name", path.display());
        }
        sweep(path);
        let cannot = || format!("cannot write {}", path.display());
        let (file, partial) = match nameless(path) {
            Ok(file) if Path::new("/proc/self/fd").is_dir() => (file, None),
            _ => named(path).map(|(file, partial)| (file, Some(partial))).with_context(cannot)?,
        };
        Ok(Self { file, path: path.to_owned(), partial })
    }

    /// The file, to be written.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes it durable and gives it its name.
    ///
    /// # Errors
    /// When that cannot be done, or something has come into its place meanwhile; nothing is left of it then.
    pub fn appear(self) -> anyhow::Result<()> {
        self.file.sync_all().with_context(|| format!("cannot write {}", self.path.display()))?;
        let named = match &self.partial {
            None => {
                let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                let flags = AtFlags::AT_SYMLINK_FOLLOW;
                nix::unistd::linkat(AT_FDCWD, own.as_str(), AT_FDCWD, &self.path, flags)
                    .map_err(io::Error::from)
            }
            Some(partial) => match std::fs::hard_link(partial, &self.path) {
                // Not every file system has links.
                Err(error) if no_links(&error) && self.path.symlink_metadata().is_err() => {
                    std::fs::rename(partial, &self.path)
                }
                linked => linked,
            },
        };
        named.with_context(|| format!("cannot name the file {}", self.path.display()))?;
        // The VM is let go in the belief that the file is there.
        let synced = File::open(directory(&self.path)).and_then(|dir| dir.sync_all());
        let undone = synced.inspect_err(|_| drop(std::fs::remove_file(&self.path)));
        undone.with_context(|| format!("cannot write the directory of {}", self.path.display()))
    }
}

fn no_links(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK))
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // It may have been renamed.
            let _ = std::fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).expect("a directory").flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_appears_whole_or_not_at_all_and_replaces_nothing() {
        let name = format!("quasar-target-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).expect("a directory");
        let path = dir.join("web.vm");
        std::fs::write(dir.join("web.partial"), "a user's own").expect("write");
        for with_name in [false, true] {
            let make = || {
                let target = Target::create(&path).expect("create");
                if !with_name {
                    return target;
                }
                let (file, partial) = named(&path).expect("named");
                Target { file, path: path.clone(), partial: Some(partial) }
            };
            let given_up = make();
            given_up.file().write_all(b"half").expect("write");
            drop(given_up);
            assert_eq!(names(&dir), ["web.partial"]);
            let target = make();
            target.file().write_all(b"whole").expect("write");
            target.appear().expect("appear");
            assert_eq!(names(&dir), ["web.partial", "web.vm"]);
            assert!(Target::create(&path).is_err());
            std::fs::remove_file(&path).expect("remove");
            // Something comes into its place while it is written.
            let late = make();
            std::fs::write(&path, "another").expect("write");
            late.appear().expect_err("taken");
            assert_eq!(std::fs::read(&path).expect("read"), b"another");
            std::fs::remove_file(&path).expect("remove");
        }
        // Of one that was killed the next one takes care; not of one that is at work, or of other files.
        std::fs::write(dir.join(".web.vm.77.partial"), "left").expect("write");
        std::fs::write(dir.join(".other.vm.77.partial"), "other").expect("write");
        let at_work = File::create(dir.join(".web.vm.78.partial")).expect("create");
        at_work.lock().expect("lock");
        drop(Target::create(&path).expect("create"));
        assert_eq!(names(&dir), [".other.vm.77.partial", ".web.vm.78.partial", "web.partial"]);
        std::fs::remove_dir_all(&dir).expect("remove");
    }
}
