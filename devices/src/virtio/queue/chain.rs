//! Descriptor chains: fetched once, checked, then used from the copy.

use crate::dma::Dma;
use quasar_abi::ram::NotRam;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const DESCRIPTOR: u64 = 16;
/// Longest indirect table walked. Drivers with indirect descriptors exceed the queue's size; none comes near this.
pub const MAX_INDIRECT: u64 = 1024;

/// How a driver broke its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A ring, table or buffer lies outside RAM.
    #[error(transparent)]
    NotRam(#[from] NotRam),
    /// An index jumped further than the ring is long.
    #[error("the {ring} index is {index}, expected {expected} or little more")]
    Index {
        /// Which ring.
        ring: &'static str,
        /// Its value.
        index: u16,
        /// What the device has reached.
        expected: u16,
    },
    /// A descriptor number beyond the table.
    #[error("descriptor {index} of a table of {size}")]
    Descriptor {
        /// The number.
        index: u16,
        /// The table's size.
        size: u64,
    },
    /// More descriptors than the table has: a loop.
    #[error("a chain of more than {0} descriptors: it loops")]
    Loop(u64),
    /// An indirect descriptor inside a table, with a next one, or not agreed upon; or a table of no whole number
    /// of descriptors.
    #[error("indirect descriptor not allowed here (table of {0} bytes)")]
    Indirect(u32),
    /// A buffer to read after one to write.
    #[error("a device-readable buffer after a device-writable one")]
    Order,
    /// The buffers hold more than the device takes at a time.
    #[error("buffers of {found} bytes where {most} are the most")]
    Long {
        /// Most bytes.
        most: u64,
        /// Bytes there.
        found: u64,
    },
    /// The buffers hold less than the device's protocol needs.
    #[error("buffers of {found} bytes where the protocol needs {needed}")]
    Short {
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        found: u64,
    },
}

/// A range of guest memory; checked to be RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub gpa: u64,
    /// Bytes.
    pub len: u32,
}

/// A buffer of the driver's: what the device may read, then what it may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its first descriptor, by which it is returned.
    pub head: u16,
    /// To be read by the device.
    pub readable: Vec<Span>,
    /// To be written by the device.
    pub writable: Vec<Span>,
}

struct Descriptor {
    span: Span,
    flags: u16,
    next: u16,
}

fn fetch(dma: &Dma, table: u64, index: u16) -> Result<Descriptor, RingError> {
    let mut bytes = [0; 16];
    dma.read(table + DESCRIPTOR * u64::from(index), &mut bytes)?;
    let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
    Ok(Descriptor {
        span: Span {
            gpa: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
        },
        flags: u16::from_le_bytes([f0, f1]),
        next: u16::from_le_bytes([n0, n1]),
    })
}

