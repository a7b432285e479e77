//! Why a daemon does not serve.

use super::error::HostError;
use quasar_places::SocketTooLong;
use std::path::{Path, PathBuf};

/// Why the daemon cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another one does.
    #[error("a daemon serves {0} already; use it, or give another --socket")]
    Running(PathBuf),
    /// The system refused.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The socket's path is too long.
    #[error(transparent)]
    Path(#[from] SocketTooLong),
    /// The host could not be set up.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// What of the system could not be used.
pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ServeError {
    let path = path.to_owned();
    move |source| ServeError::Io { what, path, source }
}
