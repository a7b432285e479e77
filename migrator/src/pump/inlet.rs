//! The receiving side: pages are unpacked, written and hashed by several threads, whichever connection they came over.

use super::{Area, PumpError, give_way};
use crate::connection::PATIENCE;
use crate::delta::apply;
use crate::pages::{Unpacker, is_short};
use crossbeam_channel::{Sender, bounded};
use parking_lot::{Condvar, Mutex, MutexGuard};
use quasar_abi::ram::PAGE_LEN;
use std::sync::Arc;

/// The receiving side: threads that write what arrives, and a barrier at the end of a round.
///
/// The threads give way to the guests that run here. A short batch, as in a pause, is not for them: whoever brings it
/// unpacks it at once.
pub struct Inlet {
    queue: Option<Sender<Vec<u8>>>,
    unpacker: Mutex<Unpacker>,
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

struct Shared {
    areas: Arc<Vec<Area>>,
    state: Mutex<Progress>,
    changed: Condvar,
    /// Memory of batches that are in place.
    spare: Mutex<Vec<Vec<u8>>>,
}

#[derive(Default)]
struct Progress {
    waiting: u64,
    pages: u64,
    /// Connections beside the first that may bring more.
    lanes: u32,
    failed: Option<PumpError>,
}

impl Inlet {
    /// Starts the threads.
    #[must_use]
    pub fn new(areas: Arc<Vec<Area>>) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8);
        let (queue, waiting) = bounded::<Vec<u8>>(workers * 8);
        let shared = Arc::new(Shared {
            areas,
            state: Mutex::default(),
            changed: Condvar::new(),
            spare: Mutex::default(),
        });
        let threads = (0..workers).map(|_| {
            let (waiting, shared) = (waiting.clone(), Arc::clone(&shared));
            std::thread::spawn(move || {
                give_way();
                let mut unpacker = Unpacker::default();
                for payload in waiting {
                    shared.put(payload, &mut unpacker);
                }
            })
        });
        Self { queue: Some(queue), unpacker: Mutex::default(), threads: threads.collect(), shared }
    }

    /// Puts a batch in place, or hands it to the threads.
    pub fn push(&self, payload: Vec<u8>) {
        self.shared.lock().waiting += 1;
        if is_short(&payload)
            && let Some(mut unpacker) = self.unpacker.try_lock()
        {
            self.shared.put(payload, &mut unpacker);
            return;
        }
        if let Some(queue) = &self.queue {
            // The threads end only after the queue, which we hold.
            let _ = queue.send(payload);
        }
    }

    /// Memory for the next frame, that of an old one where there is one.
    pub fn space(&self) -> Vec<u8> {
        let old = self.shared.spare.lock().pop();
        old.unwrap_or_default()
    }

    /// A connection beside the first begins to bring batches.
    pub fn lane_opened(&self) {
        self.shared.lock().lanes += 1;
    }

    /// It brings no more; `failed` when it should have.
    pub fn lane_closed(&self, failed: Option<PumpError>) {
        let mut state = self.shared.lock();
        state.lanes -= 1;
        state.failed = state.failed.take().or(failed);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until the `announced` pages of a round are in place, or everything that was pushed when no connection can bring
    /// more; returns how many there were since the last call.
    ///
    /// # Errors
    /// The first [`PumpError`] of any thread or connection.
    pub fn settle(&self, announced: u64) -> Result<u64, PumpError> {
        let mut state = self.shared.lock();
        loop {
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            if state.waiting == 0 && (state.pages >= announced || state.lanes == 0) {
                return Ok(std::mem::take(&mut state.pages));
            }
            let before = (state.waiting, state.pages);
            let timeout = self.shared.changed.wait_for(&mut state, PATIENCE);
            if timeout.timed_out() && (state.waiting, state.pages) == before {
                let silence = format!("pages of the round are missing for {} s", PATIENCE.as_secs());
                return Err(PumpError::Lane(silence));
            }
        }
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
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.state.lock()
    }

    /// Puts a batch in place and notes how that went.
    fn put(&self, payload: Vec<u8>, unpacker: &mut Unpacker) {
        let result = self.take(&payload, unpacker);
        self.spare.lock().push(payload);
        let mut state = self.lock();
        state.waiting -= 1;
        match result {
            Ok(pages) => state.pages += pages,
            Err(error) => state.failed = state.failed.take().or(Some(error)),
        }
        drop(state);
        self.changed.notify_all();
    }

    fn take(&self, payload: &[u8], unpacker: &mut Unpacker) -> Result<u64, PumpError> {
        let batch = unpacker.unpack(payload)?;
        let area =
            self.areas.iter().find(|a| a.store.area() == batch.area).ok_or(PumpError::Area(batch.area))?;
        let mut buffer = vec![];
        for (first, run) in batch.runs() {
            let fail = |source| PumpError::Store { area: batch.area, index: first, source };
            let pages = match run {
                // A page that never held anything is a hole and stays one.
                None if area.hashes.is_zero(first) => continue,
                None => {
                    area.store.write(first, &[0; PAGE_LEN]).map_err(fail)?;
                    area.hashes.note_zero(first);
                    continue;
                }
                Some(differences) if batch.differences => {
                    buffer.resize(differences.len(), 0);
                    area.store.read(first, &mut buffer).map_err(fail)?;
                    apply(&mut buffer, differences);
                    &buffer[..]
                }
                Some(bytes) => bytes,
            };
            area.store.write(first, pages).map_err(fail)?;
            for (index, page) in (first..).zip(pages.chunks_exact(PAGE_LEN)) {
                area.hashes.note(index, page);
            }
        }
        Ok(batch.pages.len() as u64)
    }
}
