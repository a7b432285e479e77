//! A host that has other work: each of its processors is wanted by somebody else all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// As many threads as there are processors, which compute until this is dropped.
pub struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Busy {
    /// Begins.
    pub fn everywhere() -> Self {
        let stop = Arc::<AtomicBool>::default();
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let begin = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || compute(&stop))
        };
        let threads = (0..count).map(begin).collect();
        Self { stop, threads }
    }
}

/// Arithmetic without end, whose result nobody can leave out.
fn compute(stop: &AtomicBool) -> u64 {
    let mut state = 1_u64;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..1000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        }
    }
    state
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It only computes.
            std::hint::black_box(thread.join().unwrap_or_default());
        }
    }
}
