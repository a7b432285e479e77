//! Shared futexes: sleeping on a word of a segment until another process changes it.

use crate::le::AtomicLe32;
use rustix::thread::futex::{self, Flags, Timespec};
use std::time::Duration;

/// All sleepers: the kernel counts them with a sign.
pub const ALL: u32 = i32::MAX.unsigned_abs();

/// Sleeps while `word` holds `expected`, at most `timeout`. May return early; the caller looks again.
pub fn wait(word: &AtomicLe32, expected: u32, timeout: Option<Duration>) {
    let spec = timeout.map(|t| Timespec {
        tv_sec: t.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    // The kernel compares native words, so the expected value is given in the byte order that lies in memory. Any error
    // is an early return: the word holds something else, a signal came, the time has passed.
    futex::wait(word.raw(), Flags::empty(), expected.to_le(), spec.as_ref()).ok();
}

/// Wakes up to `count` sleepers on `word`.
pub fn wake(word: &AtomicLe32, count: u32) {
    // A word that is mapped can be named to the kernel.
    futex::wake(word.raw(), Flags::empty(), count).ok();
}
