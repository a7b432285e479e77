//! 16550A serial port on the VM's first console.

pub mod pace;
pub mod registers;
pub mod state;

use crate::access::Access;
use crate::console::ConsolePort;
use crate::error::DevicesError;
use crate::plic::IrqLine;
use crate::saved::{Slot, index};
use pace::Pace;
use quasar_abi::Segment;
use state::{FIFO, UartState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

/// The serial port.
#[derive(Debug)]
pub struct Uart {
    console: ConsolePort,
    irq: IrqLine,
    state: UartState,
    pace: Pace,
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
        let mut uart = Self { console, irq, state, pace: Pace::default(), slot };
        let (taken, tail) = (uart.state.taken.get(), uart.console.input_tail.get());
        let typed = uart.console.input_head.get().wrapping_sub(tail);
        // The state of a VM from another host counts in that host's console: there is nothing to recover from it.
        if (1..=typed.min(FIFO as u64)).contains(&taken.wrapping_sub(tail)) {
            uart.console.input_taken(taken);
        } else {
            uart.state.taken = tail.into();
        }
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
        let UartState { flushed, taken, .. } = self.state;
        self.state = UartState { flushed, taken, ..UartState::default() };
        self.pace = Pace::default();
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
            // Positions in the other host's console mean nothing here.
            self.state.taken = self.console.input_tail.get().into();
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

    /// Takes in waiting input at the line's [`pace`]; returns when to ask again, if somebody has to. `idle` says whether
    /// every hart sleeps.
    pub fn poll(&mut self, now: Instant, idle: impl FnOnce() -> bool) -> Option<Duration> {
        if self.state.is_read() {
            self.pace.emptied(now);
        }
        let room = self.state.room();
        if room == 0 || !self.console.has_input() {
            return None;
        }
        if let Some(wait) = self.pace.wait(now, idle) {
            return Some(wait);
        }
        let bytes = self.console.waiting_input(room.min(self.pace.burst()));
        bytes.iter().for_each(|byte| self.state.receive(*byte));
        self.state.taken += bytes.len() as u64;
        // Published before the console lets go of it: a process killed in between loses nothing.
        self.settle();
        self.console.input_taken(self.state.taken.get());
        self.pace.filled(now);
        None
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
