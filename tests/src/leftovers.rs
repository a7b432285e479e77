//! What a daemon must not leave behind: processes, shared memory, sockets, temporary files.

use crate::process::{self, Listed};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Segments are named after the daemon that made them.
#[must_use]
pub fn segments(daemon: u32) -> Vec<PathBuf> {
    let prefix = format!("quasar-{daemon}-");
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).map(|e| e.path()).collect()
}

/// Files in a directory and below.
#[must_use]
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What a daemon that has ended has left, in words; nothing is good.
///
/// `family` are its processes, `directories` those that only it writes into. Processes that are just ending get a few
/// seconds.
#[must_use]
pub fn of(daemon: u32, family: &[Listed], directories: &[&Path]) -> Vec<String> {
    let start = Instant::now();
    while family.iter().any(process::lives) && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let processes = family.iter().filter(|p| process::lives(p));
    let processes = processes.map(|p| format!("process {}: {}", p.pid, p.line));
    let segments = segments(daemon).into_iter().map(|p| format!("segment {}", p.display()));
    let files = directories.iter().flat_map(|d| files(d)).map(|p| format!("file {}", p.display()));
    processes.chain(segments).chain(files).collect()
}
