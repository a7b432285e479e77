//! What users ask, and when they are answered.

use super::{Answer, Controller, DevicesAnswer, Key, ReportAnswer, Request, Shutdown, Step};
use crate::vm::swap::Swap;
use quasar_abi::control::devices::{DevicesCommand, DevicesReply};
use quasar_abi::party::PartyId;
use quasar_abi::vm::pause;
use quasar_api::Outcome;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Controller {
    pub(super) fn serve(&mut self, request: Request, answer: Answer) {
        match (request, &self.step) {
            (Request::Stop, _) => {
                self.stops.push(answer);
                self.begin_end(Outcome::Forced);
            }
            (Request::Signal { parties, signal }, _) => answer(self.signal(&parties, signal)),
            (_, Step::Failed) => answer(Err("the VM has failed; see its logs, then remove it".into())),
            (_, Step::EndHarts | Step::EndRest | Step::Done) => answer(Err("the VM is being stopped".into())),
            (Request::Arrived, _) => {
                self.arriving = false;
                answer(Ok(serde_json::Value::Null));
            }
            (_, _) if self.arriving => answer(Err("it is still coming from elsewhere".into())),
            (Request::Unclear { reason }, _) => {
                self.note(&reason);
                self.board.update(|status| status.reason = Some(reason.clone()));
                self.unclear = Some(reason);
                answer(Ok(serde_json::Value::Null));
            }
            (Request::Pause, _) if !self.shutdowns.is_empty() => {
                answer(Err("it is shutting down, which it could not while it is paused".into()));
            }
            (Request::Pause, _) => {
                self.machine.vm.pause(pause::USER);
                self.pausing.push((Instant::now() + Duration::from_secs(10), answer));
            }
            (Request::Resume, _) => {
                if self.unclear.take().is_some() {
                    self.board.update(|status| status.reason = None);
                    self.machine.vm.unpause(pause::MIGRATOR);
                }
                // Whoever is due later is tried at once, and so is a disk that had no room.
                self.crew.try_now();
                self.machine.vm.unpause(pause::USER | pause::DISK);
                self.look_at_disks();
                answer(Ok(serde_json::Value::Null));
            }
            (Request::PowerButton, _) => {
                let done =
                    |result: Result<DevicesReply, String>| answer(result.map(|_| serde_json::Value::Null));
                self.ask_devices(DevicesCommand::PowerButton, Box::new(done));
            }
            (Request::Swap(wanted), Step::Running) => {
                self.step = Step::Swap(Swap::begin(wanted, &self.machine.vm), answer);
            }
            (Request::Swap(_), _) => {
                answer(Err("it is starting, or another swap is under way; try again".into()))
            }
            (Request::Shutdown { .. }, _) if self.disks.waiting().is_some() => {
                let why = self.disks.waiting().unwrap_or_default();
                answer(Err(format!("{why}: it hears no power key until then; force ends it")));
            }
            (Request::Shutdown { .. }, _) if self.is_paused() => {
                answer(Err("it is paused, and hears its power key only when it runs".into()));
            }
            (Request::Shutdown { timeout }, _) => {
                let by = Instant::now().checked_add(timeout).unwrap_or_else(Instant::now);
                self.shutdowns.push(Shutdown { by, key: Key::ToPress, answer });
                // Devices that are due later are needed now.
                self.crew.try_now();
                self.press_keys();
            }
        }
        self.show();
    }

    fn is_paused(&self) -> bool {
        self.machine.vm.pause_mask.load(Ordering::SeqCst) & pause::USER != 0 || self.unclear.is_some()
    }

    /// All of them are there, or none is sent anything.
    fn signal(&self, parties: &[PartyId], signal: i32) -> Result<serde_json::Value, String> {
        let reached: Result<Vec<_>, String> = parties
            .iter()
            .map(|party| {
                let reach = self.crew.reach(*party);
                Ok((*party, reach.ok_or_else(|| format!("{party} has no process at present"))?))
            })
            .collect();
        let mut pids = serde_json::Map::new();
        for (party, reach) in reached? {
            // One that has just ended had it coming.
            drop(reach.pidfd.send(signal));
            self.note(&format!("{party} (process {}) is sent signal {signal}: a user's wish", reach.pid));
            pids.insert(party.to_string(), reach.pid.into());
        }
        Ok(pids.into())
    }

    /// Asks the devices what they have counted.
    pub(super) fn report(&mut self, answer: ReportAnswer) {
        match self.step {
            Step::Failed => answer(Err("the VM has failed; see its logs, then remove it".into())),
            Step::EndHarts | Step::EndRest | Step::Done => answer(Err("the VM is being stopped".into())),
            _ => {
                let told = |result| match result {
                    Ok(DevicesReply::Stats(report)) => answer(Ok(report)),
                    Ok(DevicesReply::Done) => {
                        answer(Err("the devices process answered without a report".into()))
                    }
                    Err(error) => answer(Err(error)),
                };
                self.ask_devices(DevicesCommand::Stats, Box::new(told));
            }
        }
    }

    pub(super) fn ask_devices(&mut self, command: DevicesCommand, answer: DevicesAnswer) {
        match self.crew.tell_devices(command.clone()) {
            Ok(id) => self.questions.asked(id, command, answer),
            Err(error) => answer(Err(format!("the devices process: {error}"))),
        }
    }

    pub(super) fn refuse_everyone(&mut self, why: &str) {
        let pausing = std::mem::take(&mut self.pausing).into_iter().map(|(_, answer)| answer);
        let shutdowns = std::mem::take(&mut self.shutdowns).into_iter().map(|s| s.answer);
        for answer in pausing.chain(shutdowns) {
            answer(Err(why.to_owned()));
        }
        for answer in self.questions.give_up() {
            answer(Err(why.to_owned()));
        }
    }

    pub(super) fn look_at_pauses(&mut self) {
        if self.pausing.is_empty() {
            return;
        }
        let vm = &self.machine.vm;
        if vm.at_rest() {
            for (_, answer) in std::mem::take(&mut self.pausing) {
                answer(Ok(serde_json::Value::Null));
            }
        } else if self.pausing.iter().any(|(by, _)| *by <= Instant::now()) {
            let running = vm.wait_at_rest(Duration::ZERO).err();
            let running = running.map(|error| {
                let who: Vec<String> = error.who.iter().map(ToString::to_string).collect();
                who.join(", ")
            });
            vm.unpause(pause::USER);
            for (_, answer) in std::mem::take(&mut self.pausing) {
                let who = running.clone().unwrap_or_default();
                answer(Err(format!("{who} did not come to rest within 10 s; the VM goes on")));
            }
        }
        self.show();
    }

    /// Presses the power key for who waits for that, if the devices serve.
    pub(super) fn press_keys(&mut self) {
        for shutdown in self.shutdowns.iter_mut().filter(|shutdown| shutdown.key == Key::ToPress) {
            if let Ok(id) = self.crew.tell_devices(DevicesCommand::PowerButton) {
                shutdown.key = Key::Asked(id);
            }
        }
    }

    pub(super) fn look_at_shutdowns(&mut self) {
        let now = Instant::now();
        if !matches!(self.step, Step::Running) || self.shutdowns.iter().all(|s| s.by > now) {
            return;
        }
        let (late, waiting) = std::mem::take(&mut self.shutdowns).into_iter().partition(|s| s.by <= now);
        self.shutdowns = waiting;
        let late: Vec<Shutdown> = late;
        for shutdown in late {
            let why = match shutdown.key {
                Key::ToPress => "its devices have not come back in time to press its power key",
                Key::Asked(_) | Key::Pressed => {
                    "the guest has not shut down in time after its power key was pressed"
                }
            };
            (shutdown.answer)(Err(format!("{why}; it runs on (force ends it)")));
        }
        self.show();
    }
}
