//! What is known of a VM at any time, for listings and for whoever waits for a change.

use serde::{Deserialize, Serialize};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its processes are being started.
    Starting,
    /// It comes from another host or from a file, and does not run here yet.
    Arriving,
    /// It runs.
    Running,
    /// A user has paused it, or it is unclear whether it runs on another host.
    Paused,
    /// It was asked to shut down, or its processes are being ended.
    Stopping,
    /// It has ended; nothing of it runs.
    Stopped,
    /// It cannot go on. What is left of its processes is paused.
    Failed,
    /// It runs on another host, and its network's way out is still here.
    Away,
}

impl Phase {
    /// Whether it has come to an end.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }

    /// The word shown to people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Arriving => "arriving",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Away => "away",
        }
    }
}

/// How a stopped VM came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The guest powered itself off.
    Poweroff,
    /// The guest powered itself off and reported a failure.
    GuestFailure {
        /// Its code.
        code: u64,
    },
    /// The user ended it.
    Forced,
    /// A bare program wrote `tohost`.
    HtifExit {
        /// The value.
        value: u64,
    },
    /// A hart reached its instruction limit.
    Limit,
}

/// A process of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its role ("cpu0", "mmu", "devices").
    pub role: String,
    /// Its process id.
    pub pid: u32,
    /// How often it was replaced after it had died.
    pub restarts: u64,
    /// Architecture that its program was built for; empty when it is no program of Quasar's.
    #[serde(default)]
    pub arch: String,
}

/// A VM's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    /// Where it is.
    pub phase: Phase,
    /// Why, when it failed or is held for a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How it ended, when it stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Its processes now.
    pub processes: Vec<ProcessInfo>,
    /// Times the guest has rebooted.
    pub reboots: u64,
    /// Why the guest's kernel panicked before it rebooted, by its console, when it last did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<String>,
}

impl VmStatus {
    /// A VM that is about to start.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            phase: Phase::Starting,
            reason: None,
            outcome: None,
            processes: vec![],
            reboots: 0,
            panic: None,
        }
    }
}

impl Default for VmStatus {
    fn default() -> Self {
        Self::new()
    }
}

/// The status as its controller writes it and others read it.
#[derive(Debug, Default)]
pub struct StatusBoard {
    status: Mutex<VmStatus>,
    changed: Condvar,
}

impl StatusBoard {
    fn lock(&self) -> MutexGuard<'_, VmStatus> {
        // A status is replaced whole; one left by a panicking thread is as good as any.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status now.
    #[must_use]
    pub fn get(&self) -> VmStatus {
        self.lock().clone()
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
        let deadline = Instant::now().checked_add(timeout);
        let mut status = self.lock();
        while !wanted(status.phase) {
            let left = deadline.map_or(Duration::MAX, |d| d.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(status, left.min(Duration::from_secs(3600)));
            status = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        status.clone()
    }
}
