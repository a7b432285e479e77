//! Ports: where frames enter and leave the switch.

pub mod card;
mod error;
pub mod stream;
pub mod tap;

pub use error::PortError;

use std::sync::Arc;
use std::time::Duration;

type Take = dyn Fn(&[u8]) + Send + Sync;

/// A port's way into the switch.
#[derive(Clone)]
pub struct Ingress(Arc<Take>);

impl Ingress {
    /// Wraps what the switch does with a frame.
    pub fn new(take: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Hands a frame that came in at the port to the switch.
    pub fn frame(&self, frame: &[u8]) {
        (self.0)(frame);
    }
}

/// What the switch needs of a port.
pub trait Port: Send + Sync {
    /// Begins to read frames from outside. Called once, after the port stands in its network.
    fn start(self: Arc<Self>);
    /// Sends a frame out; false when it was dropped. A patient sender waits for room, so that a single slow receiver
    /// slows its sender down and loses nothing; a flood is never patient.
    fn send(&self, frame: &[u8], patience: Duration) -> bool;
    /// Reads what has come from outside to its end, and no more after that.
    fn settle(&self);
    /// Takes back what was sent and outside was not taken, in order. Nothing where that is out of reach. The
    /// other side must be at rest.
    fn take_back(&self) -> Vec<Vec<u8>>;
    /// Ends the port's threads. Called once, after the port has left its network.
    fn stop(&self);
}
