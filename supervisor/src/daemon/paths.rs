//! Where the daemon keeps what others find it by.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

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
            let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty());
            let directory = match runtime {
                Some(directory) => Path::new(&directory).join("quasar"),
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
    /// When they cannot be made.
    pub fn create(&self) -> std::io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        if let Some(parent) = self.socket.parent() {
            builder.create(parent)?;
        }
        builder.create(self.directory())?;
        builder.create(self.scratch())
    }
}

/// Where a user's VMs keep disks made for them: `$XDG_DATA_HOME/quasar` or `~/.local/share/quasar`.
#[must_use]
pub fn data_directory() -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    std::env::var_os("XDG_DATA_HOME")
        .filter(|d| !d.is_empty())
        .map_or_else(|| home().join(".local/share"), PathBuf::from)
        .join("quasar")
}
