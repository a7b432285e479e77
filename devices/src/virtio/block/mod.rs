//! Block device over a raw file (virtio 1.3, 5.2). One worker carries out its requests in order.

pub mod backing;
pub mod config;
pub mod lock;
pub mod request;
pub mod room;
pub mod worker;

use super::device::{Device, Wants};
use super::queue::{Queue, RingError};
use super::transport::registers::Identity;
use super::transport::{self, state::MAX_QUEUE_SIZE};
use crate::error::BadState;
use crate::saved::plain_state;
use quasar_abi::report::{BlockReport, DeviceReport};
use request::Disk;
use std::sync::Arc;

/// The device as the card sees it. It keeps nothing: requests in hand are those the guest still waits for.
#[derive(Debug)]
pub struct Block {
    disk: Arc<Disk>,
}

impl Block {
    /// The device of a disk, and the disk for its worker.
    #[must_use]
    pub fn new(disk: Disk) -> (Self, Arc<Disk>) {
        let disk = Arc::new(disk);
        (Self { disk: Arc::clone(&disk) }, disk)
    }
}

impl Device for Block {
    fn identity(&self) -> Identity {
        let features = transport::FEATURES | config::features(self.disk.backing().read_only());
        Identity { id: 2, features, queues: &[MAX_QUEUE_SIZE] }
    }

    fn name(&self) -> &'static str {
        "blk"
    }

    fn config(&self) -> Vec<u8> {
        config::space(self.disk.backing().sectors())
    }

    fn write_config(&mut self, _offset: u64, _byte: u8) {}

    fn start(&mut self, _features: u64) {}

    /// The worker was woken; it does the work.
    fn work(&mut self, _index: usize, _queue: &mut Queue<'_>) -> Result<(), RingError> {
        Ok(())
    }

    fn wants(&self) -> Wants {
        Wants::default()
    }

    fn save(&self) -> Vec<u8> {
        vec![]
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BadState> {
        plain_state::<[u8; 0]>("blk", state).map(drop)
    }

    fn recovered(&mut self, _index: usize, _written: u64) {}

    fn reset(&mut self) {}

    fn press_power(&mut self, _live: bool) -> Option<bool> {
        None
    }

    fn stats(&self) -> DeviceReport {
        let backing = self.disk.backing();
        DeviceReport::Block(BlockReport {
            path: backing.path().to_owned(),
            read_only: backing.read_only(),
            sectors: backing.sectors(),
            counters: self.disk.counters(),
        })
    }
}
