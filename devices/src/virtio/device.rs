//! What a virtio device is to its card.

use super::queue::{Queue, RingError};
use super::transport::registers::Identity;
use crate::error::BadState;
use quasar_abi::report::DeviceReport;
use std::time::Duration;

/// What a device wants although nobody has notified it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Look at this queue now.
    pub queue: Option<usize>,
    /// Ask again after this time at the latest.
    pub again: Option<Duration>,
}

/// A device behind the transport. The card calls it with its lock held, so that calls must be short; a
/// device that waits for the host does so in a worker ([`super::block`], [`super::net`]).
pub trait Device: std::fmt::Debug + Send {
    /// What it is to the transport.
    fn identity(&self) -> Identity;

    /// Short name: part of the saved state's name.
    fn name(&self) -> &'static str;

    /// Its configuration space.
    fn config(&self) -> Vec<u8>;

    /// The driver writes a byte of the configuration space.
    fn write_config(&mut self, offset: u64, byte: u8);

    /// The driver is ready, with these features.
    fn start(&mut self, features: u64);

    /// Works on a queue until it is empty or the device can do no more.
    ///
    /// # Errors
    /// [`RingError`]: the driver broke the queue, and the device needs a reset.
    fn work(&mut self, index: usize, queue: &mut Queue<'_>) -> Result<(), RingError>;

    /// What it wants now.
    fn wants(&self) -> Wants;

    /// The state beside the transport's.
    fn save(&self) -> Vec<u8>;

    /// Takes up a saved state.
    ///
    /// # Errors
    /// [`BadState`].
    fn load(&mut self, state: &[u8]) -> Result<(), BadState>;

    /// Since the state that was loaded was saved, a process that is gone had finished buffers of this queue, with so
    /// many bytes written to them.
    fn recovered(&mut self, index: usize, written: u64);

    /// Back to the state after power-on.
    fn reset(&mut self);

    /// Presses the power key, if this is one; returns whether a driver hears it.
    fn press_power(&mut self, live: bool) -> Option<bool>;

    /// What it has counted.
    fn stats(&self) -> DeviceReport;
}
