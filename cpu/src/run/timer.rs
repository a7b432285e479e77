//! The thread that calls a running hart when its timer expires.

use parking_lot::{Condvar, Mutex, MutexGuard};
use quasar_abi::party::{PartyId, attention};
use quasar_abi::vm::Vm;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct State {
    at: Option<Instant>,
    end: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// The thread's owner; dropping it ends the thread.
#[derive(Debug)]
pub(super) struct TimerThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    armed_for: Option<u64>,
}

impl TimerThread {
    pub fn start(vm: Vm, hart: PartyId) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("{hart} timer"))
            .spawn(move || call_in_time(&of_thread, &vm, hart))?;
        Ok(Self { shared, thread: Some(thread), armed_for: None })
    }

    /// The deadline, in guest ticks, that the thread was last armed for.
    pub const fn armed_for(&self) -> Option<u64> {
        self.armed_for
    }

    /// Has the hart called after `wait`, in place of any earlier wish.
    pub fn arm(&mut self, ticks: u64, wait: Duration) {
        self.armed_for = Some(ticks);
        let at = Instant::now() + wait;
        let mut state = self.shared.lock();
        // A thread that sleeps for an earlier time wakes by itself and looks again: no system call.
        let sooner = state.at.is_none_or(|before| at < before);
        state.at = Some(at);
        drop(state);
        if sooner {
            self.shared.changed.notify_one();
        }
    }

    /// No deadline is left. The thread may still call once, which does no harm.
    pub const fn disarm(&mut self) {
        self.armed_for = None;
    }
}

impl Drop for TimerThread {
    fn drop(&mut self) {
        self.shared.lock().end = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; there is nothing to learn from its end.
            drop(thread.join());
        }
    }
}

fn call_in_time(shared: &Shared, vm: &Vm, hart: PartyId) {
    let mut state = shared.lock();
    while !state.end {
        let now = Instant::now();
        match state.at {
            None => shared.changed.wait(&mut state),
            Some(at) if at <= now => {
                state.at = None;
                vm.party(hart).call(attention::TIMER);
            }
            Some(at) => drop(shared.changed.wait_for(&mut state, at - now)),
        }
    }
}
