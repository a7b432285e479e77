//! Console rings: what the guest wrote, kept as history, and what it is to read.

use crate::doorbell::Doorbell;
use crate::le::AtomicLe64;
use crate::shm_struct;
use crate::sync::AtomicU8;
use std::sync::atomic::Ordering;

/// Index of the 16550A's console in [`ConsoleSegment::consoles`].
pub const UART_CONSOLE: usize = 0;
/// Index of the virtio console's.
pub const VIRTIO_CONSOLE: usize = 1;
/// Bytes of output kept.
pub const OUTPUT_BYTES: usize = if cfg!(loom) { 4 } else { 256 * 1024 };
/// Bytes of input that can wait.
pub const INPUT_BYTES: usize = if cfg!(loom) { 2 } else { 4096 };

shm_struct! {
    /// One console. The devices process writes output and reads input; the supervisor does the reverse.
    pub struct Console: 266_304 => {
        /// Bytes ever written by the guest; the newest [`OUTPUT_BYTES`] of them are in `output`.
        pub written: AtomicLe64,
        /// Bytes ever put into `input`.
        pub input_head: AtomicLe64,
        /// Bytes ever taken out of `input`.
        pub input_tail: AtomicLe64,
        /// Rung when output was written.
        pub output_bell: Doorbell,
        /// Rung when room was made in `input`.
        pub room_bell: Doorbell,
        /// Zero.
        pub reserved: [AtomicLe64; 3],
        /// Ring of output.
        pub output: [AtomicU8; OUTPUT_BYTES],
        /// Ring of input.
        pub input: [AtomicU8; INPUT_BYTES],
    }
}

shm_struct! {
    /// The console segment's payload.
    pub struct ConsoleSegment: 532_608 => {
        /// By [`UART_CONSOLE`] and [`VIRTIO_CONSOLE`].
        pub consoles: [Console; 2],
    }
}

#[expect(clippy::cast_possible_truncation, reason = "reduced modulo the ring's length")]
const fn at(position: u64, len: usize) -> usize {
    position as usize % len
}

impl Console {
    /// Devices: appends guest output, overwriting the oldest, and rings.
    pub fn write(&self, bytes: &[u8]) {
        let mut position = self.written.get();
        for byte in bytes {
            self.output[at(position, OUTPUT_BYTES)].store(*byte, Ordering::Relaxed);
            position += 1;
        }
        self.written.store(position, Ordering::Release);
        self.output_bell.ring();
    }

    /// Supervisor: copies output from position `from` on into `out`; returns how many bytes and the
    /// position to go on from. Output that was overwritten before it was read is skipped.
    pub fn read(&self, from: u64, out: &mut [u8]) -> (usize, u64) {
        let written = self.written.load(Ordering::Acquire);
        let start = from.max(written.saturating_sub(OUTPUT_BYTES as u64)).min(written);
        let count = usize::try_from(written - start).unwrap_or(usize::MAX).min(out.len());
        for (position, byte) in (start..).zip(&mut out[..count]) {
            *byte = self.output[at(position, OUTPUT_BYTES)].load(Ordering::Relaxed);
        }
        (count, start + count as u64)
    }

    /// Supervisor: queues input; returns how many bytes had room. Ring the devices process afterwards.
    pub fn push_input(&self, bytes: &[u8]) -> usize {
        let head = self.input_head.get();
        let used = head.wrapping_sub(self.input_tail.load(Ordering::Acquire));
        let room = INPUT_BYTES.saturating_sub(usize::try_from(used).unwrap_or(INPUT_BYTES));
        let count = room.min(bytes.len());
        for (position, byte) in (head..).zip(&bytes[..count]) {
            self.input[at(position, INPUT_BYTES)].store(*byte, Ordering::Relaxed);
        }
        self.input_head.store(head.wrapping_add(count as u64), Ordering::Release);
        count
    }

    /// Devices: the waiting input, `most` bytes of it. It goes on waiting until [`Console::input_taken`], so that what
    /// a killed process had looked at is not lost.
    #[must_use]
    pub fn waiting_input(&self, most: usize) -> Vec<u8> {
        let tail = self.input_tail.get();
        let waiting = self.input_head.load(Ordering::Acquire).wrapping_sub(tail);
        let count = usize::try_from(waiting).unwrap_or(INPUT_BYTES).min(INPUT_BYTES).min(most);
        let byte = |ahead: u64| self.input[at(tail.wrapping_add(ahead), INPUT_BYTES)].load(Ordering::Relaxed);
        (0..).take(count).map(byte).collect()
    }

    /// Devices: input has been taken up to this value of `input_tail`, by the guest or into a saved state.
    pub fn input_taken(&self, tail: u64) {
        self.input_tail.store(tail, Ordering::Release);
        self.room_bell.ring();
    }

    /// Whether input waits.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.input_tail.get() != self.input_head.load(Ordering::Acquire)
    }
}
