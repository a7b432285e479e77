//! An input device with one key, power (virtio 1.3, 5.8): what a stock guest shuts down for.

pub mod config;
pub mod state;

use super::device::{Device, Wants};
use super::queue::{Queue, RingError};
use super::transport::FEATURES;
use super::transport::registers::Identity;
use crate::error::BadState;
use config::{EV_KEY, KEY_POWER};
use quasar_abi::report::{DeviceReport, PowerKeyReport};
use state::{EVENTS_PER_PRESS, InputState, MAX_PRESSES};
use zerocopy::IntoBytes;

const EVENTS: usize = 0;
const STATUS: usize = 1;

/// The key.
#[derive(Debug, Default)]
pub struct PowerKey {
    state: InputState,
    pressed: u64,
}

/// The event with so many waiting, itself included (virtio 1.3, 5.8.6.2).
fn event(waiting: u8) -> [u8; 8] {
    let (kind, code, value) = match waiting % EVENTS_PER_PRESS {
        0 => (EV_KEY, KEY_POWER, 1u32),
        2 => (EV_KEY, KEY_POWER, 0),
        _ => (0, 0, 0),
    };
    let mut bytes = [0; 8];
    bytes[..2].copy_from_slice(&kind.to_le_bytes());
    bytes[2..4].copy_from_slice(&code.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_le_bytes());
    bytes
}

impl Device for PowerKey {
    fn identity(&self) -> Identity {
        Identity { id: 18, features: FEATURES, queues: &[64, 64] }
    }

    fn name(&self) -> &'static str {
        "input"
    }

    fn config(&self) -> Vec<u8> {
        config::space(self.state.select, self.state.subsel)
    }

    fn write_config(&mut self, offset: u64, byte: u8) {
        match offset {
            0 => self.state.select = byte,
            1 => self.state.subsel = byte,
            _ => {}
        }
    }

    fn start(&mut self, _features: u64) {}

    fn work(&mut self, index: usize, queue: &mut Queue<'_>) -> Result<(), RingError> {
        match index {
            EVENTS => {
                while self.state.waiting > 0 {
                    let Some(chain) = queue.next_buffer()? else { break };
                    let event = event(self.state.waiting);
                    chain.write(queue.dma(), 0, &event)?;
                    queue.finish(&[(chain.head, 8)])?;
                    self.state.waiting -= 1;
                }
            }
            // Lights that the driver sets: there are none.
            STATUS => {
                while let Some(chain) = queue.next_buffer()? {
                    queue.finish(&[(chain.head, 0)])?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn wants(&self) -> Wants {
        Wants { queue: (self.state.waiting > 0).then_some(EVENTS), again: None }
    }

    fn save(&self) -> Vec<u8> {
        self.state.as_bytes().to_vec()
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BadState> {
        self.state = InputState::try_from(state)?;
        Ok(())
    }

    fn recovered(&mut self, _index: usize, _written: u64) {}

    fn reset(&mut self) {
        self.state = InputState::default();
    }

    fn press_power(&mut self, live: bool) -> Option<bool> {
        if live && self.state.waiting <= (MAX_PRESSES - 1) * EVENTS_PER_PRESS {
            self.state.waiting += EVENTS_PER_PRESS;
            self.pressed += 1;
        }
        Some(live)
    }

    fn stats(&self) -> DeviceReport {
        DeviceReport::PowerKey(PowerKeyReport { pressed: self.pressed })
    }
}
