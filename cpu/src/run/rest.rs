//! Coming to rest and going on: the pause protocol, WFI, a stopped hart, the throttle.

use super::{HartRunner, RunError};
use crate::hart::Hart;
use quasar_abi::clock::{host_monotonic_ns, mode};
use quasar_abi::hart::hsm;
use quasar_abi::party::{PartyId, attention};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A waiting hart looks up this often without being called, so that its progress counter moves.
const LOOK_UP: Duration = Duration::from_secs(1);

fn since(start_ns: u64) -> Duration {
    Duration::from_nanos(host_monotonic_ns().saturating_sub(start_ns))
}

impl HartRunner {
    /// Takes the attention bits; remembers a stop.
    pub(super) fn take_attention(&mut self) {
        let bits = self.party().attention.swap(0, Ordering::SeqCst);
        self.stopping |= bits & attention::STOP != 0;
    }

    /// Waits, parked, until no pause is on and declares the hart running. False when the process shall end.
    pub(super) fn wait_until_free(&mut self) -> bool {
        loop {
            let seen = self.party().doorbell.seen();
            self.take_attention();
            if self.stopping {
                return false;
            }
            if self.context.vm.try_run(self.me) {
                return true;
            }
            self.party().doorbell.wait(seen, Some(LOOK_UP));
        }
    }

    /// Takes the published state, which the owner of a parked hart may have changed, and drops everything
    /// that depended on memory as it was.
    pub(super) fn take_up_state(&mut self) -> Result<(), RunError> {
        let hart = self.context.hart.index;
        let published = &self.context.vm.hart_state[usize::from(hart)];
        let loaded = Hart::load(hart, published.current());
        match loaded {
            Ok(state) => self.context.hart = state,
            Err(source) => {
                self.context.vm.park(self.me);
                return Err(RunError::State { hart, source });
            }
        }
        self.context.memory.set_synchronous(self.deterministic());
        self.context.memory.instructions_changed();
        self.acknowledge_epoch();
        self.context.protection_changed();
        Ok(())
    }

    /// Drops what may be written without a mark and says so, when a new epoch has begun.
    pub(super) fn acknowledge_epoch(&mut self) {
        let epoch = self.context.vm.epoch.load(Ordering::SeqCst);
        if self.party().epoch_ack.load(Ordering::SeqCst) != epoch {
            self.context.memory.drop_writes();
            self.party().epoch_ack.store(epoch, Ordering::SeqCst);
        }
    }

    /// Sleeps until somebody calls or `timeout` has passed, unless attention bits are set.
    fn sleep(&self, timeout: Option<Duration>) {
        let party = self.party();
        let seen = party.doorbell.seen();
        if party.attention.load(Ordering::SeqCst) == 0 {
            party.doorbell.wait(seen, Some(timeout.unwrap_or(LOOK_UP).min(LOOK_UP)));
        }
    }

    /// A stopped hart (HSM) waits to be started.
    pub(super) fn wait_stopped(&mut self) {
        self.tally.count(&self.context);
        self.sleep(None);
        self.tally.resume();
    }

    /// WFI: sleeps until an interrupt is pending that mie enables (RISC-V Privileged 1.13, 3.3.3), or until
    /// the hart is called for something else. Returns whether it goes on.
    pub(super) fn wait_for_interrupt(&mut self) -> bool {
        self.tally.count(&self.context);
        if self.context.hart.csr.mie == 0 {
            // Nothing ends this wait; whoever runs a bare program sees it in the published state.
            self.context.publish();
            self.context.vm.party(PartyId::Supervisor).doorbell.ring();
        }
        let start = host_monotonic_ns();
        let awake = loop {
            let seen = self.party().doorbell.seen();
            if self.context.wakes() {
                break true;
            }
            if self.party().attention.load(Ordering::SeqCst) != 0 {
                break false;
            }
            let deadline = self.next_deadline(self.context.hart.csr.mie);
            match deadline {
                Some(ticks) if self.deterministic() => {
                    let early = self.until(ticks).saturating_sub(since(start));
                    if self.context.vm.clock.mode.get() == mode::PACED && !early.is_zero() {
                        self.party().doorbell.wait(seen, Some(early.min(LOOK_UP)));
                        self.party().progress.bump(1);
                    } else {
                        self.skip_to(ticks);
                    }
                }
                None if self.deterministic() && self.context.vm.instruction_limit.get() != 0 => {
                    // Nothing in this machine can wake it any more.
                    self.reach_limit();
                    break false;
                }
                deadline => {
                    let timeout = deadline.map_or(LOOK_UP, |ticks| self.until(ticks).min(LOOK_UP));
                    self.party().doorbell.wait(seen, Some(timeout));
                    self.party().progress.bump(1);
                }
            }
        };
        if awake {
            self.context.hart.waiting = false;
            let state = &self.context.control().hsm;
            if state.load(Ordering::SeqCst) == hsm::SUSPENDED {
                state.store(hsm::STARTED, Ordering::SeqCst);
            }
        }
        self.context.counters().wfi_ns.bump(host_monotonic_ns().saturating_sub(start));
        self.tally.resume();
        awake
    }

    /// Gives the throttle's share of the time since the last call away.
    pub(super) fn throttle(&mut self) {
        let share = self.context.control().throttle_permille.get().min(990);
        if share != 0 {
            let pause = self.tally.last_spent().saturating_mul(share) / (1000 - share);
            self.sleep(Some(Duration::from_nanos(pause)));
            self.tally.resume();
        }
    }
}
