//! What a daemon must not leave behind: processes, shared memory, sockets, temporary files.

use crate::process::{self, Listed};
use anyhow::Context;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Segments are called after the daemon that made them. Named ones: there are none, but while one is made.
#[must_use]
pub fn named_segments(daemon: u32) -> Vec<PathBuf> {
    let prefix = format!("quasar-{daemon}-");
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).map(|e| e.path()).collect()
}

/// The segments of a daemon's that a process has mapped, or only holds a descriptor of, without what makes their names
/// unique: "web.1-ram".
#[must_use]
pub fn segments_of(process: u32, daemon: u32) -> BTreeSet<String> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let open = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let open = open.map(|link| link.to_string_lossy().into_owned());
    let mark = format!("/dev/shm/quasar-{daemon}-");
    let name = |line: String| {
        let (_, name) = line.split_once(&mark)?;
        Some(name.trim_end_matches(" (deleted)").rsplit_once('.')?.0.to_owned())
    };
    maps.lines().map(str::to_owned).chain(open).filter_map(name).collect()
}

/// The same of one VM, and whether that is all: "control maps ram".
///
/// # Errors
/// When the process has segments of other VMs too.
pub fn kinds_of(process: u32, daemon: u32, vm: &str) -> anyhow::Result<String> {
    let mark = format!("{vm}.");
    let kind = |name: String| Some(name.strip_prefix(&mark)?.split_once('-')?.1.to_owned());
    let all = segments_of(process, daemon);
    let kinds = all.iter().map(|name| kind(name.clone())).collect::<Option<Vec<_>>>();
    Ok(kinds.with_context(|| format!("other VMs' segments than {vm}'s: {all:?}"))?.join(" "))
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
    let segments = named_segments(daemon).into_iter().map(|p| format!("segment {}", p.display()));
    let files = directories.iter().flat_map(|d| files(d)).map(|p| format!("file {}", p.display()));
    processes.chain(segments).chain(files).collect()
}
