//! Headings of what is being done, each with the time since the command began.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static BEGIN: OnceLock<Instant> = OnceLock::new();

/// Begins to count.
pub fn begin() {
    BEGIN.get_or_init(Instant::now);
}

/// Time since the beginning.
pub fn elapsed() -> Duration {
    BEGIN.get_or_init(Instant::now).elapsed()
}

/// Says what comes next.
pub fn stage(what: &str) {
    let seconds = elapsed().as_secs();
    eprintln!("[{:>2}:{:02}] {what}", seconds / 60, seconds % 60);
}
