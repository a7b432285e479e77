//! Filling the guest's memory, at its start and at each reboot, while the controller goes on listening.

use super::{Controller, Input, Loader, Step};
use crate::errand::{self, BootErrand, Errand};
use crate::machine::boot;

impl Controller {
    /// Begins to fill the memory; [`Controller::loaded`] follows.
    pub(super) fn load(&mut self) {
        self.show();
        if self.loader == Loader::Here {
            let booted = boot::boot(&self.config, &self.machine.to_boot(), self.slots);
            return self.loaded(booted.map_err(|error| error.to_string()));
        }
        let errand = Errand::Boot(Box::new(BootErrand {
            config: self.config.clone(),
            virtio: self.slots,
            grants: self.machine.grants.boot(),
        }));
        let outbox = self.outbox.clone();
        let tell = move |answer| drop(outbox.send(Input::Loaded(answer)));
        match errand::to_log(&self.log).and_then(|log| errand::send(&errand, log, tell)) {
            Ok(sent) => self.loading = Some(sent),
            Err(error) => self.loaded(Err(errand::unsent(&error))),
        }
    }

    /// The memory is filled, or will not be.
    pub(super) fn loaded(&mut self, answer: errand::Answer) {
        self.loading = None;
        match (&self.step, answer) {
            (Step::Load { .. }, Ok(_)) => {
                boot::start_clock(&self.machine, self.config.icount);
                self.start_crew();
            }
            (Step::Load { .. }, Err(error)) => self.fail(error),
            (Step::RebootLoad { .. }, Ok(_)) => self.reboot_start(),
            (Step::RebootLoad { .. }, Err(error)) => {
                self.fail(format!("the guest wanted to reboot, but {error}"));
            }
            // It was stopped meanwhile.
            _ => {}
        }
    }
}
