//! A guest's reboot: harts, then devices, then a fresh machine.

use super::{Controller, Step, is_hart};
use crate::errand;
use quasar_abi::vm::{pause, request};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Time for the steps of a reboot, each.
const REBOOT_DEADLINE: Duration = Duration::from_secs(20);

impl Controller {
    /// The guest wants a fresh machine. The harts' processes are replaced rather than told: a new process
    /// holds no translation and no decoded block of the old guest.
    pub(super) fn reboot(&mut self) {
        match self.panic.rebooted() {
            Some(reason) => {
                self.note(&format!("the guest's kernel has panicked: {reason}; it reboots"));
                self.board.update(|status| status.panic = Some(reason));
            }
            None => self.note("the guest reboots"),
        }
        self.machine.vm.pause(pause::SUPERVISOR);
        for party in self.everyone().filter(|p| is_hart(*p)) {
            self.crew.end(party);
        }
        self.step = Step::RebootHarts { by: Instant::now() + REBOOT_DEADLINE };
    }

    pub(super) fn reboot_devices(&mut self, by: Instant) {
        if self.crew.is_gone(is_hart) && self.machine.vm.at_rest() {
            self.step = Step::RebootDevices { by: Instant::now() + REBOOT_DEADLINE, id: None };
        } else {
            self.check_reboot(by);
        }
    }

    pub(super) fn check_reboot(&mut self, by: Instant) {
        if by <= Instant::now() {
            self.fail(format!("the guest's reboot took longer than {REBOOT_DEADLINE:?}"));
        }
    }

    /// The devices are reset: the guest's memory is filled anew.
    pub(super) fn reboot_load(&mut self) {
        self.step = Step::RebootLoad { by: Instant::now() + errand::DEADLINE };
        self.load();
    }

    pub(super) fn reboot_start(&mut self) {
        self.machine.mark_everything();
        let vm = &self.machine.vm;
        vm.guest_request_code.set(0);
        vm.guest_request.store(request::NONE, Ordering::Release);
        vm.unpause(pause::GUEST);
        for party in self.everyone().filter(|p| is_hart(*p)) {
            self.crew.start(party);
        }
        self.board.update(|status| status.reboots += 1);
        self.step = Step::RebootStart;
    }
}
