//! Batches of pages: up to 64 pages of one area, compressed together.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | area: 0 RAM, 1 + slot for a disk |
//! | 1 | codec: 0 raw, 1 LZ4, 2 Zstandard; 128 is added when the bytes are differences (version 2) |
//! | 2 | number of pages |
//! | 8 each | page index << 1, lowest bit set when the page is zero |
//! | rest | the bytes of the pages that are not zero, compressed; of a difference, the exclusive or with what the page
//! held before |

use crate::message::Codec;
use quasar_abi::ram::PAGE_LEN as PAGE;

/// Pages in a batch, at most.
pub const BATCH_PAGES: usize = 64;

/// Added to the codec when the bytes are differences.
const DIFFERENCES: u8 = 128;

/// A batch that cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The header does not fit the bytes.
    #[error("malformed batch of pages: {0}")]
    Malformed(&'static str),
    /// The compressed bytes are no such thing.
    #[error("a batch of {pages} pages does not decompress: {reason}")]
    Compressed {
        /// Pages announced.
        pages: usize,
        /// What the library said.
        reason: String,
    },
}

/// Pages of one area on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Area.
    pub area: u8,
    /// Indices, each with whether it is zero.
    pub pages: Vec<(u64, bool)>,
    /// Whether the bytes are the exclusive or with what the pages held before.
    pub differences: bool,
    /// Bytes of the pages that are not zero, in order.
    pub bytes: Vec<u8>,
}

impl Batch {
    /// Adds a page; an all-zero one as such. Returns whether it was zero.
    pub fn push(&mut self, index: u64, page: &[u8]) -> bool {
        let zero = is_zero(page);
        self.pages.push((index, zero));
        if !zero {
            self.bytes.extend_from_slice(page);
        }
        zero
    }

    /// Encodes the batch, falling back to raw when compression does not pay.
    #[must_use]
    pub fn encode(&self, codec: Codec, zstd_level: i32) -> Vec<u8> {
        let compressed = match codec {
            _ if self.bytes.is_empty() => None,
            Codec::Raw => None,
            Codec::Lz4 => Some(lz4_flex::block::compress(&self.bytes)),
            Codec::Zstd => zstd::bulk::compress(&self.bytes, zstd_level).ok(),
        };
        let (codec, body) = match &compressed {
            Some(bytes) if bytes.len() < self.bytes.len() => (codec, &bytes[..]),
            _ => (Codec::Raw, &self.bytes[..]),
        };
        let mut out = Vec::with_capacity(4 + self.pages.len() * 8 + body.len());
        let codec = codec as u8 | if self.differences { DIFFERENCES } else { 0 };
        out.extend_from_slice(&[self.area, codec]);
        out.extend_from_slice(&u16::try_from(self.pages.len()).unwrap_or(0).to_le_bytes());
        for (index, zero) in &self.pages {
            out.extend_from_slice(&(index << 1 | u64::from(*zero)).to_le_bytes());
        }
        out.extend_from_slice(body);
        out
    }

    /// Decodes a batch; its size is bounded before anything is decompressed.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        let (head, rest) = bytes.split_first_chunk::<4>().ok_or(BatchError::Malformed("no header"))?;
        let [area, codec, c0, c1] = *head;
        let count = usize::from(u16::from_le_bytes([c0, c1]));
        if count == 0 || count > BATCH_PAGES || rest.len() < count * 8 {
            return Err(BatchError::Malformed("impossible number of pages"));
        }
        let (indices, body) = rest.split_at(count * 8);
        let word = |w: &[u8; 8]| u64::from_le_bytes(*w);
        let pages: Vec<_> = indices.as_chunks().0.iter().map(|w| (word(w) >> 1, word(w) & 1 != 0)).collect();
        let present = pages.iter().filter(|(_, zero)| !zero).count();
        let want = present * PAGE;
        let failed = |reason: String| BatchError::Compressed { pages: count, reason };
        let bytes = match codec & !DIFFERENCES {
            0 => body.to_vec(),
            1 => lz4_flex::block::decompress(body, want).map_err(|e| failed(e.to_string()))?,
            2 => zstd::bulk::decompress(body, want).map_err(|e| failed(e.to_string()))?,
            _ => return Err(BatchError::Malformed("unknown codec")),
        };
        if bytes.len() != want {
            return Err(BatchError::Malformed("length of the pages is not their number times 4096"));
        }
        Ok(Self { area, pages, differences: codec & DIFFERENCES != 0, bytes })
    }

    /// The pages with their bytes; nothing for a zero page.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Option<&[u8]>)> {
        let mut rest = self.bytes.chunks_exact(PAGE);
        self.pages.iter().map(move |(index, zero)| (*index, if *zero { None } else { rest.next() }))
    }
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(page: &[u8]) -> bool {
    let (words, rest) = page.as_chunks::<32>();
    words.iter().all(|w| *w == [0; 32]) && rest.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(seeds in prop::collection::vec((any::<u32>(), 0u8..3, any::<u8>()), 1..BATCH_PAGES), differences: bool) {
            let mut batch = Batch { area: 3, differences, ..Batch::default() };
            for (index, kind, seed) in &seeds {
                let mut state = u32::from(*seed) | 1;
                let page: Vec<u8> = (0..PAGE).map(|_| match kind {
                    0 => 0,
                    1 => *seed | 1,
                    _ => { state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); state.to_le_bytes()[3] }
                }).collect();
                prop_assert_eq!(batch.push(u64::from(*index), &page), *kind == 0);
            }
            for codec in [Codec::Raw, Codec::Lz4, Codec::Zstd] {
                let encoded = batch.encode(codec, 1);
                prop_assert!(encoded.len() <= crate::frame::MAX_PAYLOAD);
                prop_assert_eq!(&Batch::decode(&encoded).expect("decode"), &batch);
            }
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Batch::decode(&bytes);
        }

        #[test]
        fn damage_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>()) {
            let mut batch = Batch::default();
            batch.push(1, &[5; PAGE]);
            batch.push(2, &[0; PAGE]);
            for codec in [Codec::Lz4, Codec::Zstd] {
                let mut encoded = batch.encode(codec, 1);
                let at = at.index(encoded.len());
                encoded[at] = value;
                if let Ok(decoded) = Batch::decode(&encoded) {
                    prop_assert!(decoded.pages.len() <= BATCH_PAGES);
                }
            }
        }
    }
}
