//! Futexes under the model checker: what the kernel promises, and no more.
//!
//! The kernel compares the word and falls asleep under a lock that a waker takes too. Nothing ends a sleep
//! but a wake: a timeout would hide a wake-up that is lost.

use crate::le::AtomicLe32;
use loom::sync::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

type Sleepers = BTreeMap<usize, Arc<Condvar>>;

loom::lazy_static! {
    static ref SLEEPERS: Mutex<Sleepers> = Mutex::new(BTreeMap::new());
}

fn sleepers() -> MutexGuard<'static, Sleepers> {
    match SLEEPERS.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

fn key(word: &AtomicLe32) -> usize {
    std::ptr::from_ref(word).addr()
}

/// All sleepers.
pub const ALL: u32 = i32::MAX.unsigned_abs();

/// Sleeps while `word` holds `expected`.
pub fn wait(word: &AtomicLe32, expected: u32, _timeout: Option<Duration>) {
    let mut table = sleepers();
    if word.get() == expected {
        let queue = Arc::clone(table.entry(key(word)).or_insert_with(|| Arc::new(Condvar::new())));
        drop(queue.wait(table));
    }
}

/// Wakes up to `count` sleepers on `word`.
pub fn wake(word: &AtomicLe32, count: u32) {
    let table = sleepers();
    match table.get(&key(word)) {
        Some(queue) if count == 1 => queue.notify_one(),
        Some(queue) => queue.notify_all(),
        None => {}
    }
}
