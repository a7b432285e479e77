//! Where the daemon keeps what others find it by.

use crate::places;
use std::path::{Path, PathBuf};

/// Longest path of a unix socket, in bytes: `sun_path` without its NUL (`unix(7)`).
pub const LONGEST_SOCKET: usize = 107;

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
            let directory = match places::runtime() {
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

    /// Makes the directories, for this user alone.
    ///
    /// # Errors
    /// When they cannot be made, or another user could put something there; see [`crate::places`].
    pub fn create(&self) -> std::io::Result<()> {
        if let Some(parent) = self.socket.parent() {
            places::way(parent)?;
        }
        places::own_directory(&self.directory())?;
        places::own_directory(&self.scratch())
    }
}

/// Where a user's VMs keep disks made for them: `$XDG_DATA_HOME/quasar` or `~/.local/share/quasar`.
#[must_use]
pub fn data_directory() -> PathBuf {
    places::of_user("XDG_DATA_HOME", ".local/share")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

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
