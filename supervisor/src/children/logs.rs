//! Logs of bounded size. They lie in memory on most hosts (the runtime directory), and a program that has gone wrong, or
//! is none of ours, may print without end.
//!
//! Children write into a pipe; a thread per log reads it and keeps what the log's budget allows. So a child can fill
//! neither the file nor, by having a descriptor of it, a file that was rotated away.

use nix::poll::{PollFd, PollFlags};
use parking_lot::Mutex;
use quasar_abi::eintr::{poll, retry};
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a file before it becomes the old one; there is one old one.
pub const FILE_BYTES: u64 = 1 << 20;
/// Most bytes that are kept at once; what comes faster than [`RATE`] for longer is counted.
const BURST: u64 = 256 << 10;
/// Bytes per second that are kept for as long as one likes.
const RATE: u64 = 16 << 10;
/// The budget with which keeping begins again: not with half a line.
const RESUME: u64 = 16 << 10;
/// How soon it is said how much was not kept, when nothing more comes.
const SAY_AFTER: Duration = Duration::from_secs(1);
/// Longest that a reader of the log waits for what children have said already.
const PATIENCE: Duration = Duration::from_millis(200);
const CHUNK: usize = 16 << 10;
/// The thread reads, counts and writes.
const STACK: usize = 128 << 10;

/// A log. Its file goes on being written for as long as somebody has a [`CappedLog::writer`].
#[derive(Debug)]
pub struct CappedLog {
    store: Arc<Mutex<Store>>,
    input: PipeReader,
    writer: PipeWriter,
}

#[derive(Debug)]
struct Store {
    path: PathBuf,
    file: File,
    /// Bytes in `file`.
    len: u64,
    /// Bytes in the old file.
    old: u64,
    /// Bytes ever written before those in `file`.
    base: u64,
    budget: u64,
    at: Instant,
    /// Bytes that were not kept and not told of yet.
    dropped: u64,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn old_path(path: &Path) -> PathBuf {
    path.with_added_extension("old")
}

impl Store {
    fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let len = file.metadata()?.len();
        let path = path.to_owned();
        Ok(Self { path, file, len, old: 0, base: 0, budget: BURST, at: Instant::now(), dropped: 0 })
    }

    fn earn(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.at).as_micros() * u128::from(RATE) / 1_000_000;
        if earned > 0 {
            self.at = now;
            self.budget = self.budget.saturating_add(u64::try_from(earned).unwrap_or(u64::MAX)).min(BURST);
        }
    }

    /// Takes what a child has said.
    fn take(&mut self, bytes: &[u8], now: Instant) {
        self.earn(now);
        let len = bytes.len() as u64;
        if self.dropped > 0 && self.budget >= len + RESUME {
            self.say();
        }
        if self.dropped > 0 || self.budget < len {
            self.dropped += len;
            return;
        }
        self.budget -= len;
        self.append(bytes);
    }

    /// Says how much was not kept.
    fn say(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            self.append(format!("\n… {dropped} bytes more were not kept: too much at once\n").as_bytes());
        }
    }

    /// A log that cannot be written must not stop who is logged: what does not fit on the host's disk is lost.
    fn append(&mut self, bytes: &[u8]) {
        if self.len > 0 && self.len + bytes.len() as u64 > FILE_BYTES {
            self.rotate();
        }
        if self.file.write_all(bytes).is_ok() {
            self.len += bytes.len() as u64;
        } else {
            // Some of it may be there.
            self.len = self.file.metadata().map_or(self.len, |metadata| metadata.len());
        }
    }

    fn rotate(&mut self) {
        let renamed = std::fs::rename(&self.path, old_path(&self.path));
        match renamed.and_then(|()| open(&self.path)) {
            Ok(file) => (self.file, self.old) = (file, self.len),
            // Its directory may be gone. What counts is that it does not grow.
            Err(_) if self.file.set_len(0).is_ok() => self.old = 0,
            Err(_) => return,
        }
        self.base += self.len;
        self.len = 0;
    }

    fn read(&self, from: u64, most: u64) -> io::Result<(Vec<u8>, u64)> {
        let start = self.base - self.old;
        let lost = start.saturating_sub(from);
        let from = from.clamp(start, self.base + self.len);
        let (path, at) = match from.checked_sub(self.base) {
            Some(at) => (self.path.clone(), at),
            None => (old_path(&self.path), from - start),
        };
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(at))?;
        let mut text = vec![];
        if lost > 0 {
            text = format!("… {lost} bytes before this are not kept any more\n").into_bytes();
        }
        let read = file.take(most).read_to_end(&mut text)?;
        Ok((text, from + read as u64))
    }
}

