//! Entropy (virtio 1.3, 5.4), from the host; in deterministic mode none: the same bytes in each run.

use super::device::{Device, Wants};
use super::queue::{Queue, RingError};
use super::transport::FEATURES;
use super::transport::registers::Identity;
use crate::error::BadState;
use crate::saved::plain_state;
use quasar_abi::random;
use quasar_abi::report::{DeviceReport, RngReport};
use quasar_abi::vm::Vm;

/// Bytes given per request at most; the driver asks again.
const MOST: usize = 4096;

/// The device. It keeps nothing.
#[derive(Debug)]
pub struct Rng {
    vm: Vm,
    given: u64,
}

impl Rng {
    /// One that has given nothing yet.
    #[must_use]
    pub const fn new(vm: Vm) -> Self {
        Self { vm, given: 0 }
    }

    fn fill(&mut self, bytes: &mut Vec<u8>, fixed: &mut SplitMix) {
        if self.vm.clock.is_deterministic() {
            bytes.fill_with(|| fixed.next_byte());
        } else if let Err(error) = random::fill(bytes) {
            log::error!("the host has no randomness for the guest: {error}");
            bytes.clear();
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014), a byte of each number.
struct SplitMix(u64);

impl SplitMix {
    const fn next_byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31).to_le_bytes()[0]
    }
}

impl Device for Rng {
    fn identity(&self) -> Identity {
        Identity { id: 4, features: FEATURES, queues: &[64] }
    }

    fn name(&self) -> &'static str {
        "rng"
    }

    fn config(&self) -> Vec<u8> {
        vec![]
    }

    fn write_config(&mut self, _offset: u64, _byte: u8) {}

    fn start(&mut self, _features: u64) {}

    fn work(&mut self, _index: usize, queue: &mut Queue<'_>) -> Result<(), RingError> {
        // No two notifications come at the same count of instructions, and nothing needs to be saved.
        let mut fixed = SplitMix(self.vm.clock.retired.get());
        while let Some(chain) = queue.next_buffer()? {
            let mut bytes = vec![0; usize::try_from(chain.writable_len()).unwrap_or(MOST).min(MOST)];
            self.fill(&mut bytes, &mut fixed);
            chain.write(queue.dma(), 0, &bytes)?;
            self.given += bytes.len() as u64;
            queue.finish(&[(chain.head, u32::try_from(bytes.len()).unwrap_or(0))])?;
        }
        Ok(())
    }

    fn wants(&self) -> Wants {
        Wants::default()
    }

    fn save(&self) -> Vec<u8> {
        vec![]
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BadState> {
        plain_state::<[u8; 0]>("rng", state).map(drop)
    }

    fn recovered(&mut self, _index: usize, _written: u64) {}

    fn reset(&mut self) {}

    fn press_power(&mut self, _live: bool) -> Option<bool> {
        None
    }

    fn stats(&self) -> DeviceReport {
        DeviceReport::Rng(RngReport { bytes_given: self.given })
    }
}
