//! Batches of pages: up to 248 pages of one area, compressed together; up to 64 before version 3.
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

/// Pages in a batch, at most, since [`crate::message::LONG_BATCHES_SINCE`]: as many as fit into a frame. Zstandard finds more in
/// long batches.
pub const BATCH_PAGES: usize = 248;
/// Pages in a batch, at most, before that; also what is worth a thread of its own in a pause.
pub const SMALL_BATCH_PAGES: usize = 64;

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

    /// Empties it, to be filled anew.
    pub fn clear(&mut self) {
        self.pages.clear();
        self.bytes.clear();
    }
}

/// Encodes batches. What it works with is kept between them: fresh memory costs as much as the compression.
pub struct Packer {
    level: i32,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    space: Vec<u8>,
    /// The last batch did not shrink, so the next one has to show a little of itself first.
    doubtful: bool,
}

/// As much of a doubtful batch is tried: bytes.
const SAMPLE: usize = 4 * PAGE;

impl Packer {
    /// A packer that compresses with this level of Zstandard where it uses that.
    #[must_use]
    pub fn new(level: i32) -> Self {
        Self { level, zstd: None, space: vec![], doubtful: false }
    }

    fn zstd(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Compressor::new(self.level)?),
        };
        self.space.clear();
        self.space.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        zstd.compress_to_buffer(bytes, &mut self.space)
    }

    fn lz4(&mut self, bytes: &[u8]) -> Option<usize> {
        self.space.resize(lz4_flex::block::get_maximum_output_size(bytes.len()), 0);
        lz4_flex::block::compress_into(bytes, &mut self.space).ok()
    }

    /// Compresses into `space`; nothing when that does not pay.
    fn compress(&mut self, bytes: &[u8], codec: Codec) -> Option<usize> {
        let length = match codec {
            _ if bytes.is_empty() => None,
            Codec::Raw => None,
            Codec::Lz4 => self.lz4(bytes),
            Codec::Zstd => self.zstd(bytes).ok(),
        };
        length.filter(|length| *length < bytes.len())
    }

    fn shrinks(&mut self, bytes: &[u8], codec: Codec) -> bool {
        let middle = bytes.len() / 2 / PAGE * PAGE;
        let sample = bytes.get(middle..middle + SAMPLE).unwrap_or(bytes);
        self.compress(sample, codec).is_some_and(|length| length < sample.len() / 8 * 7)
    }

    /// Encodes a batch, falling back to raw when compression does not pay. `out` is the memory of an old one.
    #[must_use]
    pub fn pack(&mut self, batch: &Batch, codec: Codec, mut out: Vec<u8>) -> Vec<u8> {
        let hopeless = self.doubtful && !self.shrinks(&batch.bytes, codec);
        let length = if hopeless { None } else { self.compress(&batch.bytes, codec) };
        self.doubtful = length.is_none_or(|length| length > batch.bytes.len() / 8 * 7);
        let (codec, body) = match length {
            Some(length) => (codec, &self.space[..length]),
            None => (Codec::Raw, &batch.bytes[..]),
        };
        out.clear();
        out.reserve(4 + batch.pages.len() * 8 + body.len());
        let codec = codec as u8 | if batch.differences { DIFFERENCES } else { 0 };
        out.extend_from_slice(&[batch.area, codec]);
        out.extend_from_slice(&u16::try_from(batch.pages.len()).unwrap_or(0).to_le_bytes());
        for (index, zero) in &batch.pages {
            out.extend_from_slice(&(index << 1 | u64::from(*zero)).to_le_bytes());
        }
        out.extend_from_slice(body);
        out
    }
}

/// A batch that was decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked<'a> {
    /// Area.
    pub area: u8,
    /// Indices, each with whether it is zero.
    pub pages: Vec<(u64, bool)>,
    /// Whether the bytes are the exclusive or with what the pages held before.
    pub differences: bool,
    /// Bytes of the pages that are not zero, in order.
    pub bytes: &'a [u8],
}

impl Unpacked<'_> {
    /// Neighbouring pages together: the first one's index and their bytes; no bytes for one zero page.
    pub fn runs(&self) -> impl Iterator<Item = (u64, Option<&[u8]>)> {
        let (mut pages, mut rest) = (&self.pages[..], self.bytes);
        std::iter::from_fn(move || {
            let ((first, zero), after) = pages.split_first()?;
            if *zero {
                pages = after;
                return Some((*first, None));
            }
            let expected = (*first..).zip(pages);
            let length = expected.take_while(|(index, page)| **page == (*index, false)).count();
            pages = &pages[length..];
            let (run, behind) = rest.split_at((length * PAGE).min(rest.len()));
            rest = behind;
            Some((*first, Some(run)))
        })
    }
}

