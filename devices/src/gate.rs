//! The gate: how the server brings the worker threads to rest.

use parking_lot::{Condvar, Mutex};

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
pub struct WorkerGate {
    inside: Mutex<Inside>,
    changed: Condvar,
}

impl Default for WorkerGate {
    fn default() -> Self {
        let inside = Inside { closed: true, stopped: false, workers: 0 };
        Self { inside: Mutex::new(inside), changed: Condvar::new() }
    }
}

/// Leave to work; dropping it gives it back.
#[derive(Debug)]
pub struct Pass<'a>(&'a WorkerGate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.inside.lock().workers -= 1;
        self.0.changed.notify_all();
    }
}

impl WorkerGate {
    /// Worker: waits until the gate is open. `None` when the work is over for ever.
    ///
    /// Never call this while holding a device's lock: the server takes those with the gate closed.
    pub fn enter(&self) -> Option<Pass<'_>> {
        let mut inside = self.inside.lock();
        self.changed.wait_while(&mut inside, |inside| inside.closed && !inside.stopped);
        if inside.stopped {
            return None;
        }
        inside.workers += 1;
        Some(Pass(self))
    }

    /// Server: closes the gate and waits until nobody is inside.
    pub fn close(&self) {
        let mut inside = self.inside.lock();
        inside.closed = true;
        self.changed.wait_while(&mut inside, |inside| inside.workers > 0);
    }

    /// Server: lets the workers go on.
    pub fn open(&self) {
        self.inside.lock().closed = false;
        self.changed.notify_all();
    }

    /// Server: sends the workers home.
    pub fn stop(&self) {
        self.inside.lock().stopped = true;
        self.changed.notify_all();
    }
}
