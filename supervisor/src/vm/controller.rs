//! The life of one VM, as a thread that reacts: to its children, to its guest's wishes, to its user's.

use super::crew::{Crew, CrewEvent, SeatNote};
use super::status::{Outcome, Phase, StatusBoard};
use super::swap::{Swap, SwapEnd, SwapRequest};
use crate::children::{Command, Launcher};
use crate::machine::{Machine, MachineConfig, boot};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use quasar_abi::control::Reply;
use quasar_abi::control::devices::DevicesCommand;
use quasar_abi::machine::VirtioDevice;
use quasar_abi::party::PartyId;
use quasar_abi::vm::{pause, request};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Time for the steps of a reboot, each.
const REBOOT_DEADLINE: Duration = Duration::from_secs(20);
/// Longest sleep: the guest's wishes are looked at this often even if a ring was lost.
const LOOK: Duration = Duration::from_millis(500);

/// What the controller reacts to.
pub enum Input {
    /// A child's.
    Seat(SeatNote),
    /// The supervisor's doorbell has rung: the guest wants something.
    Doorbell,
    /// A user's.
    Request(Request, Answer),
}

/// Where a request's result goes; called once, from the controller's thread.
pub type Answer = Box<dyn FnOnce(Result<serde_json::Value, String>) + Send>;

/// What users ask.
#[derive(Debug)]
pub enum Request {
    /// Pause the guest; answered when it is at rest.
    Pause,
    /// Let it go on.
    Resume,
    /// Press the power key and wait for the guest to shut down.
    Shutdown {
        /// How long.
        timeout: Duration,
    },
    /// End its processes.
    Stop,
    /// Press the power key.
    PowerButton,
    /// The devices' own counters.
    DeviceStats,
    /// Replace some of its processes by others; answered when these serve.
    Swap(SwapRequest),
    /// What came from elsewhere is whole and runs.
    Arrived,
    /// Whether it runs elsewhere is not known: it stays paused here until it is resumed or removed.
    Unclear {
        /// What happened.
        reason: String,
    },
}

/// What a controller needs.
pub struct Setup {
    /// The machine's configuration.
    pub config: MachineConfig,
    /// Its segments.
    pub machine: Arc<Machine>,
    /// What stands at its virtio slots.
    pub virtio: Vec<VirtioDevice>,
    /// Where the programs are.
    pub launcher: Launcher,
    /// Where the children's output and the controller's own notices go.
    pub log: Arc<File>,
    /// Where the status is shown.
    pub board: Arc<StatusBoard>,
    /// Its memory and state come from elsewhere: nothing is started in it, and
    /// [`pause::MIGRATOR`] holds it until [`Request::Arrived`].
    pub arriving: bool,
}

enum Step {
    Starting,
    Running,
    /// The harts are being ended, then the devices reset, then the harts started anew.
    RebootHarts {
        by: Instant,
    },
    RebootDevices {
        by: Instant,
        id: Option<u64>,
    },
    RebootStart,
    /// Processes are being replaced by those of another build.
    Swap(Swap, Answer),
    /// The harts are being ended, then everyone else.
    EndHarts,
    EndRest,
    Done,
    Failed,
}

struct Shutdown {
    by: Instant,
    answer: Answer,
}

/// One VM's controller.
pub struct Controller {
    config: MachineConfig,
    machine: Arc<Machine>,
    slots: usize,
    crew: Crew,
    board: Arc<StatusBoard>,
    log: Arc<File>,
    inbox: Receiver<Input>,
    step: Step,
    outcome: Outcome,
    pausing: Vec<(Instant, Answer)>,
    shutdowns: Vec<Shutdown>,
    stops: Vec<Answer>,
    answers: BTreeMap<u64, Answer>,
    arriving: bool,
    unclear: Option<String>,
}

fn is_hart(party: PartyId) -> bool {
    matches!(party, PartyId::Hart(_))
}

impl Controller {
    /// A controller; its children's notes go to `outbox`, the sending end of `inbox`.
    #[must_use]
    pub fn new(setup: Setup, outbox: Sender<Input>, inbox: Receiver<Input>) -> Self {
        let Setup { config, machine, virtio, launcher, log, board, arriving } = setup;
        let slots = virtio.len();
        let notify = Arc::new(move |note| drop(outbox.send(Input::Seat(note))));
        let crew =
            Crew::new(launcher, machine.names.clone(), virtio, machine.vm.clone(), Arc::clone(&log), notify);
        Self {
            config,
            machine,
            slots,
            crew,
            board,
            log,
            inbox,
            step: Step::Starting,
            outcome: Outcome::Forced,
            pausing: vec![],
            shutdowns: vec![],
            stops: vec![],
            answers: BTreeMap::new(),
            arriving,
            unclear: None,
        }
    }
}

