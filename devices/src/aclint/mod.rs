//! ACLINT in the layout of SiFive's CLINT: machine software interrupts and machine timers
//! (RISC-V ACLINT specification 1.0-rc4, chapters 2 and 3).

pub mod registers;
pub mod state;

use crate::access::Access;
use crate::error::DevicesError;
use crate::saved::{Slot, index};
use quasar_abi::Segment;
use quasar_abi::party::{PartyId, attention};
use quasar_abi::vm::Vm;
use state::AclintState;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use zerocopy::IntoBytes;

const MSIP: u64 = 1 << 3;

/// The timers and software interrupts.
#[derive(Debug)]
pub struct Aclint {
    vm: Vm,
    state: AclintState,
    /// The saved state's slot.
    pub slot: Slot,
}

impl Aclint {
    /// Takes up the saved state, or starts anew, and drives the harts accordingly.
    ///
    /// # Errors
    /// [`DevicesError::State`].
    pub fn new(vm: Vm, saved: &Arc<Segment>) -> Result<Self, DevicesError> {
        let mut slot = Slot::new(saved, index::ACLINT, "aclint", state::VERSION);
        let state = slot.load()?.unwrap_or_default();
        let mut aclint = Self { vm, state, slot };
        aclint.settle();
        Ok(aclint)
    }

    /// Puts the device into its state after power-on.
    pub fn reset(&mut self) {
        self.state = AclintState::default();
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
            self.settle();
        }
        Ok(())
    }

    /// A register access of a hart; `None` when nothing answers.
    pub fn access(&mut self, access: &Access) -> Option<u64> {
        let register = registers::decode(access, self.vm.harts.get())?;
        let value = match access.store {
            Some(value) => {
                self.state.write(register, value);
                0
            }
            None => self.state.read(register, ticks(&self.vm)),
        };
        if access.store.is_some() {
            self.slot.note(access.tag, value);
            self.settle();
        }
        Some(value)
    }

    fn settle(&mut self) {
        self.slot.publish(self.state.as_bytes());
        let harts = self.vm.harts.get() as usize;
        for (hart, control) in (0u8..).zip(&self.vm.hart_control).take(harts) {
            let at = usize::from(hart);
            let party = self.vm.party(PartyId::Hart(hart));
            let compare = self.state.mtimecmp[at].get();
            if control.mtimecmp.swap(compare, Ordering::SeqCst) != compare {
                party.call(attention::TIMER);
            }
            let raised = self.state.msip[at].get() != 0;
            let before = if raised {
                control.lines.fetch_or(MSIP, Ordering::SeqCst)
            } else {
                control.lines.fetch_and(!MSIP, Ordering::SeqCst)
            };
            if (before & MSIP != 0) != raised {
                party.call(attention::INTERRUPT);
            }
        }
    }
}

/// The guest's time now; in deterministic mode that of hart 0's latest request, exact while it waits for the answer.
#[must_use]
pub fn ticks(vm: &Vm) -> u64 {
    vm.clock.ticks(vm.clock.retired.get())
}
