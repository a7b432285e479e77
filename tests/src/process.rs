//! Running other programs, and looking at the system's processes.

use anyhow::{Context, bail, ensure};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::process::{Child, Command, ExitStatus, Output};
use std::time::{Duration, Instant};

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command) -> anyhow::Result<Output> {
    command.output().with_context(|| format!("cannot start {}", shown(command)))
}

/// Runs a program and takes what it prints.
///
/// # Errors
/// When it fails.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let out = run(command)?;
    if !out.status.success() {
        let (text, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        bail!("{} failed: {}\n{text}{error}", shown(command), out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Sends a signal to a process of ours.
///
/// # Errors
/// When it is gone.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let number = i32::try_from(pid).context("a process id")?;
    kill(Pid::from_raw(number), signal).with_context(|| format!("{signal} to process {pid}"))
}

/// Sets how many files another process may have open (`prlimit(1)`; `None`: says how many it may). Returns what it was.
///
/// # Errors
/// When it is gone.
pub fn limit_files(pid: u32, files: Option<usize>) -> anyhow::Result<Option<usize>> {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string()]);
    let before = output(Command::new("prlimit").args([
        "--pid",
        &pid.to_string(),
        "--nofile",
        "--noheadings",
        "--raw",
        "--output",
        "SOFT",
    ]))?;
    if let Some(files) = files {
        output(command.arg(format!("--nofile={files}:")))?;
    }
    Ok(before.trim().parse().ok())
}

/// Keeps the thread of this name in another process from going on, until that process is killed.
///
/// # Errors
/// When there is none, or it cannot be traced.
pub fn freeze_thread(pid: u32, name: &str) -> anyhow::Result<()> {
    let mut threads = std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
    let is_it = |thread: &std::fs::DirEntry| {
        std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|found| found.trim() == name)
    };
    let found = threads.find(is_it).with_context(|| format!("process {pid} has no thread {name}"))?;
    let thread = Pid::from_raw(found.file_name().to_string_lossy().parse()?);
    let (send, frozen) = std::sync::mpsc::channel();
    // Whoever traces a thread has to see its end, or its process has none.
    std::thread::spawn(move || {
        let seized = ptrace::seize(thread, ptrace::Options::empty()).and_then(|()| ptrace::interrupt(thread));
        // Nobody hears it when the test has ended.
        send.send(seized).ok();
        let ends = |status| matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
        #[allow(clippy::disallowed_methods, reason = "called through quasar_abi::eintr")]
        let next = || quasar_abi::eintr::retry(|| waitpid(thread, Some(WaitPidFlag::__WALL)));
        while next().is_ok_and(|status| !ends(status)) {}
    });
    Ok(frozen.recv()??)
}

/// Waits for a child's end.
///
/// # Errors
/// When it has not ended after `timeout`; it is left running.
pub fn wait(child: &mut Child, timeout: Duration) -> anyhow::Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        ensure!(start.elapsed() < timeout, "process {} has not ended within {timeout:?}", child.id());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process as the system lists it. Two with the same number and start are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// When it was started, in ticks since boot.
    pub start: u64,
    /// Its words, separated by blanks.
    pub line: String,
}

fn read(pid: u32) -> Option<Listed> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    // A zombie has ended; its parent has just not looked yet.
    if fields.next()? == "Z" {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned();
    Some(Listed { pid, parent, start, line })
}

/// All processes of the system.
#[must_use]
pub fn list() -> Vec<Listed> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Everyone descended from a process.
#[must_use]
pub fn descendants(pid: u32) -> Vec<Listed> {
    let all = list();
    let mut family = vec![pid];
    let mut found = vec![];
    while let Some(parent) = family.pop() {
        for child in all.iter().filter(|p| p.parent == parent) {
            family.push(child.pid);
            found.push(child.clone());
        }
    }
    found
}

/// Whether a listed process still is.
#[must_use]
pub fn lives(process: &Listed) -> bool {
    read(process.pid).is_some_and(|now| now.start == process.start)
}
