//! The thread that carries out a disk's requests, one after the other.

use super::request::Disk;
use crate::virtio::card::Shared;
use std::sync::atomic::Ordering;

const REQUESTS: usize = 0;

/// Works until the card sends it home.
///
/// The pass covers a request whole, the file's part included: a VM that is parked writes to no disk.
pub fn run(card: &Shared, disk: &Disk) {
    while card.wait_for_work() {
        while let Some(_pass) = card.host.gate.enter() {
            let Some((chain, features)) = card.begin_request(REQUESTS) else { break };
            let written = disk.execute(&card.host.dma, &chain, features);
            card.counted.fetch_add(1, Ordering::Relaxed);
            card.bytes.fetch_add(chain.readable_len() + chain.writable_len(), Ordering::Relaxed);
            card.finish_request(REQUESTS, &chain, written);
        }
    }
}
