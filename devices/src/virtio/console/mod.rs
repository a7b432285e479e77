//! Console with one port (virtio 1.3, 5.3) on the VM's second console.

use super::device::{Device, Wants};
use super::queue::{Queue, RingError};
use super::transport::FEATURES;
use super::transport::registers::Identity;
use crate::console::ConsolePort;
use crate::error::{BadState, DevicesError};
use crate::saved::plain_state;
use quasar_abi::Segment;
use quasar_abi::console::VIRTIO_CONSOLE;
use quasar_abi::report::{ConsoleReport, DeviceReport};
use std::sync::Arc;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Bytes moved at a time.
const CHUNK: usize = 4096;
/// Longest output in one buffer. Descriptors may name the same memory often: without a limit a few of them
/// would keep the server busy for minutes.
const MAX_OUTPUT: u64 = 1 << 20;

/// The console. What waits, waits in the rings; it keeps how far it has taken its input.
#[derive(Debug)]
pub struct VirtioConsole {
    console: ConsolePort,
    /// The console's `input_tail` in the state that was loaded.
    loaded: u64,
}

impl VirtioConsole {
    /// The device on the VM's second console.
    ///
    /// # Errors
    /// [`DevicesError::Segment`].
    pub fn new(consoles: &Arc<Segment>) -> Result<Self, DevicesError> {
        Ok(Self { console: ConsolePort::new(consoles, VIRTIO_CONSOLE)?, loaded: 0 })
    }

    fn receive(&self, queue: &mut Queue<'_>) -> Result<(), RingError> {
        while self.console.has_input() {
            let Some(chain) = queue.next_buffer()? else { break };
            let room = usize::try_from(chain.writable_len()).unwrap_or(CHUNK).min(CHUNK);
            if room == 0 {
                return Err(RingError::Short { needed: 1, found: 0 });
            }
            let bytes = self.console.waiting_input(room);
            chain.write(queue.dma(), 0, &bytes)?;
            queue.finish(&[(chain.head, u32::try_from(bytes.len()).unwrap_or(0))])?;
            self.console.input_taken(self.console.input_tail.get().wrapping_add(bytes.len() as u64));
        }
        Ok(())
    }

    fn transmit(&self, queue: &mut Queue<'_>) -> Result<(), RingError> {
        while let Some(chain) = queue.next_buffer()? {
            let len = chain.readable_len();
            if len > MAX_OUTPUT {
                return Err(RingError::Long { most: MAX_OUTPUT, found: len });
            }
            let mut at = 0;
            while at < len {
                let mut bytes = vec![0; usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK)];
                chain.read(queue.dma(), at, &mut bytes)?;
                self.console.write(&bytes);
                at += bytes.len() as u64;
            }
            queue.finish(&[(chain.head, 0)])?;
        }
        Ok(())
    }
}

impl Device for VirtioConsole {
    fn identity(&self) -> Identity {
        Identity { id: 3, features: FEATURES, queues: &[64, 64] }
    }

    fn name(&self) -> &'static str {
        "console"
    }

    fn config(&self) -> Vec<u8> {
        vec![0; 12]
    }

    fn write_config(&mut self, _offset: u64, _byte: u8) {}

    fn start(&mut self, _features: u64) {}

    fn work(&mut self, index: usize, queue: &mut Queue<'_>) -> Result<(), RingError> {
        match index {
            RECEIVE => self.receive(queue),
            TRANSMIT => self.transmit(queue),
            _ => Ok(()),
        }
    }

    fn wants(&self) -> Wants {
        Wants { queue: self.console.has_input().then_some(RECEIVE), again: None }
    }

    fn save(&self) -> Vec<u8> {
        self.console.input_tail.get().to_le_bytes().to_vec()
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BadState> {
        self.loaded = u64::from_le_bytes(plain_state("console", state)?);
        Ok(())
    }

    /// What the guest has got is taken, whether that was still said to the console or not. (The state of a VM from
    /// another host, whose positions mean nothing here, has nothing to recover.)
    fn recovered(&mut self, index: usize, written: u64) {
        if index == RECEIVE {
            let taken = self.loaded.wrapping_add(written);
            let tail = self.console.input_tail.get();
            let typed = self.console.input_head.get().wrapping_sub(tail);
            if taken.wrapping_sub(tail) <= written.min(typed) {
                self.console.input_taken(taken);
            }
        }
    }

    fn reset(&mut self) {}

    fn press_power(&mut self, _live: bool) -> Option<bool> {
        None
    }

    fn stats(&self) -> DeviceReport {
        let (written, read) = (self.console.written.get(), self.console.input_tail.get());
        DeviceReport::Console(ConsoleReport { written, read })
    }
}
