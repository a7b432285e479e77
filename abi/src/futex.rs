//! Shared futexes: sleeping on a word of a segment until another process changes it.

use crate::le::AtomicLe32;
use nix::libc;
use std::time::Duration;

/// Sleeps while `word` holds `expected`, at most `timeout`. May return early; the caller looks again.
pub fn wait(word: &AtomicLe32, expected: u32, timeout: Option<Duration>) {
    let spec = timeout.map(|t| libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    let spec_ptr = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the address is a live, aligned 32-bit word; FUTEX_WAIT only compares and sleeps. The kernel
    // compares native words, so the expected value is given in the byte order that lies in memory.
    unsafe {
        libc::syscall(libc::SYS_futex, word.raw().as_ptr(), libc::FUTEX_WAIT, expected.to_le(), spec_ptr);
    }
}

/// Wakes up to `count` sleepers on `word`.
pub fn wake(word: &AtomicLe32, count: i32) {
    // SAFETY: FUTEX_WAKE uses the address as a key only.
    unsafe {
        libc::syscall(libc::SYS_futex, word.raw().as_ptr(), libc::FUTEX_WAKE, count);
    }
}
