//! What the hart shows of its work: instructions, time, progress.

use crate::context::ExecContext;
use quasar_abi::clock::host_monotonic_ns;
use quasar_abi::party::PartyId;

/// What was last counted.
#[derive(Debug)]
pub(super) struct Tally {
    retired: u64,
    since: u64,
    last_spent: u64,
}

impl Tally {
    pub const fn new() -> Self {
        Self { retired: 0, since: 0, last_spent: 0 }
    }

    /// Time counts as executing from now on.
    pub fn resume(&mut self) {
        self.since = host_monotonic_ns();
    }

    /// The hart begins to execute from a state taken up.
    pub fn start(&mut self, context: &ExecContext) {
        self.retired = context.hart.retired;
        self.resume();
    }

    /// The nanoseconds of the latest count.
    pub const fn last_spent(&self) -> u64 {
        self.last_spent
    }

    /// Adds what has happened since the last call.
    pub fn count(&mut self, context: &ExecContext) {
        let retired = context.hart.retired;
        let now = host_monotonic_ns();
        let spent = now.saturating_sub(self.since);
        let counters = context.counters();
        counters.instructions.bump(retired.saturating_sub(self.retired));
        counters.run_ns.bump(spent);
        context.vm.party(PartyId::Hart(context.hart.index)).progress.bump(1);
        self.retired = retired;
        self.since = now;
        self.last_spent = spent;
    }
}
