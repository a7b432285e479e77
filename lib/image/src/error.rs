//! What can go wrong while an image is built; each message says what to do.

use std::path::PathBuf;

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file operation failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried, as a gerund (`writing`).
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program of the host isn't installed.
    #[error("`{tool}` is not installed: run `apt-get install {package}`{hint}")]
    ToolMissing {
        /// Name of the program.
        tool: String,
        /// Debian package that holds it.
        package: &'static str,
        /// Another way out, or nothing.
        hint: &'static str,
    },
    /// A program of the host failed.
    #[error("`{tool}` failed with {status}:\n{stderr}")]
    ToolFailed {
        /// Name of the program, with what it worked on.
        tool: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The last lines it wrote.
        stderr: String,
    },
    /// The machine's apt sources name no Debian archive.
    #[error(
        "no Debian archive found in the apt sources under {root} (*.sources, *.list): name one with --mirror URI (and --keyring FILE)"
    )]
    NoMirror {
        /// Directory that was searched.
        root: PathBuf,
    },
    /// No keyring to verify the archive with.
    #[error(
        "no keyring to verify the Debian archive with: install debian-archive-keyring or name a file with --keyring FILE"
    )]
    NoKeyring,
    /// apt answered with something that isn't understood.
    #[error("apt printed a line that is not understood: {line:?}")]
    AptAnswer {
        /// The line.
        line: String,
    },
    /// A downloaded package isn't what the signed index promised.
    #[error("{path}: sha256 is {found}, the signed index says {expected}: delete the file and build again")]
    HashMismatch {
        /// The package file.
        path: PathBuf,
        /// What the index says.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// Something that the recipe needs isn't in the packages.
    #[error("{what} is not in the packages of this suite: {name}")]
    Missing {
        /// Kind of thing (`kernel module`, `shared library`).
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A file of a package isn't in the form expected of it.
    #[error("{name}: {problem}")]
    Malformed {
        /// Which file.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The requested disk is too small for its content.
    #[error("a disk of {size} bytes is too small for {needed} bytes of files: use a larger --size")]
    DiskTooSmall {
        /// Requested size.
        size: u64,
        /// Bytes of content.
        needed: u64,
    },
}

/// Attaches the operation and the path to an I/O error.
pub(super) trait IoContext<T> {
    /// Says what was done to which file.
    fn at(self, what: &'static str, path: impl Into<PathBuf>) -> Result<T, ImageError>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn at(self, what: &'static str, path: impl Into<PathBuf>) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::Io { what, path: path.into(), source })
    }
}
