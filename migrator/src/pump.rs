//! Moving pages between stores and frames with several cores: reading, hashing and compressing on one
//! side, decompressing, writing and hashing on the other.

use crate::delta::{Copies, Form, apply};
use crate::frame::{FrameError, FrameWriter, Kind};
use crate::message::Codec;
use crate::pages::{BATCH_PAGES, Batch, is_zero};
use crate::store::PageStore;
use crossbeam_channel::{Receiver, Sender, bounded};
use quasar_abi::hash::AreaHashes;
use quasar_abi::ram::PAGE_LEN;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An area with its hashes.
pub struct Area {
    /// Its pages.
    pub store: Box<dyn PageStore>,
    /// Their hashes as they travelled last.
    pub hashes: AreaHashes,
}

impl Area {
    /// Takes a store, all of it zero so far.
    #[must_use]
    pub fn new(store: Box<dyn PageStore>) -> Self {
        let hashes = AreaHashes::new(store.area(), store.bytes());
        Self { store, hashes }
    }
}

/// Why pages could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The stream failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A page could not be read or written.
    #[error("page {index} of area {area}: {source}")]
    Store {
        /// Area.
        area: u8,
        /// Page.
        index: u64,
        /// Why.
        source: std::io::Error,
    },
    /// The user gave up.
    #[error("cancelled")]
    Cancelled,
    /// A batch could not be decoded.
    #[error(transparent)]
    Batch(#[from] crate::pages::BatchError),
    /// A batch names an area that is not there.
    #[error("a batch belongs to area {0}, which this VM has not")]
    Area(u8),
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Pages, zero ones included.
    pub pages: u64,
    /// Zero pages.
    pub zero: u64,
}

/// How far packing gives way to harts: to about a tenth of their share of a processor.
const NICE: i32 = 10;
/// Link slower than this: Zstandard's better ratio wins over LZ4's speed.
const ZSTD_BELOW_BYTES_PER_S: f64 = 300e6;

/// The sending side.
pub struct Outlet<'a> {
    /// Areas by their place in the list.
    pub areas: &'a [Area],
    /// Codecs that the other side decodes.
    pub codecs: Vec<Codec>,
    /// Zstandard's level.
    pub zstd_level: i32,
    /// Bytes per second, 0 for no limit.
    pub bandwidth: u64,
    /// Set by whoever wants it to end.
    pub cancelled: Arc<AtomicBool>,
    /// Copies of the first area's pages (RAM), where the other side takes differences.
    pub copies: Option<Copies>,
    codec: AtomicU8,
    write_ns: AtomicU64,
    write_bytes: AtomicU64,
}

/// A run of pages of one area.
type Job = (usize, Vec<u64>);

impl<'a> Outlet<'a> {
    /// An outlet over these areas.
    #[must_use]
    pub fn new(areas: &'a [Area], codecs: Vec<Codec>, bandwidth: u64, cancelled: Arc<AtomicBool>) -> Self {
        let has = |codec| codecs.contains(&codec);
        let slow = bandwidth != 0 && (bandwidth as f64) < ZSTD_BELOW_BYTES_PER_S;
        let first = if slow && has(Codec::Zstd) {
            Codec::Zstd
        } else if has(Codec::Lz4) {
            Codec::Lz4
        } else if has(Codec::Zstd) {
            Codec::Zstd
        } else {
            Codec::Raw
        };
        Self {
            areas,
            codecs,
            zstd_level: 1,
            bandwidth,
            cancelled,
            copies: None,
            codec: AtomicU8::new(first as u8),
            write_ns: AtomicU64::new(0),
            write_bytes: AtomicU64::new(0),
        }
    }

    fn codec(&self) -> Codec {
        match self.codec.load(Ordering::Relaxed) {
            1 => Codec::Lz4,
            2 => Codec::Zstd,
            _ => Codec::Raw,
        }
    }

    /// Uses one codec from now on, whatever the link does.
    pub fn fix_codec(&mut self, codec: Codec) {
        self.codecs = vec![codec];
        self.codec.store(codec as u8, Ordering::Relaxed);
    }

