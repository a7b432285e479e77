//! What the frames carry, in the encoding of [`quasar_abi::control::codec`].

use quasar_abi::control::codec::{self, CodecError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Versions of the stream that this build speaks, newest last.
pub const VERSIONS: &[u32] = &[1, 2, 3];
/// The first version whose batches of pages may hold differences.
pub const DIFFERENCES_SINCE: u32 = 2;
/// The first version whose destination says with [`crate::frame::Kind::Ready`] where further connections may come: a
/// [`Door`]. Before it says nothing.
pub const LANES_SINCE: u32 = 3;
/// The first version whose batches may have [`crate::pages::BATCH_PAGES`].
pub const LONG_BATCHES_SINCE: u32 = 3;

/// How a batch of pages is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    /// Not.
    Raw,
    /// LZ4 block.
    Lz4,
    /// Zstandard frame.
    Zstd,
}

/// Source's first word: what it can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Versions of the stream.
    pub versions: Vec<u32>,
    /// Codecs.
    pub codecs: Vec<Codec>,
    /// Version of the program, for messages.
    pub program: String,
}

/// Destination's answer: what will be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// The newest version both know.
    pub version: u32,
    /// Codecs that the destination can decode.
    pub codecs: Vec<Codec>,
    /// Version of the program, for messages.
    pub program: String,
}

/// No version in common.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "no stream version in common: the other side ({program}) speaks {theirs:?}, this one {VERSIONS:?}; upgrade the older"
)]
pub struct NoCommonVersion {
    /// The other side's program version.
    pub program: String,
    /// What it speaks.
    pub theirs: Vec<u32>,
}

impl Offer {
    /// What this build offers.
    #[must_use]
    pub fn ours() -> Self {
        Self {
            versions: VERSIONS.to_vec(),
            codecs: vec![Codec::Raw, Codec::Lz4, Codec::Zstd],
            program: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The newest version in common.
    ///
    /// # Errors
    /// [`NoCommonVersion`].
    pub fn agree(&self) -> Result<Agreement, NoCommonVersion> {
        let common = VERSIONS.iter().rev().find(|v| self.versions.contains(v));
        let version = *common.ok_or_else(|| NoCommonVersion {
            program: self.program.clone(),
            theirs: self.versions.clone(),
        })?;
        let ours = Self::ours();
        let codecs = ours.codecs.into_iter().filter(|c| self.codecs.contains(c)).collect();
        Ok(Agreement { version, codecs, program: ours.program })
    }
}

/// The VM that comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The supervisors' own description.
    pub description: String,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// Harts.
    pub harts: u32,
    /// Bytes of each disk that travels, by slot.
    pub disks: Vec<(u8, u64)>,
}

/// Where a destination takes further connections of this migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// Port at the address of the first connection; 0 for nowhere.
    pub port: u16,
    /// What a further connection shows.
    pub key: [u8; 16],
}

/// A further connection begins; the destination answers with an empty [`crate::frame::Kind::Ready`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// The [`Door`]'s.
    pub key: [u8; 16],
}

/// A round is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundEnd {
    /// Its number.
    pub round: u32,
    /// Pages in it, zero pages included.
    pub pages: u64,
    /// Whether the VM is paused and its state follows; otherwise the source waits for an answer.
    pub last: bool,
}

/// One named, versioned part of the VM's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePayload {
    /// Name ("hart0", "clock", "device3", …).
    pub name: String,
    /// Version of the content.
    pub version: u32,
    /// The content, little-endian.
    pub bytes: Vec<u8>,
}

/// All has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Final {
    /// Hash over RAM, disks and state ([`crate::hash`]).
    pub hash: [u8; 32],
    /// State payloads that were sent.
    pub payloads: u32,
}

/// Destination: everything is here and right; it waits for the hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The hash it found.
    pub hash: [u8; 32],
}

/// Source: the VM is yours. From here on the source never runs it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOver {
    /// Nanoseconds since the VM was paused.
    pub paused_ns: u64,
}

/// Destination: it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Nanoseconds from the pause to here.
    pub downtime_ns: u64,
}

/// Either side: it does not go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub reason: String,
}

/// Encodes a message.
///
/// # Errors
/// See [`codec::encode`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    codec::encode(message)
}

/// Decodes a message; every byte must be consumed.
///
/// # Errors
/// See [`codec::decode`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    codec::decode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_taken() {
        let offer = Offer { versions: vec![1, 9], codecs: vec![Codec::Zstd], program: "9".into() };
        let agreement = offer.agree().expect("agreement");
        assert_eq!((agreement.version, agreement.codecs), (1, vec![Codec::Zstd]));
        let newer = Offer { versions: vec![9], ..Offer::ours() };
        assert!(newer.agree().expect_err("nothing in common").to_string().contains("[9]"));
    }

    #[test]
    fn messages_keep_their_bytes() {
        let machine =
            Machine { description: "{}".into(), ram_bytes: 512 << 20, harts: 2, disks: vec![(1, 4096)] };
        assert_eq!(encode(&machine).expect("encode"), b"\x02{}\xfc\0\0\0\x20\x02\x01\x01\xfb\0\x10");
        assert_eq!(encode(&HandOver { paused_ns: 5 }).expect("encode"), b"\x05");
        let state = StatePayload { name: "clock".into(), version: 1, bytes: vec![1, 2] };
        assert_eq!(encode(&state).expect("encode"), b"\x05clock\x01\x02\x01\x02");
    }
}
