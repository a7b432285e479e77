//! Exchanging the switch for another build or version of its program, under running VMs.
//!
//! The switch holds nothing that its keeper does not tell its successor, and what is in the cards' rings stays there: a
//! swap is an orderly end and a start. A newcomer that does not serve, or refuses what the one before had carried out,
//! makes way for that one's program.

use super::{Answer, Keeper};
use crate::children::seat::Event;
use crate::children::{Launcher, Process};
use quasar_abi::control::ProcessKind;
use std::time::Instant;

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
    failure: String,
    answer: Answer,
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
        let (began, failure) = (Instant::now(), String::new());
        self.swap = Some(SwitchSwap { stage: Stage::Ending, before, began, failure, answer });
        self.step_switch(Event::Unwanted);
    }

    /// The switch has ended. Returns whether that is the swap's to deal with.
    pub(super) fn swap_ended(&mut self, how: &str) -> bool {
        let Some(swap) = &mut self.swap else { return false };
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
        self.step_switch(Event::Wanted);
        true
    }

    /// It refused something that the one before had carried out.
    pub(super) fn newcomer_refused(&mut self, error: &str) {
        let Some(swap) = self.swap.as_mut().filter(|swap| swap.stage == Stage::Newcomer) else { return };
        swap.failure = format!("refused what the old one had done: {error}");
        let passing = false;
        self.step_switch(Event::Refused { why: error.to_owned(), passing });
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
}
