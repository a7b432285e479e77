//! The sending side: pages are read, hashed and packed by several threads, and carried by one or several connections.

use super::{Area, PumpError, give_way};
use crate::delta::{Copies, Form};
use crate::frame::{FrameWriter, Kind};
use crate::lanes::{Lane, Lanes};
use crate::message::Codec;
use crate::pages::{Batch, Packer, SMALL_BATCH_PAGES, is_zero};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Mutex, MutexGuard};
use quasar_abi::ram::PAGE_LEN;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Pages, zero ones included.
    pub pages: u64,
    /// Zero pages.
    pub zero: u64,
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// How long connections did not take what was ready, all of them together.
    pub waited: Duration,
}

/// How often one hears how a round goes.
const NEWS: Duration = Duration::from_millis(10);
/// Link slower than this: Zstandard's better ratio wins over LZ4's speed.
const ZSTD_BELOW_BYTES_PER_S: f64 = 4e9;
/// Zstandard's level for what travels.
const LEVEL: i32 = 1;

/// The sending side.
pub struct Outlet<'a> {
    /// Areas by their place in the list.
    pub areas: &'a [Area],
    /// Codecs that the other side decodes.
    pub codecs: Vec<Codec>,
    /// Zstandard's level.
    pub zstd_level: i32,
    /// Pages in a batch, at most.
    pub batch_pages: usize,
    /// Bytes per second, 0 for no limit.
    pub bandwidth: u64,
    /// Set by whoever wants it to end.
    pub cancelled: Arc<AtomicBool>,
    /// Copies of the first area's pages (RAM), where the other side takes differences.
    pub copies: Option<Copies>,
    /// Connections beside the first.
    pub lanes: Lanes<'a>,
    /// Encoders that nobody uses.
    encoders: Mutex<Vec<Encoder>>,
    /// Memory of batches that have gone.
    spare: Mutex<Vec<Vec<u8>>>,
    codec: AtomicU8,
    write_ns: AtomicU64,
    write_bytes: AtomicU64,
}

/// A run of pages of one area.
type Job = (usize, Vec<u64>);
/// It packed, and what it was.
type Packed = Result<(Vec<Vec<u8>>, Sent), PumpError>;

/// What one thread packs with, batch after batch and round after round: the last round, in the pause, must not begin with
/// memory that the system has to find first.
struct Encoder {
    read: Vec<u8>,
    whole: Batch,
    differences: Batch,
    packer: Packer,
}

impl Encoder {
    fn new(level: i32) -> Self {
        let differences = Batch { differences: true, ..Batch::default() };
        Self { read: vec![], whole: Batch::default(), differences, packer: Packer::new(level) }
    }
}

/// What the connections that carry one round share.
struct Traffic {
    budget: Mutex<Budget>,
    result: Mutex<Result<Sent, PumpError>>,
}

impl Traffic {
    fn new(bandwidth: u64) -> Self {
        let (budget, result) = (Mutex::new(Budget::new(bandwidth)), Mutex::new(Ok(Sent::default())));
        Self { budget, result }
    }

    fn result(&self) -> MutexGuard<'_, Result<Sent, PumpError>> {
        self.result.lock()
    }

    /// Notes what one connection has done; `false` when all of them are to end.
    fn note(&self, done: Result<Sent, PumpError>) -> bool {
        let mut result = self.result();
        match (&mut *result, done) {
            (Ok(sum), Ok(sent)) => *sum = sum.and(sent),
            (Ok(_), Err(error)) => *result = Err(error),
            (Err(_), _) => {}
        }
        result.is_ok()
    }

    fn finish(self) -> Result<Sent, PumpError> {
        self.result.into_inner()
    }

    /// Waits until these bytes are within the bandwidth.
    fn spend(&self, bytes: u64) {
        let wait = self.budget.lock().spend(bytes);
        std::thread::sleep(wait);
    }
}

