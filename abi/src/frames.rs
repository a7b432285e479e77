//! Packet rings between a VM's network card and the host's switch.
//!
//! A port is a segment with one ring per direction. A ring holds records of a 32-bit length and that many
//! bytes, padded to 8; positions count bytes for ever. One producer, one consumer; neither trusts the other.

use crate::doorbell::Doorbell;
use crate::le::{AtomicLe32, AtomicLe64};
use crate::shm_struct;
use std::sync::atomic::Ordering;

/// Bytes of a ring.
pub const RING_BYTES: usize = if cfg!(loom) { 32 } else { 512 * 1024 };
/// Longest frame, Ethernet header included, checksum not.
pub const MAX_FRAME_BYTES: usize = 65_550;
const WORDS: usize = RING_BYTES / 8;

shm_struct! {
    /// One direction.
    pub struct FrameRing: 524_416 => {
        /// Bytes ever put in; written by the producer.
        pub head: AtomicLe64,
        /// Bytes ever taken out; written by the consumer.
        pub tail: AtomicLe64,
        /// Rung after a frame was put in.
        pub data_bell: Doorbell,
        /// Rung after frames were taken out of a ring that was full.
        pub room_bell: Doorbell,
        /// Frames dropped because the ring was full.
        pub dropped: AtomicLe64,
        /// Non-zero while the producer waits for room; it looks for room once more after saying so (SeqCst).
        pub full: AtomicLe32,
        /// Zero.
        pub reserved0: AtomicLe32,
        /// Zero.
        pub reserved: [AtomicLe64; 10],
        /// The bytes, as little-endian words.
        pub words: [AtomicLe64; WORDS],
    }
}

shm_struct! {
    /// A port segment's payload.
    pub struct PortSegment: 1_048_960 => {
        /// Non-zero while the card is up (driver ready).
        pub card_up: AtomicLe32,
        /// Non-zero while the switch serves the port.
        pub link_up: AtomicLe32,
        /// Zero.
        pub reserved: [AtomicLe64; 15],
        /// From the card to the switch.
        pub to_switch: FrameRing,
        /// From the switch to the card.
        pub to_card: FrameRing,
    }
}

/// Why a frame was not put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// No room now; wait for the room bell or drop.
    #[error("the packet ring is full")]
    Full,
    /// Longer than [`MAX_FRAME_BYTES`] or empty.
    #[error("a frame of {0} bytes cannot be carried")]
    Length(usize),
}

/// The other side left something in the ring that no producer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet ring is damaged (head {head}, tail {tail}, length {length}); it was emptied")]
pub struct Damaged {
    /// Producer's position.
    pub head: u64,
    /// Consumer's position.
    pub tail: u64,
    /// Record length found.
    pub length: u64,
}

const fn word_at(position: u64) -> usize {
    (position / 8) as usize % WORDS
}

const fn record_bytes(len: usize) -> u64 {
    (8 + len.next_multiple_of(8)) as u64
}

impl FrameRing {
    /// Producer: puts a frame in and rings. One thread at a time.
    ///
    /// # Errors
    /// [`PushError`].
    pub fn push(&self, frame: &[u8]) -> Result<(), PushError> {
        if frame.is_empty() || frame.len() > MAX_FRAME_BYTES {
            return Err(PushError::Length(frame.len()));
        }
        let head = self.head.get();
        // SeqCst for a producer that has just said that it waits (`full`); it pairs with `free`.
        let used = head.wrapping_sub(self.tail.load(Ordering::SeqCst));
        let need = record_bytes(frame.len());
        if used.saturating_add(need) > RING_BYTES as u64 {
            return Err(PushError::Full);
        }
        self.words[word_at(head)].set(frame.len() as u64);
        for (index, chunk) in frame.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.words[word_at(head + 8 + index as u64 * 8)].set(u64::from_le_bytes(word));
        }
        self.head.store(head + need, Ordering::Release);
        self.data_bell.ring();
        Ok(())
    }

    /// Producer: puts a frame in or counts it as dropped.
    pub fn push_or_drop(&self, frame: &[u8]) -> bool {
        let done = self.push(frame).is_ok();
        if !done {
            self.dropped.bump(1);
        }
        done
    }

    /// Consumer: takes the next frame into `out` (cleared first). One thread at a time.
    ///
    /// # Errors
    /// [`Damaged`]: the ring was emptied and goes on.
    pub fn pop(&self, out: &mut Vec<u8>) -> Result<bool, Damaged> {
        out.clear();
        let tail = self.tail.get();
        let head = self.head.load(Ordering::Acquire);
        if head == tail {
            return Ok(false);
        }
        let length = self.words[word_at(tail)].get();
        let len = usize::try_from(length).unwrap_or(usize::MAX);
        let used = head.wrapping_sub(tail);
        if len == 0 || len > MAX_FRAME_BYTES || used > RING_BYTES as u64 || record_bytes(len) > used {
            self.free(head);
            return Err(Damaged { head, tail, length });
        }
        for index in 0..len.div_ceil(8) as u64 {
            out.extend_from_slice(&self.words[word_at(tail + 8 + index * 8)].get().to_le_bytes());
        }
        out.truncate(len);
        self.free(tail + record_bytes(len));
        Ok(true)
    }

    /// Consumer: everything before `tail` is room again. Either we see that the producer waits, or it sees
    /// the room.
    fn free(&self, tail: u64) {
        self.tail.store(tail, Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) != 0 {
            self.room_bell.ring();
        }
    }

    /// Whether a frame waits.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.head.load(Ordering::Acquire) != self.tail.get()
    }
}
