//! What waits to be written to a link, in the order in which it was said.

use super::wire::{Message, encode};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes of frames that wait at most.
const QUEUE_BYTES: usize = 2 << 20;
/// How long a patient frame waits for room.
const PATIENCE: Duration = Duration::from_millis(100);
/// Bytes of words and frames beyond which the other side is given up: it asks for more than it takes.
const HOPELESS_BYTES: usize = 64 << 20;
/// Bytes taken at once.
const BATCH_BYTES: usize = 128 * 1024;

#[derive(Default)]
struct Inside {
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
    closed: bool,
}

/// The queue of a link.
#[derive(Default)]
pub struct Outbox {
    inside: Mutex<Inside>,
    more: Condvar,
    room: Condvar,
}

impl Outbox {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock()
    }

    fn put(&self, mut inside: MutexGuard<'_, Inside>, record: Vec<u8>) {
        inside.bytes += record.len();
        inside.queue.push_back(record);
        drop(inside);
        self.more.notify_one();
    }

    /// Queues what must not be lost while the connection lives, beyond the bound if need be: words about
    /// networks and moves, and a moved card's frames, which its ring bounds.
    pub fn say(&self, message: &Message<'_>) -> bool {
        let mut inside = self.inside();
        inside.closed |= inside.bytes > HOPELESS_BYTES;
        if inside.closed {
            return false;
        }
        self.put(inside, encode(message));
        true
    }

    /// Queues a frame; false when there was no room, after a while if patient.
    pub fn frame(&self, message: &Message<'_>, patient: bool) -> bool {
        let record = encode(message);
        let mut inside = self.inside();
        let by = Instant::now() + PATIENCE;
        while inside.bytes + record.len() > QUEUE_BYTES && !inside.closed {
            let left = by.saturating_duration_since(Instant::now());
            if !patient || left.is_zero() {
                return false;
            }
            self.room.wait_for(&mut inside, left);
        }
        if inside.closed {
            return false;
        }
        self.put(inside, record);
        true
    }

    /// Takes what waits, up to a batch, into `out`; false when the outbox was closed. Waits at most `timeout`.
    pub fn take(&self, out: &mut Vec<u8>, timeout: Duration) -> bool {
        out.clear();
        let mut inside = self.inside();
        if inside.queue.is_empty() && !inside.closed {
            self.more.wait_for(&mut inside, timeout);
        }
        while out.len() < BATCH_BYTES
            && let Some(record) = inside.queue.pop_front()
        {
            inside.bytes -= record.len();
            out.extend_from_slice(&record);
        }
        let open = !inside.closed;
        drop(inside);
        self.room.notify_all();
        open
    }

    /// Lets nothing in any more and wakes whoever waits.
    pub fn close(&self) {
        self.inside().closed = true;
        self.more.notify_all();
        self.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_are_bounded_words_are_not_and_nothing_passes_a_closed_box() {
        let outbox = Outbox::default();
        let bytes = vec![0; 60_000];
        let frame = Message::Frame { network: 1, directed: false, frame: &bytes };
        let taken = (0..100).filter(|_| outbox.frame(&frame, false)).count();
        assert_eq!(taken, QUEUE_BYTES / (60_000 + 10));
        assert!(outbox.say(&Message::Heartbeat));
        let mut out = vec![];
        assert!(outbox.take(&mut out, Duration::ZERO));
        assert!(out.len() >= BATCH_BYTES && outbox.frame(&frame, false));
        outbox.close();
        assert!(!outbox.frame(&frame, true) && !outbox.say(&Message::Heartbeat));
        while !out.is_empty() {
            assert!(!outbox.take(&mut out, Duration::ZERO));
        }
    }

    #[test]
    fn who_asks_for_more_than_it_takes_is_given_up() {
        let (outbox, frame) = (Outbox::default(), vec![0; 60_000]);
        let forward = Message::Forward { network: 1, mac: crate::ethernet::Mac([2; 6]), frame: &frame };
        let said = (0..2000).filter(|_| outbox.say(&forward)).count();
        assert!((HOPELESS_BYTES / 60_100..2 + HOPELESS_BYTES / 60_000).contains(&said), "{said}");
        let mut out = vec![];
        assert!(!outbox.take(&mut out, Duration::ZERO));
    }
}
