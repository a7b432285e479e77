//! A disk for a guest.

use crate::images::images;
use crate::process::output;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of the Debian disk that takes no more room than what is in it.
///
/// # Errors
/// When the images cannot be built or there is no room.
pub fn copy(directory: &Path) -> anyhow::Result<PathBuf> {
    let path = directory.join("disk.ext4");
    output(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(&images()?.disk).arg(&path))?;
    Ok(path)
}
