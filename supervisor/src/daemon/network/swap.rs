//! Exchanging the switch for another build or version of its program, under running VMs.
//!
//! The switch holds nothing that its keeper does not tell its successor, and what is in the cards' rings stays there: a
//! swap is an orderly end and a start. A newcomer that does not serve, or refuses what the one before had carried out,
//! makes way for that one's program.

use super::{Answer, END_DEADLINE, Keeper, START_DEADLINE};
use crate::children::{Launcher, Process};
use quasar_abi::control::ProcessKind;
use quasar_abi::control::netswitch::NetswitchCommand;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The old one is ending.
    Ending,
    /// The new one is to serve.
    Newcomer,
    /// It did not; the old program is started again.
    Back,
}

/// A swap under way.
pub(super) struct SwitchSwap {
    stage: Stage,
    before: Launcher,
    began: Instant,
    by: Instant,
    failure: String,
    answer: Answer,
}

impl SwitchSwap {
    /// When to look at it at the latest.
    pub(super) fn deadline(&self) -> Instant {
        self.by
    }
}

impl Keeper {
    pub(super) fn swap(&mut self, launcher: Launcher, answer: Answer) {
        if self.swap.is_some() {
            return answer(Err("the switch is being swapped already; try again".into()));
        }
        if self.ports.values().any(|port| port.held) {
            let why =
                "a VM is on its way here, and the switch holds frames for it; try again when it has arrived";
            return answer(Err(why.into()));
        }
        let before = std::mem::replace(&mut self.launcher, launcher);
        if self.switch.is_none() {
            // The next one is started with it: when the one that died is due, or with the first port.
            return answer(Ok(serde_json::Value::Null));
        }
        let now = Instant::now();
        let (by, failure) = (now + END_DEADLINE, String::new());
        self.swap = Some(SwitchSwap { stage: Stage::Ending, before, began: now, by, failure, answer });
        if self.send(NetswitchCommand::Shutdown).is_none() {
            self.kill_switch();
        }
    }

    fn kill_switch(&self) {
        if let Some(switch) = &self.switch {
            switch.kill();
        }
    }

    /// The switch has ended. Returns whether that is the swap's to deal with.
    pub(super) fn swap_ended(&mut self, how: &str) -> bool {
        let Some(swap) = &mut self.swap else { return false };
        swap.by = Instant::now() + START_DEADLINE;
        match swap.stage {
            Stage::Ending => swap.stage = Stage::Newcomer,
            Stage::Newcomer => {
                if swap.failure.is_empty() {
                    swap.failure = how.to_owned();
                }
                swap.stage = Stage::Back;
                self.launcher = swap.before.clone();
            }
            Stage::Back => {
                let failure = format!("the new switch {}, and then the old program {how}", swap.failure);
                if let Some(swap) = self.swap.take() {
                    (swap.answer)(Err(failure));
                }
                return false;
            }
        }
        self.start_switch();
        true
    }

    /// A switch that has said hello was told everything: its answer to one more question says that it has carried
    /// that out.
    pub(super) fn ask_newcomer(&mut self) {
        if self.swap.is_none() {
            return;
        }
        let outbox = self.outbox.clone();
        let generation = self.generation;
        let serves = move |answer: Result<_, _>| {
            if answer.is_ok() {
                drop(outbox.send(super::Input::Serves(generation)));
            }
        };
        self.ask(NetswitchCommand::Stats, Box::new(serves));
    }

    /// It refused something that the one before had carried out.
    pub(super) fn newcomer_refused(&mut self, error: &str) {
        let Some(swap) = self.swap.as_mut().filter(|swap| swap.stage == Stage::Newcomer) else { return };
        swap.failure = format!("refused what the old one had done: {error}");
        self.kill_switch();
    }

    /// It serves.
    pub(super) fn newcomer_serves(&mut self) {
        let serves = |swap: &mut SwitchSwap| match swap.stage {
            Stage::Ending => false,
            // One that has refused something is being killed.
            Stage::Newcomer => swap.failure.is_empty(),
            Stage::Back => true,
        };
        let Some(swap) = self.swap.take_if(serves) else { return };
        if swap.stage == Stage::Back {
            let failure = swap.failure;
            return (swap.answer)(Err(format!(
                "the new switch {failure}; the old program is in its place again"
            )));
        }
        let stood = swap.began.elapsed();
        log::info!("the switch was swapped; no frame passed for {stood:?}");
        (swap.answer)(Ok(serde_json::json!({
            "paused_ms": stood.as_secs_f64() * 1e3,
            "pid": self.switch.as_ref().map(Process::pid),
            "program": self.launcher.program(ProcessKind::Netswitch),
        })));
    }

    pub(super) fn look_at_swap(&mut self, now: Instant) {
        let Some(swap) = self.swap.as_mut().filter(|swap| swap.by <= now) else { return };
        if swap.stage == Stage::Newcomer && swap.failure.is_empty() {
            swap.failure = format!("did not serve within {START_DEADLINE:?}");
        }
        // Its end follows; should that not be seen, this is done again.
        swap.by = now + Duration::from_secs(1);
        self.kill_switch();
    }
}