    /// Chooses the codec by what the link has carried.
    fn adapt(&self) {
        let ns = self.write_ns.load(Ordering::Relaxed);
        if ns < 20_000_000 || self.codecs.len() < 2 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = self.write_bytes.load(Ordering::Relaxed) as f64 / (ns as f64 / 1e9);
        let wanted = if rate < ZSTD_BELOW_BYTES_PER_S { Codec::Zstd } else { Codec::Lz4 };
        if self.codecs.contains(&wanted) {
            self.codec.store(wanted as u8, Ordering::Relaxed);
        }
        // Half the memory, so that a link that changes is noticed.
        self.write_ns.store(ns / 2, Ordering::Relaxed);
        self.write_bytes.store(self.write_bytes.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
    }

    /// Batches of these pages: those that travel whole, and those that travel as differences.
    fn encode(
        &self,
        area: usize,
        indices: &[u64],
        page: &mut [u8],
    ) -> Result<(Vec<Vec<u8>>, Sent), PumpError> {
        let at = &self.areas[area];
        let copies = self.copies.as_ref().filter(|_| area == 0);
        let batch = |differences| Batch { area: at.store.area(), differences, ..Batch::default() };
        let (mut whole, mut differences) = (batch(false), batch(true));
        let mut sent = Sent::default();
        for &index in indices {
            at.store.read(index, page).map_err(|source| PumpError::Store {
                area: at.store.area(),
                index,
                source,
            })?;
            if is_zero(page) {
                whole.push(index, page);
                sent.zero += 1;
                at.hashes.note_zero(index);
                copies.inspect(|copies| copies.forget(index));
            } else {
                at.hashes.note(index, page);
                match copies.map_or(Form::Whole, |copies| copies.note(index, page)) {
                    Form::Whole => whole.push(index, page),
                    Form::Difference => differences.push(index, page),
                    Form::Unchanged => continue,
                };
            }
            sent.pages += 1;
        }
        let batches = [whole, differences].into_iter().filter(|batch| !batch.pages.is_empty());
        Ok((batches.map(|batch| batch.encode(self.codec(), self.zstd_level)).collect(), sent))
    }

    fn put<W: Write>(
        &self,
        out: &mut FrameWriter<W>,
        payloads: &[Vec<u8>],
        budget: &mut Budget,
    ) -> Result<(), PumpError> {
        for payload in payloads {
            if self.cancelled.load(Ordering::Acquire) {
                return Err(PumpError::Cancelled);
            }
            let start = Instant::now();
            out.write(Kind::Pages, payload)?;
            let spent = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.write_ns.fetch_add(spent, Ordering::Relaxed);
            self.write_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
            self.adapt();
            budget.spend(payload.len() as u64);
        }
        Ok(())
    }

    /// Sends pages, given per area as sorted indices. Each page at most once per call.
    ///
    /// # Errors
    /// [`PumpError`].
    pub fn send<W: Write>(
        &self,
        out: &mut FrameWriter<W>,
        pages: &[Vec<u64>],
        guest: Guest,
    ) -> Result<Sent, PumpError> {
        let total: usize = pages.iter().map(Vec::len).sum();
        if let (Some(copies), Some(pages)) = (&self.copies, pages.first()) {
            copies.make_room(pages);
        }
        let jobs = pages
            .iter()
            .enumerate()
            .flat_map(|(area, indices)| indices.chunks(BATCH_PAGES).map(move |chunk| (area, chunk.to_vec())));
        let mut budget = Budget::new(self.bandwidth);
        let mut sum = Sent::default();
        // Few pages (the pause!) are not worth waking threads for.
        if total <= BATCH_PAGES * 2 {
            let mut page = vec![0; PAGE_LEN];
            for (area, indices) in jobs {
                let (payloads, sent) = self.encode(area, &indices, &mut page)?;
                sum.add(sent);
                self.put(out, &payloads, &mut budget)?;
            }
            return Ok(sum);
        }
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8);
        let (job_in, job_out): (Sender<Job>, Receiver<Job>) = bounded(workers * 4);
        let (done_in, done_out) = bounded(workers * 4);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (jobs, done) = (job_out.clone(), done_in.clone());
                scope.spawn(move || {
                    if guest == Guest::Running {
                        give_way();
                    }
                    let mut page = vec![0; PAGE_LEN];
                    for (area, indices) in jobs {
                        if done.send(self.encode(area, &indices, &mut page)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop((job_out, done_in));
            scope.spawn(move || {
                for job in jobs {
                    if job_in.send(job).is_err() {
                        return;
                    }
                }
            });
            for result in done_out {
                let (payloads, sent) = result?;
                sum.add(sent);
                self.put(out, &payloads, &mut budget)?;
            }
            Ok(sum)
        })
    }
}

/// What the guest does while pages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// It runs: its harts come first.
    Running,
    /// It waits for these pages.
    Paused,
}

/// Lets this machine's harts run before this thread.
fn give_way() {
    // A machine that does not allow it is only less smooth.
    if let Err(error) = rustix::process::nice(NICE) {
        log::debug!("nice: {error}");
    }
}

impl Sent {
    fn add(&mut self, other: Self) {
        self.pages += other.pages;
        self.zero += other.zero;
    }
}

/// Keeps a sender under its bandwidth.
struct Budget {
    per_s: u64,
    start: Instant,
    spent: u64,
}

impl Budget {
    fn new(per_s: u64) -> Self {
        Self { per_s, start: Instant::now(), spent: 0 }
    }

