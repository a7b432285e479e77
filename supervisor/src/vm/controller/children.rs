//! What the VM's processes tell, and what follows from it.

use super::{Controller, Key, Step};
use crate::vm::crew::CrewEvent;
use crate::vm::swap::SwapEnd;
use quasar_abi::control::devices::DevicesReply;
use quasar_abi::party::PartyId;

impl Controller {
    pub(super) fn react(&mut self, event: CrewEvent) {
        match event {
            CrewEvent::Serving(PartyId::Devices) => {
                self.press_keys();
                for (command, answer) in self.questions.for_successor() {
                    self.ask_devices(command, answer);
                }
            }
            CrewEvent::Serving(_) | CrewEvent::Ended(_) => {}
            CrewEvent::Notice(party, text) => self.note(&format!("{party}: {text}")),
            CrewEvent::Died { party, how, fatal } => self.died(party, &how, fatal),
            CrewEvent::Answer { id, result } => self.take_answer(id, result),
        }
        self.show();
    }

    pub(super) fn died(&mut self, party: PartyId, how: &str, fatal: Option<String>) {
        self.note(&format!("{party} {how}"));
        if party == PartyId::Devices {
            for answer in self.questions.died() {
                answer(Err("the devices process has died and may have done it; it is being replaced".into()));
            }
            for shutdown in &mut self.shutdowns {
                // Pressed or not: the guest has the rest of its time.
                if let Key::Asked(_) = shutdown.key {
                    shutdown.key = Key::Pressed;
                }
            }
            if let Step::RebootDevices { id, .. } = &mut self.step {
                *id = None;
            }
        }
        if let Step::Swap(swap, _) = &mut self.step
            && swap.died(&mut self.crew, party, how)
        {
            return;
        }
        match (&self.step, fatal) {
            (Step::Starting, _) => self.fail(format!("{party} {how}")),
            (Step::EndHarts | Step::EndRest, _) => self.crew.end(party),
            (Step::Failed | Step::Done, _) => {}
            (_, Some(why)) => self.fail(format!("{party} {how}; {why}")),
            (_, None) => {}
        }
    }

    pub(super) fn take_answer(&mut self, id: u64, result: Result<DevicesReply, String>) {
        if let Step::RebootDevices { id: Some(wanted), .. } = self.step
            && wanted == id
        {
            return match result {
                Ok(_) => self.reboot_load(),
                Err(error) => self.fail(format!("the devices could not be reset: {error}")),
            };
        }
        // A key that cannot be pressed is not waited for.
        let pressing = self.shutdowns.iter().position(|s| s.key == Key::Asked(id));
        if let (Some(index), Err(error)) = (pressing, &result) {
            let shutdown = self.shutdowns.swap_remove(index);
            return (shutdown.answer)(Err(error.clone()));
        }
        match (self.questions.answered(id), result) {
            (None, Err(error)) => self.note(&format!("devices refused a command: {error}")),
            (None, Ok(_)) => {}
            (Some(answer), result) => answer(result),
        }
    }

    pub(super) fn look_at_swap(&mut self) {
        let Step::Swap(swap, _) = &mut self.step else { return };
        let Some(end) = swap.look(&mut self.crew, &self.machine.vm) else { return };
        let Step::Swap(_, answer) = std::mem::replace(&mut self.step, Step::Running) else { return };
        match end {
            SwapEnd::Done(paused) => {
                self.note(&format!("processes were swapped; the guest stood still for {paused:?}"));
                answer(Ok(serde_json::json!({"paused_ms": paused.as_secs_f64() * 1e3})));
            }
            SwapEnd::Refused(why) => answer(Err(why)),
            SwapEnd::Failed(why) => {
                answer(Err(why.clone()));
                self.fail(why);
            }
        }
        self.show();
    }
}
