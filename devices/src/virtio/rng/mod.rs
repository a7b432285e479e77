//! Entropy (virtio 1.3, 5.4), from the host's `/dev/urandom`.

use super::device::{Device, Wants};
use super::queue::{Queue, RingError};
use super::transport::FEATURES;
use super::transport::registers::Identity;
use crate::error::{BadState, DevicesError};
use crate::virtio::card::plain_state;
use std::fs::File;
use std::io::Read;

/// Bytes given per request at most; the driver asks again.
const MOST: usize = 4096;

/// The device. It keeps nothing.
#[derive(Debug)]
pub struct Rng {
    source: File,
    given: u64,
}

impl Rng {
    /// Opens the source.
    ///
    /// # Errors
    /// [`DevicesError::System`].
    pub fn new() -> Result<Self, DevicesError> {
        let source = File::open("/dev/urandom")
            .map_err(|source| DevicesError::System { what: "opening /dev/urandom", source })?;
        Ok(Self { source, given: 0 })
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
        while let Some(chain) = queue.next_buffer()? {
            let mut bytes = vec![0; usize::try_from(chain.writable_len()).unwrap_or(MOST).min(MOST)];
            if let Err(error) = self.source.read_exact(&mut bytes) {
                log::error!("/dev/urandom: {error}");
                bytes.clear();
            }
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

    fn reset(&mut self) {}

    fn press_power(&mut self, _live: bool) -> Option<bool> {
        None
    }

    fn stats(&self) -> serde_json::Value {
        serde_json::json!({ "bytes_given": self.given })
    }
}
