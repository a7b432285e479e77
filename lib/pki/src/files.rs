//! Files of keys: whole or not there, never replaced by accident.

use super::PkiError;
use quasar_abi::files;
use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Longest file of keys.
const MOST_BYTES: u64 = 1 << 20;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner.
    Owner,
    /// Everyone.
    Everyone,
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> PkiError {
    let path = path.to_owned();
    |source| PkiError::File { path, source }
}

/// Makes a directory for its owner alone, where there is none; nobody else may put files there.
///
/// # Errors
/// [`PkiError::File`].
pub fn make_directory(dir: &Path) -> Result<(), PkiError> {
    quasar_places::own_directory(dir).map_err(failed(dir))
}

/// Says whether the files may be written, before any is.
///
/// # Errors
/// [`PkiError::Exists`].
pub fn are_free(dir: &Path, names: &[&str], force: bool) -> Result<(), PkiError> {
    let taken = names.iter().map(|name| dir.join(name)).find(|path| path.symlink_metadata().is_ok());
    match taken {
        Some(path) if !force => Err(PkiError::Exists(path)),
        _ => Ok(()),
    }
}

/// Writes a file that appears under its name when it is whole.
///
/// # Errors
/// [`PkiError`].
pub fn write(path: &Path, text: &str, readers: Readers, force: bool) -> Result<(), PkiError> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed(dir))?;
    let mode = if readers == Readers::Owner { 0o600 } else { 0o644 };
    let written = file
        .as_file()
        .set_permissions(Permissions::from_mode(mode))
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| file.as_file().sync_all());
    written.map_err(failed(path))?;
    if force {
        return file.persist(path).map(drop).map_err(|e| failed(path)(e.error));
    }
    file.persist_noclobber(path).map(drop).map_err(|e| match e.error.kind() {
        std::io::ErrorKind::AlreadyExists => PkiError::Exists(path.to_owned()),
        _ => failed(path)(e.error),
    })
}

/// Reads a file; nothing when there is none.
///
/// # Errors
/// [`PkiError::File`].
pub fn read(path: &Path) -> Result<Option<String>, PkiError> {
    let text = files::read(path, MOST_BYTES)
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| io::Error::other("it is no text")));
    match text {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}
