//! Where the daemon keeps what others find it by.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Longest path of a unix socket, in bytes: `sun_path` without its NUL (`unix(7)`).
pub const LONGEST_SOCKET: usize = 107;

/// Most that is read of a lock, in bytes: a process's number and a newline.
const LONGEST_NUMBER: u64 = 11;

/// A path that no socket can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is no path for a socket: it has {} bytes, and {LONGEST_SOCKET} are the most; give a shorter one (--socket, \
     QUASAR_SOCKET or XDG_RUNTIME_DIR)",
    .0.display(),
    .0.as_os_str().len()
)]
pub struct SocketTooLong(pub PathBuf);

/// Checks that a socket can have this path: the system's own word for it names neither the path nor the limit.
///
/// # Errors
/// [`SocketTooLong`].
pub fn check_socket(path: &Path) -> Result<(), SocketTooLong> {
    if path.as_os_str().len() > LONGEST_SOCKET { Err(SocketTooLong(path.to_owned())) } else { Ok(()) }
}

/// The daemon's socket and the directory around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The API's socket.
    pub socket: PathBuf,
}

impl Paths {
    /// The socket given, or `host.sock` in `$XDG_RUNTIME_DIR/quasar`, or in `/run/quasar` for root and
    /// `/tmp/quasar-<uid>` for others without a runtime directory.
    #[must_use]
    pub fn locate(socket: Option<PathBuf>) -> Self {
        let uid = nix::unistd::geteuid();
        let default = || {
            let directory = match crate::runtime() {
                Some(directory) => directory.join("quasar"),
                None if uid.is_root() => PathBuf::from("/run/quasar"),
                None => PathBuf::from(format!("/tmp/quasar-{uid}")),
            };
            directory.join("host.sock")
        };
        Self { socket: socket.unwrap_or_else(default) }
    }

    /// The directory of everything else: beside the socket, named after it, so that two daemons with two
    /// sockets never meet.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.socket.with_extension("d")
    }

    /// The lock that the daemon holds while it runs.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.socket.with_extension("lock")
    }

    /// The log of a daemon that was started in the background.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.socket.with_extension("log")
    }

    /// A VM's own directory.
    #[must_use]
    pub fn vm(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// What programs leave when they are killed. No VM's name begins with a dot.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.directory().join(".scratch")
    }

    /// The process that has taken the lock, when the daemon there says so; one that was killed may have.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        let file = crate::own_file(&self.lock(), OpenOptions::new().read(true)).ok()?;
        let mut text = String::new();
        file.take(LONGEST_NUMBER).read_to_string(&mut text).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    }

    /// Refuses a place where something is that no daemon of ours has made: a daemon removes what it finds there.
    ///
    /// # Errors
    /// With the file that is in the way.
    pub fn check_free(&self) -> std::io::Result<()> {
        let in_the_way = |path: &Path, what: &str| {
            let text = format!("{} is {what}; give another --socket", path.display());
            Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, text))
        };
        if let Ok(found) = self.socket.symlink_metadata()
            && !found.file_type().is_socket()
        {
            return in_the_way(&self.socket, "there already, and no socket");
        }
        if let Ok(found) = self.lock().symlink_metadata()
            && (!found.is_file() || (found.len() > 0 && self.holder().is_none()))
        {
            return in_the_way(&self.lock(), "there already, and no lock of ours");
        }
        // Whatever of ours is there, this is.
        let ours = self.scratch().symlink_metadata().is_ok_and(|found| found.is_dir());
        let holds = std::fs::read_dir(self.directory()).is_ok_and(|mut entries| entries.next().is_some());
        if holds && !ours {
            return in_the_way(&self.directory(), "a directory of files that no daemon made");
        }
        Ok(())
    }

    /// Makes the directories, for this user alone.
    ///
    /// # Errors
    /// When they cannot be made, or another user could put something there; see [the crate](crate).
    pub fn create(&self) -> std::io::Result<()> {
        if let Some(parent) = self.socket.parent() {
            crate::way(parent)?;
        }
        crate::own_directory(&self.directory())?;
        crate::own_directory(&self.scratch())
    }
}

/// Where a user's VMs keep disks made for them: `$XDG_DATA_HOME/quasar` or `~/.local/share/quasar`.
#[must_use]
pub fn data_directory() -> PathBuf {
    crate::of_user("XDG_DATA_HOME", ".local/share")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_not_ours_is_in_the_way() {
        let base = tempfile::tempdir().expect("tempdir");
        let paths = |name: &str| Paths { socket: base.path().join(name) };
        let fresh = paths("fresh.sock");
        fresh.check_free().expect("nothing is there");
        fresh.create().expect("directories");
        std::fs::write(fresh.directory().join("network.log"), "ours").expect("write");
        std::fs::write(fresh.lock(), "").expect("write");
        drop(UnixListener::bind(&fresh.socket).expect("bind"));
        fresh.check_free().expect("a dead daemon's");
        assert_eq!(fresh.holder(), None, "it had not come to that");
        std::fs::write(fresh.lock(), "4242\n").expect("write");
        fresh.check_free().expect("a dead daemon's that had signed");
        assert_eq!(fresh.holder(), Some(4242));
        for other in ["4242", "42 42\n", "a user's\n", "42424242424242\n"] {
            std::fs::write(fresh.lock(), other).expect("write");
            assert_eq!(fresh.holder(), None, "{other}");
            fresh.check_free().expect_err(other);
        }
        for (name, other) in [("a.img", "a.img"), ("b.sock", "b.lock"), ("cron", "cron.d/job"), ("d", "d/e")]
        {
            let file = base.path().join(other);
            std::fs::create_dir_all(file.parent().expect("parent")).expect("directory");
            std::fs::write(&file, "a user's").expect("write");
            let error = paths(name).check_free().expect_err(name).to_string();
            assert!(error.contains("--socket"), "{error}");
        }
    }

    #[test]
    fn the_longest_socket_is_the_systems() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = |len: usize| {
            let name = len - directory.path().as_os_str().len() - 1;
            directory.path().join("s".repeat(name))
        };
        let longest = path(LONGEST_SOCKET);
        assert_eq!(check_socket(&longest), Ok(()));
        UnixListener::bind(&longest).expect("the system takes it");
        let longer = path(LONGEST_SOCKET + 1);
        let words = check_socket(&longer).expect_err("too long").to_string();
        assert!(words.contains("has 108 bytes") && words.contains("107"), "{words}");
        UnixListener::bind(&longer).expect_err("the system does not take it");
    }
}
