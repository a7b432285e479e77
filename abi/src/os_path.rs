//! Paths in messages. A file's name on Unix is bytes, and need not be UTF-8: `serde`'s own form of a path refuses others.
//!
//! In text (JSON) a path is a string when it is UTF-8, else an array of its bytes; in binary form it is its length and its
//! bytes, which is what a string's is.

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserializer, Serializer};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Writes a path.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(
    path: &(impl AsRef<Path> + ?Sized),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let path = path.as_ref();
    let bytes = path.as_os_str().as_bytes();
    match path.to_str() {
        _ if !serializer.is_human_readable() => serializer.serialize_bytes(bytes),
        Some(text) => serializer.serialize_str(text),
        None => serializer.collect_seq(bytes),
    }
}

struct PathVisitor;

impl<'de> Visitor<'de> for PathVisitor {
    type Value = PathBuf;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a path: a string, or an array of bytes when it is not UTF-8")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PathBuf, E> {
        Ok(text.into())
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<PathBuf, E> {
        Ok(OsStr::from_bytes(bytes).into())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<PathBuf, E> {
        Ok(std::ffi::OsString::from_vec(bytes).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<PathBuf, A::Error> {
        let mut bytes = vec![];
        while let Some(byte) = sequence.next_element()? {
            bytes.push(byte);
        }
        self.visit_byte_buf(bytes)
    }
}

/// Reads a path.
///
/// # Errors
/// The deserializer's.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_any(PathVisitor)
    } else {
        deserializer.deserialize_byte_buf(PathVisitor)
    }
}

/// The same for a path that may be missing.
pub mod optional {
    use super::{Deserializer, Path, PathBuf, Serializer};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize)]
    struct Out<'a>(#[serde(serialize_with = "super::serialize")] &'a Path);

    #[derive(Deserialize)]
    struct In(#[serde(deserialize_with = "super::deserialize")] PathBuf);

    /// Writes a path or nothing.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_deref().map(Out).serialize(serializer)
    }

    /// Reads a path or nothing.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<In>::deserialize(deserializer)?.map(|path| path.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::codec;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Ours {
        #[serde(with = "super")]
        path: PathBuf,
        #[serde(with = "super::optional", default)]
        more: Option<PathBuf>,
    }

    #[derive(Serialize)]
    struct Plain {
        path: PathBuf,
        more: Option<PathBuf>,
    }

    #[test]
    fn a_path_of_utf_8_is_what_it_was() {
        let path = PathBuf::from("/img/ä,ro.raw");
        for more in [None, Some(path.clone())] {
            let plain = Plain { path: path.clone(), more: more.clone() };
            let ours = Ours { path: path.clone(), more };
            assert_eq!(codec::encode(&ours).expect("encode"), codec::encode(&plain).expect("encode"));
            assert_eq!(
                serde_json::to_value(&ours).expect("json"),
                serde_json::to_value(&plain).expect("json")
            );
        }
    }

    #[test]
    fn any_bytes_come_back() {
        let path = PathBuf::from(OsStr::from_bytes(b"/img/\xff\xfe\n.raw"));
        for more in [None, Some(path.clone())] {
            let ours = Ours { path: path.clone(), more };
            assert_eq!(codec::decode::<Ours>(&codec::encode(&ours).expect("encode")).expect("decode"), ours);
            let text = serde_json::to_string(&ours).expect("json");
            assert_eq!(serde_json::from_str::<Ours>(&text).expect("json"), ours);
        }
        assert!(serde_json::from_str::<Ours>(r#"{"path": [256]}"#).is_err());
        assert!(serde_json::from_str::<Ours>(r#"{"path": 1}"#).is_err());
    }
}
