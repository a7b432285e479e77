//! A VM as its owner holds it: the controller's thread, its inbox, and what can be seen without asking it.

use super::controller::{Answer, Controller, Input, ReportAnswer, Request, Setup};
use super::status::StatusBoard;
use crate::machine::Machine;
use crossbeam_channel::{Sender, unbounded};
use parking_lot::Mutex;
use quasar_abi::party::PartyId;
use quasar_abi::report::DevicesReport;
use quasar_abi::vm::pause;
use quasar_api::{Phase, VmStatus};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the doorbell's watcher looks whether the VM has ended.
const WATCH: Duration = Duration::from_secs(1);

/// Longest wait for counters that somebody wants to see now.
const GLANCE: Duration = Duration::from_secs(2);

/// A VM with its controller's thread.
pub struct VmHandle {
    /// Its status.
    pub board: Arc<StatusBoard>,
    machine: Mutex<Option<Arc<Machine>>>,
    inbox: Sender<Input>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl VmHandle {
    /// Starts a VM. Its children are bound to the controller's thread, which lives as long as they do.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(setup: Setup) -> std::io::Result<Self> {
        let (outbox, inbox) = unbounded();
        let (board, machine) = (Arc::clone(&setup.board), Arc::clone(&setup.machine));
        let id = machine.grants.vm.clone();
        let controller = Controller::new(setup, outbox.clone(), inbox);
        let run = std::thread::Builder::new().name(format!("vm-{id}")).spawn(move || controller.run())?;
        let watch = {
            let (board, machine, outbox) = (Arc::clone(&board), Arc::clone(&machine), outbox.clone());
            let bell = move || watch_doorbell(&board, &machine, &outbox);
            std::thread::Builder::new().name(format!("bell-{id}")).spawn(bell)?
        };
        let (machine, threads) = (Mutex::new(Some(machine)), Mutex::new(vec![run, watch]));
        Ok(Self { board, machine, inbox: outbox, threads })
    }

    /// A VM that was made and not started: nothing of it runs.
    #[must_use]
    pub fn not_started() -> Self {
        let board = Arc::new(StatusBoard::default());
        board.update(|status| {
            status.phase = Phase::Stopped;
            status.reason = Some("not started yet".into());
        });
        Self { board, machine: Mutex::default(), inbox: unbounded().0, threads: Mutex::default() }
    }

    /// Its segments, while it has not been let go.
    #[must_use]
    pub fn machine(&self) -> Option<Arc<Machine>> {
        self.machine.lock().clone()
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> VmStatus {
        self.board.get()
    }

    /// Whether a user has paused it: with it away from a disk that has no room here, say, it may go on.
    #[must_use]
    pub fn is_paused_by_user(&self) -> bool {
        self.machine().is_some_and(|m| m.vm.pause_mask.load(Ordering::SeqCst) & pause::USER != 0)
    }

    /// Asks the controller; the answer is called from its thread, or here when it has ended.
    pub fn ask(&self, request: Request, answer: Answer) {
        if self.board.phase() == Phase::Stopped {
            return answer(Err("the VM has stopped".into()));
        }
        if let Err(unsent) = self.inbox.send(Input::Request(request, answer))
            && let Input::Request(_, answer) = unsent.into_inner()
        {
            answer(Err("the VM has stopped".into()));
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// What the controller says, or that it has ended.
    pub fn ask_and_wait(&self, request: Request) -> Result<serde_json::Value, String> {
        let (send, receive) = crossbeam_channel::bounded(1);
        self.ask(request, Box::new(move |result| drop(send.send(result))));
        receive.recv().unwrap_or_else(|_| Err("the VM has ended".into()))
    }

    /// What the devices have counted.
    ///
    /// # Errors
    /// When they do not answer, or not soon: their process may be being replaced.
    pub fn device_stats(&self) -> Result<DevicesReport, String> {
        let (send, receive) = crossbeam_channel::bounded(1);
        let answer: ReportAnswer = Box::new(move |result| drop(send.send(result)));
        self.inbox.send(Input::DeviceStats(answer)).map_err(|_| "the VM has stopped".to_owned())?;
        receive
            .recv_timeout(GLANCE)
            .map_err(|_| format!("the devices have not answered within {GLANCE:?}"))?
    }

    /// Waits for the threads of a VM that has stopped and lets its memory go. Whoever calls it while another
    /// does waits as well: the daemon must not end before the memory has gone.
    pub fn release(&self) {
        let mut threads = self.threads.lock();
        if let Some(machine) = self.machine() {
            machine.vm.party(PartyId::Supervisor).doorbell.ring();
        }
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of a VM panicked; its message is above");
            }
        }
        self.machine.lock().take();
    }

    /// Ends the VM whatever its state, and lets its memory go.
    pub fn stop_and_release(&self) {
        // An error says that it has ended already.
        drop(self.ask_and_wait(Request::Stop));
        drop(self.board.wait(Duration::from_secs(60), |phase| phase == Phase::Stopped));
        self.release();
    }
}

fn watch_doorbell(board: &StatusBoard, machine: &Machine, outbox: &Sender<Input>) {
    let bell = &machine.vm.party(PartyId::Supervisor).doorbell;
    let mut seen = bell.seen();
    while board.phase() != Phase::Stopped {
        bell.wait(seen, Some(WATCH));
        let now = bell.seen();
        if now != seen && outbox.send(Input::Doorbell).is_err() {
            return;
        }
        seen = now;
    }
}
