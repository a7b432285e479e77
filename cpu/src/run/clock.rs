//! When the hart has to look up next: timers, instruction limits, deterministic time.

use super::{HartRunner, SLICE};
use crate::trap::{MTIP, STIP};
use std::sync::atomic::Ordering;
use std::time::Duration;

impl HartRunner {
    pub(super) fn ticks(&self) -> u64 {
        self.context.vm.clock.ticks(self.context.hart.retired)
    }

    pub(super) fn deterministic(&self) -> bool {
        self.context.vm.clock.is_deterministic()
    }

    /// The earliest timer still to come among those whose mip bit is in `bits`, in ticks.
    pub(super) fn next_deadline(&self, bits: u64) -> Option<u64> {
        let now = self.ticks();
        let hart = &self.context.hart;
        let supervisor = (bits & STIP != 0 && hart.csr.sstc()).then_some(hart.csr.stimecmp);
        let machine = (bits & MTIP != 0).then(|| self.context.control().mtimecmp.load(Ordering::SeqCst));
        // A deadline of all ones is how a guest says "never".
        supervisor.into_iter().chain(machine).filter(|at| *at > now && *at != u64::MAX).min()
    }

    /// How long until `deadline`, at most an hour.
    pub(super) fn until(&self, deadline: u64) -> Duration {
        let wait = self.context.vm.clock.until(deadline, self.context.hart.retired);
        wait.min(Duration::from_secs(3600))
    }

    /// Arms the timer's thread for the next deadline (real time only).
    pub(super) fn arm_timer(&mut self) {
        let deadline = if self.deterministic() { None } else { self.next_deadline(MTIP | STIP) };
        match deadline {
            None => self.timer.disarm(),
            Some(ticks) if self.timer.armed_for() == Some(ticks) => {}
            Some(ticks) => self.timer.arm(ticks, self.until(ticks)),
        }
    }

    /// The count of retired instructions at which the engine is to stop.
    pub(super) fn next_stop(&self) -> u64 {
        let mut stop = self.context.hart.retired.saturating_add(SLICE);
        let limit = self.context.vm.instruction_limit.get();
        if limit != 0 {
            stop = stop.min(limit.saturating_sub(self.trapped()));
        }
        if self.deterministic()
            && let Some(deadline) = self.next_deadline(MTIP | STIP)
        {
            stop = stop.min(self.context.vm.clock.instructions_at(deadline));
        }
        stop
    }

    /// Instructions that took an exception instead of retiring.
    pub(super) fn trapped(&self) -> u64 {
        self.context.counters().exceptions.get()
    }

    /// Deterministic time does not pass while no instruction retires: moves it on to the next deadline.
    pub(super) fn skip_to(&self, deadline: u64) {
        self.context.vm.clock.skip(deadline.saturating_sub(self.ticks()));
    }
}
