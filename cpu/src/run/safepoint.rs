//! The safepoint: everything that others may want of a hart, looked at between two instructions.

use super::HartRunner;
use crate::engine::serve_fences;
use crate::sbi::host::take_start;
use quasar_abi::hart::hsm;
use quasar_abi::party::{PartyId, attention};
use quasar_abi::vm::pause;
use std::sync::atomic::Ordering;

/// What to do after a safepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Safepoint {
    /// Execute.
    Go,
    /// Look again: the hart has waited.
    Again,
    /// Publish and park, or end.
    Rest,
}

impl HartRunner {
    /// Looks at every shared word that concerns the hart; attention bits only said that one has changed.
    pub(super) fn safepoint(&mut self) -> Safepoint {
        self.take_attention();
        if self.stopping || self.context.vm.pause_mask.load(Ordering::SeqCst) != 0 {
            return Safepoint::Rest;
        }
        self.acknowledge_epoch();
        let control = &self.context.vm.hart_control[usize::from(self.context.hart.index)];
        serve_fences(&mut self.context.memory, control);
        if self.context.memory.htif_waiting() {
            self.wait_for_host();
            return Safepoint::Again;
        }
        let state = self.context.control().hsm.load(Ordering::SeqCst);
        if !matches!(state, hsm::STARTED | hsm::SUSPENDED) && !self.take_up_start() {
            self.wait_stopped();
            return Safepoint::Again;
        }
        if self.limit_reached() {
            return Safepoint::Again;
        }
        if self.context.hart.waiting && !self.wait_for_interrupt() {
            return Safepoint::Again;
        }
        self.context.take_interrupt();
        self.arm_timer();
        Safepoint::Go
    }

    /// A hart that another one has started begins there. Returns whether it runs now.
    fn take_up_start(&mut self) -> bool {
        let Some((address, opaque)) = take_start(&self.context.vm, self.context.hart.index) else {
            return false;
        };
        self.context.hart.start(address, opaque);
        self.context.memory.instructions_changed();
        self.context.protection_changed();
        true
    }

    /// Pauses the VM when the instruction limit has been reached. Instructions that trapped count, or a program
    /// whose handler traps would never reach it.
    fn limit_reached(&self) -> bool {
        let vm = &self.context.vm;
        let limit = vm.instruction_limit.get();
        let reached = limit != 0 && self.context.hart.retired + self.trapped() >= limit;
        if reached {
            self.reach_limit();
        }
        reached
    }

    /// Pauses the VM for having come to its limit.
    pub(super) fn reach_limit(&self) {
        let vm = &self.context.vm;
        vm.pause(pause::LIMIT);
        vm.party(PartyId::Supervisor).doorbell.ring();
    }

    /// An HTIF command waits for the supervisor's answer.
    fn wait_for_host(&mut self) {
        self.tally.count(&self.context);
        let party = self.context.vm.party(self.me);
        let calls = attention::STOP | attention::PAUSE | attention::EPOCH | attention::FENCE;
        self.context.vm.htif.wait(0, || party.attention.load(Ordering::SeqCst) & calls == 0);
        self.tally.resume();
    }
}
