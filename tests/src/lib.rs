//! What the end-to-end tests, the demonstration and the benchmarks share: a daemon of one's own, guests with a
//! console that one can talk to, and a look at what is left behind.
#![forbid(unsafe_code)]

pub mod api;
pub mod bare;
pub mod console;
pub mod crowd;
pub mod disk;
pub mod guest;
pub mod host;
pub mod http;
pub mod images;
pub mod kernel;
pub mod leftovers;
pub mod namespace;
pub mod outputs;
pub mod pki;
pub mod process;
pub mod programs;
pub mod readme;
pub mod stream;
pub mod terminal;
pub mod tiny;
pub mod turn;

pub use console::Console;
pub use guest::{Guest, Recipe};
pub use host::Host;

use std::time::{Duration, Instant};

/// How long anything may take that takes seconds on an idle machine. No test measures time with it.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Asks again until there is an answer, for [`PATIENCE`] at most.
///
/// # Errors
/// When there was none; `what` says what was waited for.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        anyhow::ensure!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A step of a test that has several because a guest boots but once: its name and time are printed, and its failure says
/// its name.
///
/// # Errors
/// The work's own.
pub fn step<T>(name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    let done = work();
    let outcome = if done.is_ok() { "done" } else { "FAILED" };
    eprintln!("step: {name}: {outcome} after {:.1} s", start.elapsed().as_secs_f64());
    done.map_err(|error| error.context(format!("the step that failed: {name}")))
}
