//! The gate: how the server brings the worker threads to rest.

use crate::lock;
use std::sync::{Condvar, Mutex, PoisonError};

#[derive(Debug)]
struct Inside {
    closed: bool,
    stopped: bool,
    workers: usize,
}

/// Workers hold a [`Pass`] for each piece of work (one request, one batch of frames), host I/O included. While
/// the gate is closed and nobody is inside, no worker changes guest memory, saved state or a disk. It is
/// closed at first.
#[derive(Debug)]
pub struct Gate {
    inside: Mutex<Inside>,
    changed: Condvar,
}

impl Default for Gate {
    fn default() -> Self {
        let inside = Inside { closed: true, stopped: false, workers: 0 };
        Self { inside: Mutex::new(inside), changed: Condvar::new() }
    }
}

/// Leave to work; dropping it gives it back.
#[derive(Debug)]
pub struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        lock(&self.0.inside).workers -= 1;
        self.0.changed.notify_all();
    }
}

impl Gate {
    /// Worker: waits until the gate is open. `None` when the work is over for ever.
    ///
    /// Never call this while holding a device's lock: the server takes those with the gate closed.
    pub fn enter(&self) -> Option<Pass<'_>> {
        let mut inside = self
            .changed
            .wait_while(lock(&self.inside), |inside| inside.closed && !inside.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        if inside.stopped {
            return None;
        }
        inside.workers += 1;
        Some(Pass(self))
    }

    /// Server: closes the gate and waits until nobody is inside.
    pub fn close(&self) {
        let mut inside = lock(&self.inside);
        inside.closed = true;
        drop(
            self.changed
                .wait_while(inside, |inside| inside.workers > 0)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Server: lets the workers go on.
    pub fn open(&self) {
        lock(&self.inside).closed = false;
        self.changed.notify_all();
    }

    /// Server: sends the workers home.
    pub fn stop(&self) {
        lock(&self.inside).stopped = true;
        self.changed.notify_all();
    }
}
