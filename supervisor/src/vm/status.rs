//! What is known of a VM at any time, for listings and for whoever waits for a change.

use parking_lot::{Condvar, Mutex, MutexGuard};
use quasar_api::{Phase, VmStatus};
use std::time::Duration;

/// The status as its controller writes it and others read it.
#[derive(Debug, Default)]
pub struct StatusBoard {
    status: Mutex<VmStatus>,
    /// Which hart does nothing, and why.
    stuck: Mutex<Option<String>>,
    changed: Condvar,
}

impl StatusBoard {
    fn lock(&self) -> MutexGuard<'_, VmStatus> {
        // A status is replaced whole; one left by a panicking thread is as good as any.
        self.status.lock()
    }

    /// The status now.
    #[must_use]
    pub fn get(&self) -> VmStatus {
        self.lock().clone()
    }

    /// Which hart does nothing, and why; nothing mostly.
    #[must_use]
    pub fn stuck(&self) -> Option<String> {
        self.stuck.lock().clone()
    }

    /// Says so.
    pub fn set_stuck(&self, stuck: Option<String>) {
        *self.stuck.lock() = stuck;
    }

    /// Why the VM cannot run, whether its user has paused it or not: it has failed, or a hart of it does nothing.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let status = self.get();
        match status.phase {
            Phase::Failed => Some(status.reason.unwrap_or_else(|| "it has failed".into())),
            Phase::Stopped => Some("it has stopped".into()),
            _ => self.stuck(),
        }
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Changes the status and wakes who waits for a change.
    pub fn update(&self, change: impl FnOnce(&mut VmStatus)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until the phase satisfies `wanted`, at most `timeout`; returns the status then.
    #[must_use]
    pub fn wait(&self, timeout: Duration, wanted: impl Fn(Phase) -> bool) -> VmStatus {
        let mut status = self.lock();
        self.changed.wait_while_for(&mut status, |status| !wanted(status.phase), timeout);
        status.clone()
    }
}
