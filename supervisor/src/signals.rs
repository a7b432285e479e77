//! SIGINT, SIGTERM, SIGHUP and SIGQUIT as something to look at, for programs without an event loop.

use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether one of the signals has come.
#[derive(Clone, Debug)]
pub struct Caught(Arc<AtomicBool>);

impl Caught {
    /// Whether it has.
    #[must_use]
    pub fn caught(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Blocks the signals in this thread and those it starts from now on, and notes their coming. Call it before
/// any other thread is started. A second signal ends the process at once.
///
/// # Errors
/// When the system refuses.
pub fn catch() -> std::io::Result<Caught> {
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
    let signals: SigSet = signals.into_iter().collect();
    signals.thread_block()?;
    let caught = Caught(Arc::new(AtomicBool::new(false)));
    let seen = caught.clone();
    let wait = move || {
        while signals.wait().is_ok() {
            if seen.0.swap(true, Ordering::AcqRel) {
                std::process::exit(130);
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(caught)
}
