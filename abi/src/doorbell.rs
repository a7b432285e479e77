//! Doorbells: how one process wakes another that watches shared words.

use crate::le::AtomicLe32;
use crate::{futex, shm_struct};
use std::sync::atomic::Ordering;
use std::time::Duration;

shm_struct! {
    /// An event count. Ringing never blocks and costs no system call while nobody sleeps.
    ///
    /// A waiter reads [`Doorbell::seen`], looks at the words it cares for, and only then sleeps with
    /// what it had seen: a ring in between makes the sleep return at once.
    pub struct Doorbell: 8 => {
        /// Incremented by each ring.
        pub count: AtomicLe32,
        /// Threads asleep or about to sleep. A killed sleeper leaves it too high, which costs a wake.
        pub sleepers: AtomicLe32,
    }
}

impl Doorbell {
    /// The count to hand to [`Doorbell::wait`] after looking at the watched words.
    #[inline]
    #[must_use]
    pub fn seen(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }

    /// Wakes whoever waits. The words that the waiter is to see must be stored before.
    #[inline]
    pub fn ring(&self) {
        // SeqCst on both words, here and in `wait`: either the sleeper sees the new count, or we see the sleeper.
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            futex::wake(&self.count, futex::ALL);
        }
    }

    /// Sleeps until the doorbell has rung since `seen`, at most `timeout`.
    pub fn wait(&self, seen: u32, timeout: Option<Duration>) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        if self.count.load(Ordering::SeqCst) == seen {
            futex::wait(&self.count, seen, timeout);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Spins up to `spins` rounds for a ring, then sleeps: for a peer that answers within microseconds.
    /// Pass 0 spins where the host has but one core.
    pub fn wait_spinning(&self, seen: u32, spins: u32, timeout: Option<Duration>) {
        for _ in 0..spins {
            if self.count.load(Ordering::Acquire) != seen {
                return;
            }
            crate::sync::spin_loop();
        }
        self.wait(seen, timeout);
    }
}

/// Rounds to spin before sleeping: about 20 to 50 µs, none when there is but one core.
#[must_use]
pub fn default_spins() -> u32 {
    match std::thread::available_parallelism() {
        Ok(n) if n.get() > 1 => 2000,
        _ => 0,
    }
}
