//! 16550A serial port on the VM's first console.

pub mod registers;
pub mod state;

use crate::access::Access;
use crate::console::ConsolePort;
use crate::error::DevicesError;
use crate::plic::IrqLine;
use crate::saved::{Slot, index};
use quasar_abi::Segment;
use state::UartState;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// The serial port.
#[derive(Debug)]
pub struct Uart {
    console: ConsolePort,
    irq: IrqLine,
    state: UartState,
    /// The saved state's slot.
    pub slot: Slot,
}

impl Uart {
    /// Takes up the saved state, or starts anew.
    ///
    /// # Errors
    /// [`DevicesError::State`].
    pub fn new(console: ConsolePort, saved: &Arc<Segment>, irq: IrqLine) -> Result<Self, DevicesError> {
        let mut slot = Slot::new(saved, index::UART, "uart", state::VERSION);
        let state = slot.load()?.unwrap_or_default();
        let mut uart = Self { console, irq, state, slot };
        if uart.state.flushed.get() != uart.console.written.get() {
            uart.state.clear_sent(uart.console.written.get());
        }
        uart.flush();
        uart.settle();
        Ok(uart)
    }

    /// Puts the port into its state after power-on.
    pub fn reset(&mut self) {
        self.flush();
        self.state = UartState { flushed: self.state.flushed, ..UartState::default() };
        self.slot.forget_reply();
        self.settle();
    }

    /// Takes up a state that was put into the slot while the VM was parked.
    ///
    /// # Errors
    /// [`DevicesError::State`].
    pub fn take_up(&mut self) -> Result<(), DevicesError> {
        if self.slot.was_replaced() {
            self.state = self.slot.take_up()?;
            // Output that the other host's process gathered and did not show any more is shown here.
            if self.state.flushed.get() != self.console.written.get() {
                self.state.clear_sent(self.console.written.get());
            }
            self.flush();
            self.settle();
        }
        Ok(())
    }

    /// A register access of a hart; `None` when nothing answers.
    pub fn access(&mut self, access: &Access) -> Option<u64> {
        // Byte registers, which some drivers access as words (`reg-io-width`).
        let register = u8::try_from(access.offset).ok().filter(|offset| *offset < 8)?;
        if !access.is(access.len) || access.len > 4 {
            return None;
        }
        let value = match access.store {
            Some(value) => {
                self.state.write(register, value.to_le_bytes()[0]);
                0
            }
            None => u64::from(self.state.read(register)),
        };
        self.slot.note(access.tag, value);
        self.settle();
        if self.state.tx_full() {
            self.flush();
        }
        Some(value)
    }

    /// Takes in waiting input while the receiver has room.
    pub fn poll(&mut self) {
        let mut changed = false;
        while self.state.has_room() && self.console.has_input() {
            let Some(byte) = self.console.pop_input() else { break };
            self.state.receive(byte);
            changed = true;
        }
        if changed {
            self.settle();
        }
    }

    /// Hands what the guest has sent to the console, in one go.
    pub fn flush(&mut self) {
        let sent = self.state.sent();
        if !sent.is_empty() {
            self.console.write(sent);
            self.state.clear_sent(self.console.written.get());
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.slot.publish(self.state.as_bytes());
        self.irq.set(self.state.raises());
    }
}
