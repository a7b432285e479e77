//! Goldfish real-time clock.

pub mod registers;
pub mod state;

use crate::access::Access;
use crate::aclint::ticks;
use crate::error::DevicesError;
use crate::plic::IrqLine;
use crate::saved::{Slot, index};
use quasar_abi::Segment;
use quasar_abi::machine::TIMEBASE_HZ;
use quasar_abi::vm::Vm;
use state::RtcState;
use std::sync::Arc;
use std::time::Duration;
use zerocopy::IntoBytes;

const NS_PER_TICK: u64 = 1_000_000_000 / TIMEBASE_HZ;

/// The clock.
#[derive(Debug)]
pub struct Rtc {
    vm: Vm,
    irq: IrqLine,
    state: RtcState,
    /// The saved state's slot.
    pub slot: Slot,
}

impl Rtc {
    /// Takes up the saved state, or starts anew.
    ///
    /// # Errors
    /// [`DevicesError::State`].
    pub fn new(vm: Vm, saved: &Arc<Segment>, irq: IrqLine) -> Result<Self, DevicesError> {
        let mut slot = Slot::new(saved, index::RTC, "rtc", state::VERSION);
        let state = slot.load()?.unwrap_or_default();
        let mut rtc = Self { vm, irq, state, slot };
        rtc.settle();
        Ok(rtc)
    }

    /// Clears the alarm. The time that the guest has set stays, as with a battery.
    pub fn reset(&mut self) {
        self.state = RtcState { offset_ns: self.state.offset_ns, ..RtcState::default() };
        self.slot.forget_reply();
        self.settle();
    }

    /// Wall clock by guest time, before what the guest has set.
    fn wall_ns(&self) -> u64 {
        ticks(&self.vm).wrapping_mul(NS_PER_TICK).wrapping_add(self.vm.clock.wall_offset_ns.get())
    }

    /// Takes up a state that was put into the slot while the VM was parked.
    ///
    /// # Errors
    /// [`DevicesError::State`].
    pub fn take_up(&mut self) -> Result<(), DevicesError> {
        if self.slot.was_replaced() {
            self.state = self.slot.take_up()?;
            self.settle();
        }
        Ok(())
    }

    /// A register access of a hart; `None` when nothing answers.
    pub fn access(&mut self, access: &Access) -> Option<u64> {
        if !access.is(4) {
            return None;
        }
        let now = self.wall_ns();
        let value = match access.store32() {
            Some(value) => {
                self.state.write(access.offset, value, now);
                0
            }
            None => u64::from(self.state.read(access.offset, now)),
        };
        self.slot.note(access.tag, value);
        self.settle();
        Some(value)
    }

    /// Fires the alarm when it is due; returns how long until it is, if one is set.
    pub fn poll(&mut self) -> Option<Duration> {
        let now = self.wall_ns();
        if self.state.expire(now) {
            self.settle();
        }
        self.state.until_alarm(now).map(Duration::from_nanos)
    }

    fn settle(&mut self) {
        self.slot.publish(self.state.as_bytes());
        self.irq.set(self.state.raises());
    }
}
