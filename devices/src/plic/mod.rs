//! Platform-level interrupt controller (RISC-V PLIC specification 1.0.0, in SiFive's layout).

pub mod registers;
pub mod state;

use crate::access::Access;
use crate::error::DevicesError;
use crate::saved::{Slot, index};
use parking_lot::Mutex;
use quasar_abi::Segment;
use quasar_abi::party::{PartyId, attention};
use quasar_abi::vm::Vm;
use state::PlicState;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use zerocopy::IntoBytes;

/// mip bits that the PLIC drives.
const MEIP: u64 = 1 << 11;
const SEIP: u64 = 1 << 9;

#[derive(Debug)]
struct Inner {
    state: PlicState,
    slot: Slot,
}

/// The controller. Devices raise lines from any thread.
#[derive(Debug)]
pub struct Plic {
    vm: Vm,
    inner: Mutex<Inner>,
}

impl Plic {
    /// Takes up the saved state, or starts anew, and drives the harts' lines accordingly.
    ///
    /// # Errors
    /// [`DevicesError::State`].
    pub fn new(vm: Vm, saved: &Arc<Segment>) -> Result<Self, DevicesError> {
        let mut slot = Slot::new(saved, index::PLIC, "plic", state::VERSION);
        let state = slot.load()?.unwrap_or_default();
        let plic = Self { vm, inner: Mutex::new(Inner { state, slot }) };
        plic.settle(&mut plic.inner.lock());
        Ok(plic)
    }

    /// Puts the controller into its state after power-on; the devices' lines stay as they are driven.
    pub fn reset(&self) {
        let mut inner = self.inner.lock();
        let level = inner.state.level;
        inner.state = PlicState { level, ..PlicState::default() };
        inner.slot.forget_reply();
        self.settle(&mut inner);
    }

    /// Takes up a state that was put into the slot while the VM was parked.
    ///
    /// # Errors
    /// [`DevicesError::State`].
    pub fn take_up(&self) -> Result<(), DevicesError> {
        let mut inner = self.inner.lock();
        if inner.slot.was_replaced() {
            inner.state = inner.slot.take_up()?;
            self.settle(&mut inner);
        }
        Ok(())
    }

    /// A register access of a hart; `None` when nothing answers.
    pub fn access(&self, access: &Access) -> Option<u64> {
        if !access.is(4) {
            return None;
        }
        let mut inner = self.inner.lock();
        let contexts = 2 * u64::from(self.vm.harts.get());
        let value = match access.store32() {
            Some(value) => {
                inner.state.write(contexts, access.offset, value);
                0
            }
            None => u64::from(inner.state.read(contexts, access.offset)),
        };
        inner.slot.note(access.tag, value);
        self.settle(&mut inner);
        Some(value)
    }

    /// The reply that was published for an access, for the server's start.
    pub fn with_slot<T>(&self, act: impl FnOnce(&mut Slot) -> T) -> T {
        act(&mut self.inner.lock().slot)
    }

    fn set_level(&self, source: u32, level: bool) {
        let mut inner = self.inner.lock();
        if inner.state.set_level(source, level) {
            self.settle(&mut inner);
        }
    }

    /// Publishes the state and lets the harts' lines follow it. The lines derive from the state, so that
    /// they are right again after a restart whatever was lost in between.
    fn settle(&self, inner: &mut Inner) {
        inner.slot.publish(inner.state.as_bytes());
        for (hart, control) in (0u8..).zip(&self.vm.hart_control).take(self.vm.harts.get() as usize) {
            let machine = if inner.state.asserted(2 * usize::from(hart)) { MEIP } else { 0 };
            let supervisor = if inner.state.asserted(2 * usize::from(hart) + 1) { SEIP } else { 0 };
            let wanted = machine | supervisor;
            let now = control.lines.load(Ordering::Acquire) & (MEIP | SEIP);
            if now != wanted {
                control.lines.fetch_or(wanted, Ordering::SeqCst);
                control.lines.fetch_and(!(now & !wanted), Ordering::SeqCst);
                self.vm.party(PartyId::Hart(hart)).call(attention::INTERRUPT);
            }
        }
    }
}

/// A device's line to the controller. Level-triggered.
#[derive(Clone, Debug)]
pub struct IrqLine {
    plic: Arc<Plic>,
    source: u32,
}

impl IrqLine {
    /// The line of `source`.
    #[must_use]
    pub fn new(plic: &Arc<Plic>, source: u32) -> Self {
        Self { plic: Arc::clone(plic), source }
    }

    /// Drives the line.
    pub fn set(&self, level: bool) {
        self.plic.set_level(self.source, level);
    }
}