impl<'a> Outlet<'a> {
    /// An outlet over these areas.
    #[must_use]
    pub fn new(areas: &'a [Area], codecs: Vec<Codec>, bandwidth: u64, cancelled: Arc<AtomicBool>) -> Self {
        let has = |codec| codecs.contains(&codec);
        let first = [Codec::Zstd, Codec::Lz4].into_iter().find(|codec| has(*codec)).unwrap_or(Codec::Raw);
        Self {
            areas,
            codecs,
            zstd_level: LEVEL,
            batch_pages: SMALL_BATCH_PAGES,
            bandwidth,
            cancelled,
            copies: None,
            lanes: Lanes::none(),
            encoders: Mutex::default(),
            spare: Mutex::default(),
            codec: AtomicU8::new(first as u8),
            write_ns: AtomicU64::new(0),
            write_bytes: AtomicU64::new(0),
        }
    }

    fn encoders(&self) -> MutexGuard<'_, Vec<Encoder>> {
        self.encoders.lock()
    }

    fn encoder(&self) -> Encoder {
        let used = self.encoders().pop();
        used.unwrap_or_else(|| Encoder::new(self.zstd_level))
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.spare.lock()
    }

    fn space(&self) -> Vec<u8> {
        self.spare().pop().unwrap_or_default()
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

    /// Chooses the codec by what the link has carried, over all connections.
    fn adapt(&self) {
        let ns = self.write_ns.load(Ordering::Relaxed);
        if ns < 20_000_000 || self.codecs.len() < 2 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let each = self.write_bytes.load(Ordering::Relaxed) as f64 / (ns as f64 / 1e9);
        let rate = each * f64::from(self.lanes.connections());
        let wanted = if rate < ZSTD_BELOW_BYTES_PER_S { Codec::Zstd } else { Codec::Lz4 };
        if self.codecs.contains(&wanted) {
            self.codec.store(wanted as u8, Ordering::Relaxed);
        }
        // Half the memory, so that a link that changes is noticed.
        self.write_ns.store(ns / 2, Ordering::Relaxed);
        self.write_bytes.store(self.write_bytes.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
    }

    /// Batches of these pages: those that travel whole, and those that travel as differences.
    fn encode(&self, area: usize, indices: &[u64], encoder: &mut Encoder) -> Packed {
        let at = &self.areas[area];
        let copies = self.copies.as_ref().filter(|_| area == 0);
        let Encoder { read, whole, differences, packer } = encoder;
        for batch in [&mut *whole, &mut *differences] {
            batch.area = at.store.area();
            batch.clear();
        }
        let mut sent = Sent::default();
        for run in indices.chunk_by(|a, b| a + 1 == *b) {
            let length = run.len() * PAGE_LEN;
            read.resize(read.len().max(length), 0);
            let (area, index) = (at.store.area(), run[0]);
            let failed = |source| PumpError::Store { area, index, source };
            at.store.read(index, &mut read[..length]).map_err(failed)?;
            for (&index, page) in run.iter().zip(read.chunks_exact_mut(PAGE_LEN)) {
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
        }
        let batches = [&*whole, &*differences].into_iter().filter(|batch| !batch.pages.is_empty());
        Ok((batches.map(|batch| packer.pack(batch, self.codec(), self.space())).collect(), sent))
    }

    fn put<W: Write>(
        &self,
        out: &mut FrameWriter<W>,
        (payloads, mut sent): (Vec<Vec<u8>>, Sent),
        traffic: &Traffic,
    ) -> Result<Sent, PumpError> {
        for payload in payloads {
            if self.cancelled.load(Ordering::Acquire) {
                return Err(PumpError::Cancelled);
            }
            let start = Instant::now();
            out.write(Kind::Pages, &payload)?;
            let spent = start.elapsed();
            self.lanes.wrote(payload.len() as u64, spent);
            self.write_ns.fetch_add(u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.write_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
            self.adapt();
            traffic.spend(payload.len() as u64);
            sent.wire_bytes += payload.len() as u64;
            sent.waited += start.elapsed();
            self.spare().push(payload);
        }
        Ok(sent)
    }

    /// Sends batches over one connection until there are no more, or one of the connections fails.
    fn carry<W: Write>(
        &self,
        out: &mut FrameWriter<W>,
        batches: &Receiver<Packed>,
        traffic: &Traffic,
        mut between: impl FnMut(),
    ) {
        for packed in batches {
            let done = packed.and_then(|packed| self.put(out, packed, traffic));
            if !traffic.note(done) {
                return;
            }
            between();
        }
    }

    /// The same over a lane, which is kept for the next round.
    fn carry_lane(&self, mut lane: Lane, batches: &Receiver<Packed>, traffic: &Traffic) {
        self.carry(&mut lane.out, batches, traffic, || ());
        let flushed = lane.out.flush().map(|()| Sent::default());
        traffic.note(flushed.map_err(|error| PumpError::Lane(error.to_string())));
        self.lanes.rest(lane);
    }

    /// Sends pages, given per area as sorted indices. Each page at most once per call. When that takes longer than a moment
    /// `under_way` hears again and again what was sent.
    ///
    /// # Errors
    /// [`PumpError`].
    pub fn send<W: Write>(
        &self,
        out: &mut FrameWriter<W>,
        pages: &[Vec<u64>],
        guest: Guest,
        under_way: &mut dyn FnMut(Sent),
    ) -> Result<Sent, PumpError> {
        let total: usize = pages.iter().map(Vec::len).sum();
        if let (Some(copies), Some(pages)) = (&self.copies, pages.first()) {
            copies.make_room(pages);
        }
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8);
        // All threads are to have something to do, and the other side soon something to unpack.
        let most = (total / workers / 2).clamp(SMALL_BATCH_PAGES, self.batch_pages);
        let jobs = pages
            .iter()
            .enumerate()
            .flat_map(|(area, indices)| indices.chunks(most).map(move |chunk| (area, chunk.to_vec())));
        let traffic = Traffic::new(self.bandwidth);
        // Few pages (the pause!) are not worth waking threads for.
        if total <= SMALL_BATCH_PAGES * 2 {
            let mut encoder = self.encoder();
            for (area, indices) in jobs {
                let packed = self.encode(area, &indices, &mut encoder)?;
                traffic.note(Ok(self.put(out, packed, &traffic)?));
            }
            self.encoders().push(encoder);
            return traffic.finish();
        }
        let (job_in, job_out): (Sender<Job>, Receiver<Job>) = bounded(workers * 4);
        let (done_in, done_out) = bounded(workers * 4);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (jobs, done) = (job_out.clone(), done_in.clone());
                scope.spawn(move || {
                    if guest == Guest::Running {
                        give_way();
                    }
                    let mut encoder = self.encoder();
                    for (area, indices) in jobs {
                        if done.send(self.encode(area, &indices, &mut encoder)).is_err() {
                            return;
                        }
                    }
                    self.encoders().push(encoder);
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
            let traffic = &traffic;
            for lane in self.lanes.wake() {
                let batches = done_out.clone();
                scope.spawn(move || self.carry_lane(lane, &batches, traffic));
            }
            let mut told = Instant::now();
            self.carry(out, &done_out, traffic, || {
                if told.elapsed() >= NEWS {
                    told = Instant::now();
                    let sent = *traffic.result().as_ref().unwrap_or(&Sent::default());
                    under_way(sent);
                }
                if self.lanes.another() {
                    let batches = done_out.clone();
                    scope.spawn(move || {
                        if let Some(lane) = self.lanes.open() {
                            self.carry_lane(lane, &batches, traffic);
                        }
                    });
                }
            });
            // Whoever still packs is not waited for when nobody carries.
            drop(done_out);
        });
        traffic.finish()
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

impl Sent {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            pages: self.pages + other.pages,
            zero: self.zero + other.zero,
            wire_bytes: self.wire_bytes + other.wire_bytes,
            waited: self.waited + other.waited,
        }
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

    /// How long to wait after these bytes.
    fn spend(&mut self, bytes: u64) -> Duration {
        if self.per_s == 0 {
            return Duration::ZERO;
        }
        self.spent += bytes;
        #[expect(clippy::cast_precision_loss, reason = "a waiting time")]
        let due = Duration::from_secs_f64(self.spent as f64 / self.per_s as f64);
        due.saturating_sub(self.start.elapsed())
    }
}