impl Controller {
    /// Runs the VM until it has stopped. A VM that failed stays until it is told to stop.
    pub fn run(mut self) {
        self.start();
        while !matches!(self.step, Step::Done) {
            let timeout = self.next_deadline().saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(timeout) {
                Ok(Input::Seat(note)) => {
                    if let Some(event) = self.crew.hear(note) {
                        self.react(event);
                    }
                }
                Ok(Input::Doorbell) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Input::Request(request, answer)) => self.serve(request, answer),
                Err(RecvTimeoutError::Disconnected) => self.begin_end(Outcome::Forced),
            }
            for event in self.crew.tick() {
                self.react(event);
            }
            self.look_until_settled();
        }
        self.refuse_everyone("the VM has ended");
    }

    fn note(&self, text: &str) {
        log::info!("{}: {text}", self.machine.names.vm);
        // A full disk must not stop the VM.
        drop(writeln!(&*self.log, "supervisor: {text}"));
    }

    fn everyone(&self) -> impl Iterator<Item = PartyId> + use<> {
        (0..self.config.harts).map(PartyId::Hart).chain([PartyId::Mmu, PartyId::Devices])
    }

    fn start(&mut self) {
        self.machine.vm.pause(pause::SUPERVISOR);
        if self.arriving {
            self.machine.vm.pause(pause::MIGRATOR);
            boot::start_empty(&self.machine);
        } else if let Err(error) = self.config.boot(&self.machine, self.slots) {
            return self.fail(error.to_string());
        } else {
            boot::start_clock(&self.machine);
        }
        for party in self.everyone() {
            self.crew.start(party);
        }
        self.show();
    }

    /// Publishes the phase and the processes.
    fn show(&self) {
        let held = self.machine.vm.pause_mask.load(Ordering::SeqCst);
        let phase = match self.step {
            Step::Starting => Phase::Starting,
            Step::Running if self.arriving => Phase::Arriving,
            Step::Running if !self.shutdowns.is_empty() => Phase::Stopping,
            Step::Running if held & pause::USER != 0 || self.unclear.is_some() => Phase::Paused,
            Step::Running
            | Step::Swap(..)
            | Step::RebootHarts { .. }
            | Step::RebootDevices { .. }
            | Step::RebootStart => Phase::Running,
            Step::EndHarts | Step::EndRest => Phase::Stopping,
            Step::Done => Phase::Stopped,
            Step::Failed => Phase::Failed,
        };
        let processes = self.crew.processes();
        let outcome = matches!(self.step, Step::Done).then_some(self.outcome);
        self.board.update(|status| {
            status.phase = phase;
            status.processes = processes;
            status.outcome = outcome;
        });
        if phase.is_final() {
            // Whoever attends the guest sleeps on the doorbell.
            self.machine.vm.party(PartyId::Supervisor).doorbell.ring();
        }
    }

    fn fail(&mut self, reason: String) {
        self.note(&format!("failed: {reason}"));
        self.machine.vm.pause(pause::FAILED);
        if let Step::Swap(_, answer) = std::mem::replace(&mut self.step, Step::Failed) {
            answer(Err(reason.clone()));
        }
        self.board.update(|status| status.reason = Some(reason));
        self.refuse_everyone("the VM has failed");
        self.show();
    }

    fn refuse_everyone(&mut self, why: &str) {
        let pausing = std::mem::take(&mut self.pausing).into_iter().map(|(_, answer)| answer);
        let shutdowns = std::mem::take(&mut self.shutdowns).into_iter().map(|s| s.answer);
        let asked = std::mem::take(&mut self.answers).into_values();
        for answer in pausing.chain(shutdowns).chain(asked) {
            answer(Err(why.to_owned()));
        }
    }

    fn next_deadline(&self) -> Instant {
        let now = Instant::now();
        let step = match self.step {
            Step::RebootHarts { by } | Step::RebootDevices { by, .. } => Some(by),
            Step::Swap(ref swap, _) => swap.next_deadline(),
            _ => None,
        };
        let pausing = (!self.pausing.is_empty()).then_some(now + Duration::from_millis(1));
        let shutdown = self.shutdowns.iter().map(|s| s.by).min();
        [Some(now + LOOK), self.crew.next_deadline(), step, pausing, shutdown]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(now)
    }

    fn react(&mut self, event: CrewEvent) {
        match event {
            CrewEvent::Serving(_) | CrewEvent::Ended(_) => {}
            CrewEvent::Notice(party, text) => self.note(&format!("{party}: {text}")),
            CrewEvent::Died { party, how, fatal } => self.mourn(party, &how, fatal),
            CrewEvent::Answer { party, id, result } => self.take_answer(party, id, result),
        }
        self.show();
    }

    fn mourn(&mut self, party: PartyId, how: &str, fatal: Option<String>) {
        self.note(&format!("{party} {how}"));
        if party == PartyId::Devices {
            for answer in std::mem::take(&mut self.answers).into_values() {
                answer(Err("the devices process has died; it is being replaced, ask again".into()));
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

    fn take_answer(&mut self, party: PartyId, id: u64, result: Result<Reply, String>) {
        if let Step::RebootDevices { id: Some(wanted), .. } = self.step
            && wanted == id
            && party == PartyId::Devices
        {
            return match result {
                Ok(_) => self.reboot_start(),
                Err(error) => self.fail(format!("the devices could not be reset: {error}")),
            };
        }
        match (self.answers.remove(&id), result) {
            (None, Err(error)) => self.note(&format!("{party} refused a command: {error}")),
            (None, Ok(_)) => {}
            (Some(answer), Err(error)) => answer(Err(error)),
            (Some(answer), Ok(Reply::Unit)) => answer(Ok(serde_json::Value::Null)),
            (Some(answer), Ok(Reply::Json(text))) => {
                answer(serde_json::from_str(&text).map_err(|e| format!("{party} answered no JSON: {e}")));
            }
        }
    }

    fn serve(&mut self, request: Request, answer: Answer) {
        match (request, &self.step) {
            (Request::Stop, _) => {
                self.stops.push(answer);
                self.begin_end(Outcome::Forced);
            }
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
            (Request::Pause, _) => {
                self.machine.vm.pause(pause::USER);
                self.pausing.push((Instant::now() + Duration::from_secs(10), answer));
            }
            (Request::Resume, _) => {
                if self.unclear.take().is_some() {
                    self.board.update(|status| status.reason = None);
                    self.machine.vm.unpause(pause::MIGRATOR);
                }
                self.machine.vm.unpause(pause::USER);
                answer(Ok(serde_json::Value::Null));
            }
            (Request::PowerButton, _) => self.ask_devices(DevicesCommand::PowerButton, answer),
            (Request::DeviceStats, _) => self.ask_devices(DevicesCommand::Stats, answer),
            (Request::Swap(wanted), Step::Running) => {
                self.step = Step::Swap(Swap::begin(wanted, &self.machine.vm), answer);
            }
            (Request::Swap(_), _) => {
                answer(Err("it is starting, or another swap is under way; try again".into()))
            }
            (Request::Shutdown { timeout }, _) => {
                // A paused guest hears no key.
                self.machine.vm.unpause(pause::USER);
                match self.crew.send(PartyId::Devices, Command::Devices(DevicesCommand::PowerButton)) {
                    Ok(_) => {
                        let by = Instant::now().checked_add(timeout).unwrap_or_else(Instant::now);
                        self.shutdowns.push(Shutdown { by, answer });
                    }
                    Err(error) => answer(Err(format!("the power key cannot be pressed: {error}"))),
                }
            }
        }
        self.show();
    }

    fn ask_devices(&mut self, command: DevicesCommand, answer: Answer) {
        match self.crew.send(PartyId::Devices, Command::Devices(command)) {
            Ok(id) => drop(self.answers.insert(id, answer)),
            Err(error) => answer(Err(format!("the devices process: {error}"))),
        }
    }

    fn begin_end(&mut self, outcome: Outcome) {
        if matches!(self.step, Step::EndHarts | Step::EndRest | Step::Done) {
            return;
        }
        self.outcome = outcome;
        self.machine.vm.pause(pause::SUPERVISOR);
        for party in self.everyone().filter(|p| is_hart(*p)) {
            self.crew.end(party);
        }
        if let Step::Swap(_, answer) = std::mem::replace(&mut self.step, Step::EndHarts) {
            answer(Err("the VM is being stopped".into()));
        }
        self.show();
    }

    /// One step's end can be the next one's.
    fn look_until_settled(&mut self) {
        loop {
            let before = std::mem::discriminant(&self.step);
            self.look();
            if std::mem::discriminant(&self.step) == before {
                return;
            }
        }
    }

    /// Looks at everything that no note tells.
    fn look(&mut self) {
        self.look_at_pauses();
        self.look_at_shutdowns();
        match self.step {
            Step::Starting | Step::RebootStart if self.crew.all_serving(|_| true) => {
                self.step = Step::Running;
                self.machine.vm.unpause(pause::SUPERVISOR);
                self.show();
            }
            Step::Running => self.look_at_guest(),
            Step::Swap(..) => self.look_at_swap(),
            Step::RebootHarts { by } => self.reboot_devices(by),
            Step::RebootDevices { by, id: None } => {
                // Its successor resets itself again when it serves.
                let command = Command::Devices(DevicesCommand::Reset);
                let id = self.crew.send(PartyId::Devices, command).ok();
                self.step = Step::RebootDevices { by, id };
                self.check_reboot(by);
            }
            Step::RebootDevices { by, .. } => self.check_reboot(by),
            Step::EndHarts if self.crew.is_gone(is_hart) => {
                self.crew.end(PartyId::Devices);
                self.crew.end(PartyId::Mmu);
                self.step = Step::EndRest;
            }
            Step::EndRest if self.crew.is_gone(|_| true) => {
                self.step = Step::Done;
                self.note(&format!("stopped ({:?})", self.outcome));
                self.show();
                let shutdowns = std::mem::take(&mut self.shutdowns).into_iter().map(|s| s.answer);
                for answer in shutdowns.chain(std::mem::take(&mut self.stops)) {
                    answer(Ok(serde_json::Value::Null));
                }
            }
            _ => {}
        }
    }

    fn look_at_swap(&mut self) {
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

    fn look_at_pauses(&mut self) {
        if self.pausing.is_empty() {
            return;
        }
        let vm = &self.machine.vm;
        if vm.at_rest() {
            for (_, answer) in std::mem::take(&mut self.pausing) {
                answer(Ok(serde_json::Value::Null));
            }
        } else if self.pausing.iter().any(|(by, _)| *by <= Instant::now()) {
            let running = vm.wait_at_rest(Duration::ZERO).err().map(|e| format!("{:?}", e.who));
            vm.unpause(pause::USER);
            for (_, answer) in std::mem::take(&mut self.pausing) {
                let who = running.clone().unwrap_or_default();
                answer(Err(format!("{who} did not come to rest within 10 s; the VM goes on")));
            }
        }
        self.show();
    }

    fn look_at_shutdowns(&mut self) {
        let now = Instant::now();
        if !matches!(self.step, Step::Running) || self.shutdowns.iter().all(|s| s.by > now) {
            return;
        }
        let (late, waiting) = std::mem::take(&mut self.shutdowns).into_iter().partition(|s| s.by <= now);
        self.shutdowns = waiting;
        let late: Vec<Shutdown> = late;
        for shutdown in late {
            (shutdown.answer)(Err(
                "the guest has not shut down in time after its power key was pressed; it runs on (--force ends it)"
                    .into(),
            ));
        }
        self.show();
    }

    fn look_at_guest(&mut self) {
        let vm = &self.machine.vm;
        let code = vm.guest_request_code.get();
        match vm.guest_request.load(Ordering::Acquire) {
            request::NONE if vm.pause_mask.load(Ordering::SeqCst) & pause::LIMIT != 0 => {
                self.begin_end(Outcome::Limit);
            }
            request::NONE => {}
            request::REBOOT => self.reboot(),
            request::POWEROFF => self.begin_end(Outcome::Poweroff),
            request::HTIF_EXIT => self.begin_end(Outcome::HtifExit { value: code }),
            _ => self.begin_end(Outcome::GuestFailure { code }),
        }
    }

    /// The guest wants a fresh machine. The harts' processes are replaced rather than told: a new process
    /// holds no translation and no decoded block of the old guest.
    fn reboot(&mut self) {
        self.note("the guest reboots");
        self.machine.vm.pause(pause::SUPERVISOR);
        for party in self.everyone().filter(|p| is_hart(*p)) {
            self.crew.end(party);
        }
        self.step = Step::RebootHarts { by: Instant::now() + REBOOT_DEADLINE };
    }

    fn reboot_devices(&mut self, by: Instant) {
        if self.crew.is_gone(is_hart) && self.machine.vm.at_rest() {
            self.step = Step::RebootDevices { by: Instant::now() + REBOOT_DEADLINE, id: None };
        } else {
            self.check_reboot(by);
        }
    }

    fn check_reboot(&mut self, by: Instant) {
        if by <= Instant::now() {
            self.fail(format!("the guest's reboot took longer than {REBOOT_DEADLINE:?}"));
        }
    }

    fn reboot_start(&mut self) {
        if let Err(error) = self.config.boot(&self.machine, self.slots) {
            return self.fail(format!("the guest wanted to reboot, but {error}"));
        }
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