    fn spend(&mut self, bytes: u64) {
        if self.per_s == 0 {
            return;
        }
        self.spent += bytes;
        #[expect(clippy::cast_precision_loss, reason = "a waiting time")]
        let due = Duration::from_secs_f64(self.spent as f64 / self.per_s as f64);
        if let Some(wait) = due.checked_sub(self.start.elapsed()) {
            std::thread::sleep(wait);
        }
    }
}

/// The receiving side: threads that write what arrives, and a barrier at the end of a round.
pub struct Inlet {
    queue: Option<Sender<Vec<u8>>>,
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

struct Shared {
    areas: Arc<Vec<Area>>,
    state: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    waiting: u64,
    pages: u64,
    failed: Option<PumpError>,
}

impl Inlet {
    /// Starts the threads.
    #[must_use]
    pub fn new(areas: Arc<Vec<Area>>) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8);
        let (queue, waiting) = bounded::<Vec<u8>>(workers * 8);
        let shared = Arc::new(Shared { areas, state: Mutex::default(), changed: Condvar::new() });
        let threads = (0..workers).map(|_| {
            let (waiting, shared) = (waiting.clone(), Arc::clone(&shared));
            std::thread::spawn(move || {
                for payload in waiting {
                    let result = shared.take(&payload);
                    let mut state = shared.lock();
                    state.waiting -= 1;
                    match result {
                        Ok(pages) => state.pages += pages,
                        Err(error) => state.failed = state.failed.take().or(Some(error)),
                    }
                    drop(state);
                    shared.changed.notify_all();
                }
            })
        });
        Self { queue: Some(queue), threads: threads.collect(), shared }
    }

    /// Hands a batch to the threads.
    pub fn push(&self, payload: Vec<u8>) {
        self.shared.lock().waiting += 1;
        if let Some(queue) = &self.queue {
            // The threads end only after the queue, which we hold.
            let _ = queue.send(payload);
        }
    }

    /// Waits until everything that was pushed is in place; returns how many pages since the last call.
    ///
    /// # Errors
    /// The first [`PumpError`] of any thread.
    pub fn settle(&self) -> Result<u64, PumpError> {
        let mut state = self.shared.lock();
        while state.waiting > 0 {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failed.take().map_or(Ok(std::mem::take(&mut state.pages)), Err)
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, payload: &[u8]) -> Result<u64, PumpError> {
        let batch = Batch::decode(payload)?;
        let area =
            self.areas.iter().find(|a| a.store.area() == batch.area).ok_or(PumpError::Area(batch.area))?;
        let mut buffer = if batch.differences { vec![0; PAGE_LEN] } else { vec![] };
        for (index, page) in batch.iter() {
            let fail = |source| PumpError::Store { area: batch.area, index, source };
            match page {
                Some(difference) if batch.differences => {
                    area.store.read(index, &mut buffer).map_err(fail)?;
                    apply(&mut buffer, difference);
                    area.store.write(index, Some(&buffer)).map_err(fail)?;
                    area.hashes.note(index, &buffer);
                }
                Some(bytes) => {
                    area.store.write(index, Some(bytes)).map_err(fail)?;
                    area.hashes.note(index, bytes);
                }
                // A page that never held anything is a hole and stays one.
                None if area.hashes.is_zero(index) => {}
                None => {
                    area.store.write(index, None).map_err(fail)?;
                    area.hashes.note_zero(index);
                }
            }
        }
        Ok(batch.pages.len() as u64)
    }
}
