//! The cluster's keys: a small authority, and a certificate for each host.
//!
//! Who has a certificate of the authority is a host of the cluster: migrations and links between switches ask for no
//! more, and take nobody else. Each certificate carries [`HOST_NAME`] beside the host's own name, since hosts are
//! reached by addresses that change. The authority's key stays where `quasar pki init` made it; a host needs its own
//! three files alone.

#![forbid(unsafe_code)]

mod authority;
mod files;
#[cfg(test)]
mod tests;

pub use authority::{Authority, Issued, MadeAuthority};

use quasar_abi::control::migrator::Security;
pub use quasar_peer::HOST_NAME;
use std::path::{Path, PathBuf};

/// The authority's certificate, in its own directory and in each host's.
pub const AUTHORITY: &str = "ca.pem";
/// The authority's key.
pub const AUTHORITY_KEY: &str = "ca.key";
/// A host's certificate.
pub const CERTIFICATE: &str = "host.pem";
/// A host's key.
pub const KEY: &str = "host.key";

/// Keys could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file is there already.
    #[error("{0} is there already; --force replaces it{consequence}", consequence = consequence(.0))]
    Exists(PathBuf),
    /// There is no authority.
    #[error("there is no authority in {dir} ({missing} is missing); make one with `quasar pki init --dir {dir}`", dir = dir.display())]
    NoAuthority {
        /// Where it was looked for.
        dir: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
    /// A host has no certificate.
    #[error(
        "{dir} holds no certificate of a host ({missing} is missing); make one with `quasar pki issue NAME --out {dir}` where the authority is, or copy it from there",
        dir = dir.display()
    )]
    NoHost {
        /// Where it was looked for.
        dir: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
    /// A host cannot be called that.
    #[error("a host cannot be called {name:?}: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file is not what it should be.
    #[error("{path}: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The library of certificates refused.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

fn consequence(path: &Path) -> &'static str {
    if path.file_name().is_some_and(|name| name == AUTHORITY || name == AUTHORITY_KEY) {
        ", and every certificate that it has issued is refused from then on"
    } else {
        ""
    }
}

/// Where keys are when nothing is said: `$XDG_CONFIG_HOME/quasar/pki` or `~/.config/quasar/pki`.
#[must_use]
pub fn default_directory() -> PathBuf {
    quasar_places::of_user("XDG_CONFIG_HOME", ".config").join("pki")
}

/// The protection that a host's directory gives: its three files must be there. Whoever uses them reads and checks them.
///
/// # Errors
/// [`PkiError::NoHost`].
pub fn security(dir: &Path) -> Result<Security, PkiError> {
    let file = |name: &'static str| {
        let path = dir.join(name);
        if path.is_file() { Ok(path) } else { Err(PkiError::NoHost { dir: dir.into(), missing: name }) }
    };
    Ok(Security::MutualTls { authority: file(AUTHORITY)?, certificate: file(CERTIFICATE)?, key: file(KEY)? })
}