/// Decodes batches; it keeps what it works with, like [`Packer`].
#[derive(Default)]
pub struct Unpacker {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    space: Vec<u8>,
}

impl Unpacker {
    fn decompress(&mut self, codec: u8, body: &[u8], want: usize) -> Result<(), String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let space = &mut self.space;
        if codec == Codec::Lz4 as u8 {
            space.resize(want, 0);
            let length = lz4_flex::block::decompress_into(body, space).map_err(|e| words(&e))?;
            space.truncate(length);
            return Ok(());
        }
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(|e| words(&e))?),
        };
        space.clear();
        space.reserve(want);
        zstd.decompress_to_buffer(body, space).map(drop).map_err(|e| words(&e))
    }

    /// Decodes a batch; its size is bounded before anything is decompressed.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn unpack<'a>(&'a mut self, bytes: &'a [u8]) -> Result<Unpacked<'a>, BatchError> {
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
        let differences = codec & DIFFERENCES != 0;
        let bytes = match codec & !DIFFERENCES {
            0 => body,
            codec @ (1 | 2) => {
                let failed = |reason: String| BatchError::Compressed { pages: count, reason };
                self.decompress(codec, body, want).map_err(failed)?;
                &self.space
            }
            _ => return Err(BatchError::Malformed("unknown codec")),
        };
        if bytes.len() != want {
            return Err(BatchError::Malformed("length of the pages is not their number times 4096"));
        }
        Ok(Unpacked { area, pages, differences, bytes })
    }
}

/// Whether an encoded batch has [`SMALL_BATCH_PAGES`] at most, as far as it says itself.
#[must_use]
pub fn is_short(bytes: &[u8]) -> bool {
    let count = bytes.get(2..4).and_then(|count| count.first_chunk());
    count.is_none_or(|count| usize::from(u16::from_le_bytes(*count)) <= SMALL_BATCH_PAGES)
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
        fn what_goes_in_comes_out(seeds in prop::collection::vec((0u32..400, 0u8..3, any::<u8>()), 1..BATCH_PAGES), differences: bool) {
            let mut batch = Batch { area: 3, differences, ..Batch::default() };
            let (mut packer, mut unpacker, mut pages) = (Packer::new(1), Unpacker::default(), vec![]);
            for (index, kind, seed) in &seeds {
                let mut state = u32::from(*seed) | 1;
                let page: Vec<u8> = (0..PAGE).map(|_| match kind {
                    0 => 0,
                    1 => *seed | 1,
                    _ => { state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); state.to_le_bytes()[3] }
                }).collect();
                prop_assert_eq!(batch.push(u64::from(*index), &page), *kind == 0);
                pages.push((u64::from(*index), page));
            }
            for codec in [Codec::Raw, Codec::Lz4, Codec::Zstd] {
                let encoded = packer.pack(&batch, codec, vec![9; 5]);
                prop_assert!(encoded.len() <= crate::frame::MAX_PAYLOAD);
                let decoded = unpacker.unpack(&encoded).expect("decode");
                prop_assert_eq!((decoded.area, decoded.differences), (3, differences));
                let runs = decoded.runs().flat_map(|(first, bytes)| match bytes {
                    None => vec![(first, vec![0; PAGE])],
                    Some(bytes) => (first..).zip(bytes.chunks(PAGE).map(<[u8]>::to_vec)).collect(),
                });
                prop_assert_eq!(runs.collect::<Vec<_>>(), pages.clone());
            }
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Unpacker::default().unpack(&bytes);
        }

        #[test]
        fn damage_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>()) {
            let mut batch = Batch::default();
            batch.push(1, &[5; PAGE]);
            batch.push(2, &[0; PAGE]);
            for codec in [Codec::Lz4, Codec::Zstd] {
                let mut encoded = Packer::new(1).pack(&batch, codec, vec![]);
                let at = at.index(encoded.len());
                encoded[at] = value;
                if let Ok(decoded) = Unpacker::default().unpack(&encoded) {
                    prop_assert!(decoded.pages.len() <= BATCH_PAGES);
                }
            }
        }
    }
}