impl Chain {
    /// Walks the chain that starts at `head` in a table of `size` descriptors.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn walk(dma: &Dma, table: u64, size: u16, head: u16, indirect: bool) -> Result<Self, RingError> {
        let mut chain = Self { head, readable: vec![], writable: vec![] };
        let end = chain.collect(dma, table, size.into(), head)?;
        if let Some(span) = end {
            let len = u64::from(span.len);
            let entries = len / DESCRIPTOR;
            if !indirect || entries == 0 || entries > MAX_INDIRECT || !len.is_multiple_of(DESCRIPTOR) {
                return Err(RingError::Indirect(span.len));
            }
            if !dma.contains(span.gpa, len) {
                return Err(NotRam { gpa: span.gpa, len }.into());
            }
            if chain.collect(dma, span.gpa, entries, 0)?.is_some() {
                return Err(RingError::Indirect(span.len));
            }
        }
        Ok(chain)
    }

    /// Collects descriptors of one table; ends early, with its table, at an indirect one.
    fn collect(&mut self, dma: &Dma, table: u64, size: u64, head: u16) -> Result<Option<Span>, RingError> {
        let mut index = head;
        for _ in 0..size {
            if u64::from(index) >= size {
                return Err(RingError::Descriptor { index, size });
            }
            let Descriptor { span, flags, next } = fetch(dma, table, index)?;
            if flags & INDIRECT != 0 {
                return if flags & NEXT == 0 { Ok(Some(span)) } else { Err(RingError::Indirect(span.len)) };
            }
            // An empty buffer holds nothing, wherever it lies.
            if span.len > 0 {
                if !dma.contains(span.gpa, span.len.into()) {
                    return Err(NotRam { gpa: span.gpa, len: span.len.into() }.into());
                }
                match flags & WRITE != 0 {
                    true => self.writable.push(span),
                    false if self.writable.is_empty() => self.readable.push(span),
                    false => return Err(RingError::Order),
                }
            }
            if flags & NEXT == 0 {
                return Ok(None);
            }
            index = next;
        }
        Err(RingError::Loop(size))
    }

    /// Bytes to be read.
    #[must_use]
    pub fn readable_len(&self) -> u64 {
        self.readable.iter().map(|span| u64::from(span.len)).sum()
    }

    /// Bytes to be written.
    #[must_use]
    pub fn writable_len(&self) -> u64 {
        self.writable.iter().map(|span| u64::from(span.len)).sum()
    }

    /// Copies readable bytes from `offset` on.
    ///
    /// # Errors
    /// [`RingError::Short`] when there are fewer.
    pub fn read(&self, dma: &Dma, offset: u64, out: &mut [u8]) -> Result<(), RingError> {
        let mut done = 0;
        for (gpa, len) in pieces(&self.readable, offset, out.len())? {
            dma.read(gpa, &mut out[done..done + len])?;
            done += len;
        }
        Ok(())
    }

    /// Copies bytes into the writable part from `offset` on.
    ///
    /// # Errors
    /// [`RingError::Short`] when there is less room.
    pub fn write(&self, dma: &Dma, offset: u64, bytes: &[u8]) -> Result<(), RingError> {
        let mut done = 0;
        for (gpa, len) in pieces(&self.writable, offset, bytes.len())? {
            dma.write(gpa, &bytes[done..done + len])?;
            done += len;
        }
        Ok(())
    }
}

/// The pieces of guest memory that `len` bytes from `offset` on occupy.
fn pieces(spans: &[Span], offset: u64, len: usize) -> Result<Vec<(u64, usize)>, RingError> {
    let (mut skip, mut left, mut found) = (offset, len as u64, vec![]);
    for span in spans {
        let size = u64::from(span.len);
        if left == 0 {
            break;
        }
        if skip >= size {
            skip -= size;
            continue;
        }
        let take = left.min(size - skip);
        found.push((span.gpa + skip, usize::try_from(take).unwrap_or(usize::MAX)));
        left -= take;
        skip = 0;
    }
    if left == 0 {
        Ok(found)
    } else {
        let there = spans.iter().map(|span| u64::from(span.len)).sum();
        Err(RingError::Short { needed: offset.saturating_add(len as u64), found: there })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_cross_spans_and_never_exceed_them() {
        let spans = [Span { gpa: 100, len: 4 }, Span { gpa: 200, len: 4 }];
        assert_eq!(pieces(&spans, 2, 4), Ok(vec![(102, 2), (200, 2)]));
        assert_eq!(pieces(&spans, 8, 0), Ok(vec![]));
        assert_eq!(pieces(&spans, 5, 4), Err(RingError::Short { needed: 9, found: 8 }));
    }

    proptest! {
        #[test]
        fn pieces_hold_exactly_what_was_asked(
            lens in prop::collection::vec(1..50u32, 0..8), offset in 0..200u64, len in 0..200usize,
        ) {
            let spans: Vec<Span> =
                lens.iter().zip(0u64..).map(|(len, n)| Span { gpa: n * 1000, len: *len }).collect();
            let total: u64 = lens.iter().copied().map(u64::from).sum();
            match pieces(&spans, offset, len) {
                Ok(found) => prop_assert_eq!(found.iter().map(|(_, len)| len).sum::<usize>(), len),
                Err(_) => prop_assert!(offset + len as u64 > total),
            }
        }
    }
}
