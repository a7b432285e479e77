//! Bytes that nobody can guess, from the operating system: the one way to them for all processes.

use std::io::Error;

/// Fills a buffer.
///
/// # Errors
/// When the system has no randomness.
pub fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(Error::from)
}

/// So many bytes.
///
/// # Errors
/// As [`fill`].
pub fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    fill(&mut bytes).map(|()| bytes)
}