impl CappedLog {
    /// Opens a log that goes on after what is in its file, and starts the thread that keeps it.
    ///
    /// # Errors
    /// When the file cannot be written, or there is no thread.
    pub fn open(path: &Path) -> io::Result<Self> {
        let store = Arc::new(Mutex::new(Store::open(path)?));
        let (input, writer) = io::pipe()?;
        let log = Self { store, input, writer };
        let (input, store) = (log.input.try_clone()?, Arc::clone(&log.store));
        let keep = move || keep(input, &store);
        std::thread::Builder::new().name("log".into()).stack_size(STACK).spawn(keep)?;
        Ok(log)
    }

    /// Removes the files of a log that nobody needs any more.
    pub fn remove(path: &Path) {
        for path in [path, &old_path(path)] {
            // Mostly there is none.
            drop(std::fs::remove_file(path));
        }
    }

    /// What to write to: for children, and for us.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn writer(&self) -> io::Result<File> {
        Ok(File::from(OwnedFd::from(self.writer.try_clone()?)))
    }

    /// At most `most` bytes from position `from` on, counted from the log's beginning, and the position to go on from.
    /// What is not kept any more is left out, and said to be.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, from: u64, most: u64) -> io::Result<(Vec<u8>, u64)> {
        let start = Instant::now();
        loop {
            // Locked while the thread holds nothing that it has read and not kept.
            let store = self.store.lock();
            if !has_more(&self.input, Duration::ZERO) || start.elapsed() > PATIENCE {
                return store.read(from, most);
            }
            drop(store);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Cuts the file at `path`, which `out` writes to, when it has become too long: it becomes the old one's content and
/// begins anew. For a process's own standard error, which was given to it as a file opened to append.
///
/// # Errors
/// When it cannot be looked at or written.
pub fn cap_own(path: &Path, out: &File) -> io::Result<()> {
    let (ours, there) = (out.metadata()?, std::fs::metadata(path)?);
    let same = ours.is_file() && (ours.dev(), ours.ino()) == (there.dev(), there.ino());
    if same && ours.len() > FILE_BYTES {
        // What is said between these two lines is lost.
        std::fs::copy(path, old_path(path))?;
        out.set_len(0)?;
    }
    Ok(())
}

fn has_more(input: &PipeReader, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    let found = poll(&mut fds, Some(timeout)).is_ok_and(|found| found > 0);
    found && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
}

/// Keeps what comes until nobody can write any more.
fn keep(mut input: PipeReader, store: &Mutex<Store>) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let timeout = (store.lock().dropped > 0).then_some(SAY_AFTER);
        let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        let found = poll(&mut fds, timeout);
        let mut store = store.lock();
        match found {
            Ok(0) => store.say(),
            Ok(_) => match retry(|| input.read(&mut chunk)) {
                Ok(0) | Err(_) => return store.say(),
                Ok(count) => store.take(&chunk[..count], Instant::now()),
            },
            // Memory is short; it is tried again.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn whole(log: &CappedLog, mut from: u64) -> (String, u64) {
        let mut text = vec![];
        loop {
            let (piece, next) = log.read(from, 1000).expect("read");
            if next == from {
                return (String::from_utf8(text).expect("text"), next);
            }
            from = next;
            text.extend(piece);
        }
    }

    #[test]
    fn what_is_written_is_read_at_once_and_its_positions_stay() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        let log = CappedLog::open(&path).expect("open");
        let mut writer = log.writer().expect("writer");
        writer.write_all(b"one\n").expect("write");
        assert_eq!(whole(&log, 0), ("one\n".into(), 4));
        writer.write_all(b"two\n").expect("write");
        assert_eq!(whole(&log, 4), ("two\n".into(), 8));
        drop((log, writer));
        let log = CappedLog::open(&path).expect("again");
        assert_eq!(whole(&log, 0), ("one\ntwo\n".into(), 8));
    }

    /// The daemon's own pace of a long life, without the waiting.
    #[test]
    fn files_are_rotated_and_a_reader_follows() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        let mut store = Store::open(&path).expect("open");
        let mut now = store.at;
        let (mut from, mut seen) = (0, 0);
        for line in 0..60_000 {
            now += Duration::from_secs(1);
            store.take(
                format!("line {line:06} and what it says, so that a file is full some time\n").as_bytes(),
                now,
            );
            if line % 1000 == 999 {
                while let (text, next) = store.read(from, 5000).expect("read")
                    && next != from
                {
                    seen += text.iter().filter(|byte| **byte == b'\n').count();
                    from = next;
                }
                assert_eq!(seen, line + 1, "every line once, across rotations");
            }
        }
        let sizes = [&path, &old_path(&path)].map(|path| std::fs::metadata(path).expect("a file").len());
        assert!(sizes.iter().all(|size| *size <= FILE_BYTES), "{sizes:?}");
        let (text, _) = store.read(0, 200).expect("read");
        let text = String::from_utf8(text).expect("text");
        assert!(
            text.starts_with("… ") && text.contains(" bytes before this are not kept any more\nline 0"),
            "{text}"
        );
    }

    #[test]
    fn a_program_that_prints_without_end_is_counted() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        let log = CappedLog::open(&path).expect("open");
        let mut writer = log.writer().expect("writer");
        let garbage = [b'x'; 100];
        let total = 20_000_000 / garbage.len();
        (0..total).for_each(|_| writer.write_all(&garbage).expect("write"));
        wait_until("the number", || whole(&log, 0).0.contains("bytes more were not kept"));
        let size = std::fs::metadata(&path).expect("log").len();
        assert!(size < FILE_BYTES, "{size} bytes");
        // On a loaded host the number may have been told between two pieces of the garbage: the next lines still count
        // as too much, until it has been quiet for long enough.
        wait_until("what comes later", || {
            writer.write_all(b"and then it was sane again\n").expect("write");
            std::thread::sleep(Duration::from_millis(100));
            whole(&log, 0).0.ends_with("sane again\n")
        });
    }

    #[test]
    fn a_log_of_ones_own_begins_anew_and_a_strangers_is_left_alone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("host.log");
        let mut out = super::open(&path).expect("open");
        let much = vec![b'x'; usize::try_from(FILE_BYTES).expect("small")];
        out.write_all(&much).expect("write");
        cap_own(&path, &out).expect("look");
        assert_eq!(out.metadata().expect("metadata").len(), FILE_BYTES, "not too long yet");
        out.write_all(b"y").expect("write");
        let other = tempfile::NamedTempFile::new().expect("file");
        cap_own(other.path(), &out).expect("look");
        assert_eq!(out.metadata().expect("metadata").len(), FILE_BYTES + 1, "it is written to another file");
        cap_own(&path, &out).expect("cut");
        out.write_all(b"z").expect("write");
        assert_eq!(std::fs::read(&path).expect("log"), b"z");
        assert_eq!(std::fs::metadata(old_path(&path)).expect("old").len(), FILE_BYTES + 1);
    }

    #[test]
    fn a_log_whose_directory_is_gone_harms_nobody() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut store = Store::open(&dir.path().join("log")).expect("open");
        drop(dir);
        let mut now = store.at;
        for _ in 0..100 {
            now += Duration::from_secs(60);
            store.take(&[b'x'; 100_000], now);
        }
        assert!(store.file.metadata().expect("still open").len() <= FILE_BYTES);
    }
}
