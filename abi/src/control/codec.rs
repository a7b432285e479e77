//! The encoding of messages: bincode's standard configuration, which is little-endian on every host.
//!
//! bincode is complete and no longer developed; it is used here and nowhere else.

use serde::{Serialize, de::DeserializeOwned};

/// Longest encoded message in bytes.
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// A message that cannot be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value has no encoding.
    #[error("message cannot be encoded: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    /// The bytes are no such value.
    #[error("{len} bytes are no valid message: {source}")]
    Decode {
        /// Bytes given.
        len: usize,
        /// What bincode found.
        source: bincode::error::DecodeError,
    },
    /// Bytes were left over.
    #[error("message of {len} bytes has {rest} bytes too many")]
    Trailing {
        /// Bytes given.
        len: usize,
        /// Bytes not consumed.
        rest: usize,
    },
    /// Over [`MAX_MESSAGE_BYTES`].
    #[error("message of {0} bytes is longer than {MAX_MESSAGE_BYTES}")]
    TooLong(usize),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_MESSAGE_BYTES>()
}

/// Encodes a message.
///
/// # Errors
/// [`CodecError::Encode`], [`CodecError::TooLong`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(value, bincode::config::standard())?;
    if bytes.len() > MAX_MESSAGE_BYTES { Err(CodecError::TooLong(bytes.len())) } else { Ok(bytes) }
}

/// Decodes a message; all bytes must be consumed, and a length in them never allocates more than the limit.
///
/// # Errors
/// [`CodecError::Decode`], [`CodecError::Trailing`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, config())
        .map_err(|source| CodecError::Decode { len: bytes.len(), source })?;
    if used == bytes.len() {
        Ok(value)
    } else {
        Err(CodecError::Trailing { len: bytes.len(), rest: bytes.len() - used })
    }
}
