//! Swapping processes of a running VM for another build or version of their programs.
//!
//! Everything that a process must know lies in shared memory or is told it at its start, so that a swap is:
//! the VM comes to rest, the old processes publish and end, the new ones attach, the VM goes on. A new
//! program that does not serve is replaced by the old one.

use super::crew::Crew;
use crate::children::Launcher;
use quasar_abi::party::PartyId;
use quasar_abi::vm::{Vm, pause};
use std::time::{Duration, Instant};

/// Time for the guest to come to rest.
const REST_DEADLINE: Duration = Duration::from_secs(20);

/// What users ask: other programs for some of a VM's processes.
#[derive(Clone, Debug)]
pub struct SwapRequest {
    /// Whose.
    pub parties: Vec<PartyId>,
    /// Where the new programs are.
    pub launcher: Launcher,
}

impl SwapRequest {
    /// The processes meant by "cpu" (every hart), "cpu0", "mmu" or "devices".
    #[must_use]
    pub fn parties(name: &str, harts: u8) -> Option<Vec<PartyId>> {
        match name {
            "cpu" => Some((0..harts).map(PartyId::Hart).collect()),
            "mmu" => Some(vec![PartyId::Mmu]),
            "devices" => Some(vec![PartyId::Devices]),
            _ => {
                let hart = name.strip_prefix("cpu")?.parse().ok()?;
                (hart < harts).then(|| vec![PartyId::Hart(hart)])
            }
        }
    }
}

/// How a swap ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwapEnd {
    /// The new processes serve; the guest stood still for this long.
    Done(Duration),
    /// The old ones go on, and the VM with them.
    Refused(String),
    /// Neither the new nor the old ones serve.
    Failed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Rest,
    End,
    Start,
}

/// A swap under way. The owner calls [`Swap::look`] whenever anything has happened.
#[derive(Debug)]
pub struct Swap {
    /// The processes, and what each is to be started with next (`None`: the crew's own launcher).
    next: Vec<(PartyId, Option<Launcher>)>,
    /// What they were started with before; filled when the new ones are started.
    before: Vec<(PartyId, Option<Launcher>)>,
    stage: Stage,
    began: Instant,
    failure: Option<String>,
    lost: Option<String>,
}

impl Swap {
    /// Pauses the VM; the rest follows from [`Swap::look`].
    #[must_use]
    pub fn begin(request: SwapRequest, vm: &Vm) -> Self {
        vm.pause(pause::SUPERVISOR);
        let SwapRequest { parties, launcher } = request;
        Self {
            next: parties.into_iter().map(|party| (party, Some(launcher.clone()))).collect(),
            before: vec![],
            stage: Stage::Rest,
            began: Instant::now(),
            failure: None,
            lost: None,
        }
    }

    fn concerns(&self, party: PartyId) -> bool {
        self.next.iter().any(|(ours, _)| *ours == party)
    }

    /// When to look next, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        // Nobody rings when a party parks.
        (self.stage == Stage::Rest).then(|| Instant::now() + Duration::from_millis(1))
    }

    /// Takes the next step if it can be taken.
    pub fn look(&mut self, crew: &mut Crew, vm: &Vm) -> Option<SwapEnd> {
        if let Some(why) = self.lost.take() {
            return Some(SwapEnd::Failed(why));
        }
        match self.stage {
            Stage::Rest if vm.at_rest() => {
                self.next.iter().for_each(|(party, _)| crew.end(*party));
                self.stage = Stage::End;
                None
            }
            Stage::Rest if crew.stuck().is_some() || self.began.elapsed() > REST_DEADLINE => {
                vm.unpause(pause::SUPERVISOR);
                let late = || format!("the VM did not come to rest within {REST_DEADLINE:?}");
                Some(SwapEnd::Refused(format!("{}; it goes on", crew.stuck().unwrap_or_else(late))))
            }
            Stage::End if crew.is_gone(|party| self.concerns(party)) => {
                for (party, launcher) in &self.next {
                    self.before.push((*party, crew.set_launcher(*party, launcher.clone())));
                    crew.start(*party);
                }
                self.stage = Stage::Start;
                None
            }
            Stage::Start if crew.all_serving(|party| self.concerns(party)) => {
                vm.unpause(pause::SUPERVISOR);
                let end = self.failure.take().map(SwapEnd::Refused);
                Some(end.unwrap_or_else(|| SwapEnd::Done(self.began.elapsed())))
            }
            _ => None,
        }
    }

    /// One of the VM's processes has died. Returns whether that is the swap's to deal with: a new process
    /// that never served has touched nothing, so that the old program can take its place.
    pub fn died(&mut self, crew: &mut Crew, party: PartyId, how: &str) -> bool {
        if self.stage != Stage::Start || !self.concerns(party) {
            return false;
        }
        if self.failure.is_some() {
            self.lost = Some(format!("{party} could not be swapped, and its old program {how}"));
            return true;
        }
        self.failure = Some(format!("the new {party} {how}; the old program is in its place again"));
        // All of them go back, so that the VM is what it was.
        self.next = std::mem::take(&mut self.before);
        self.next.iter().for_each(|(party, _)| crew.end(*party));
        self.stage = Stage::End;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_processes() {
        let parties = |name| SwapRequest::parties(name, 2);
        assert_eq!(parties("cpu"), Some(vec![PartyId::Hart(0), PartyId::Hart(1)]));
        assert_eq!(parties("cpu1"), Some(vec![PartyId::Hart(1)]));
        assert_eq!(
            (parties("mmu"), parties("devices")),
            (Some(vec![PartyId::Mmu]), Some(vec![PartyId::Devices]))
        );
        for wrong in ["cpu2", "cpux", "netswitch", ""] {
            assert_eq!(parties(wrong), None, "{wrong}");
        }
    }
}
