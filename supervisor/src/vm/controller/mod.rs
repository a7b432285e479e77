//! The life of one VM, as a thread that reacts: to its children, to its guest's wishes, to its user's.

mod children;
mod disks;
mod load;
mod panic;
mod reboot;
mod requests;

use super::crew::{Crew, SeatNote};
use super::status::StatusBoard;
use super::swap::{Swap, SwapRequest};
use crate::children::{Launcher, Questions};
use crate::errand;
use crate::machine::{Machine, boot};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use panic::PanicWatch;
use quasar_abi::control::devices::{Devices, DevicesCommand, DevicesReply};
use quasar_abi::machine::VirtioDevice;
use quasar_abi::party::PartyId;
use quasar_abi::report::DevicesReport;
use quasar_abi::vm::{pause, request};
use quasar_api::{MachineConfig, Outcome, Phase};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Longest sleep: the guest's wishes are looked at this often even if a ring was lost.
const LOOK: Duration = Duration::from_millis(500);

/// What the controller reacts to.
pub enum Input {
    /// A child's.
    Seat(SeatNote),
    /// The supervisor's doorbell has rung: the guest wants something.
    Doorbell,
    /// What came of filling the guest's memory.
    Loaded(errand::Answer),
    /// A user's.
    Request(Request, Answer),
    /// What the devices have counted is asked for.
    DeviceStats(ReportAnswer),
}

/// Where a request's result goes; called once, from the controller's thread.
pub type Answer = Box<dyn FnOnce(Result<serde_json::Value, String>) + Send>;

/// Where the devices' report goes, as an [`Answer`].
pub type ReportAnswer = Box<dyn FnOnce(Result<DevicesReport, String>) + Send>;

/// Who waits for the devices.
type DevicesAnswer = Box<dyn FnOnce(Result<DevicesReply, String>) + Send>;

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
    /// Send a signal to some of its processes; answers their numbers by role.
    Signal {
        /// Whose.
        parties: Vec<PartyId>,
        /// The signal's number on this machine.
        signal: i32,
    },
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
    /// Who fills its memory.
    pub loader: Loader,
}

/// Who reads the files that a VM is started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// This process, which has no other VM.
    Here,
    /// A process of its own.
    Child,
}

enum Step {
    /// Its memory is being filled.
    Load {
        by: Instant,
    },
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
    RebootLoad {
        by: Instant,
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
    key: Key,
    answer: Answer,
}

/// The power key of a guest that is to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// There are no devices that could; the next ones will.
    ToPress,
    /// By the command of this number.
    Asked(u64),
    /// By devices that have died since, perhaps.
    Pressed,
}

/// One VM's controller.
pub struct Controller {
    config: MachineConfig,
    machine: Arc<Machine>,
    slots: usize,
    disks: disks::Disks,
    crew: Crew,
    board: Arc<StatusBoard>,
    log: Arc<File>,
    inbox: Receiver<Input>,
    outbox: Sender<Input>,
    loader: Loader,
    /// Who fills the memory at present.
    loading: Option<errand::Sent>,
    step: Step,
    outcome: Outcome,
    pausing: Vec<(Instant, Answer)>,
    shutdowns: Vec<Shutdown>,
    stops: Vec<Answer>,
    /// Who waits for the devices.
    questions: Questions<Devices, DevicesAnswer>,
    arriving: bool,
    unclear: Option<String>,
    panic: PanicWatch,
}

fn is_hart(party: PartyId) -> bool {
    matches!(party, PartyId::Hart(_))
}

impl Controller {
    /// A controller; its children's notes go to `outbox`, the sending end of `inbox`.
    #[must_use]
    pub fn new(setup: Setup, outbox: Sender<Input>, inbox: Receiver<Input>) -> Self {
        let Setup { config, machine, virtio, launcher, log, board, arriving, loader } = setup;
        let (slots, disks) = (virtio.len(), disks::Disks::of(&virtio));
        let notes = outbox.clone();
        let notify = Arc::new(move |note| drop(notes.send(Input::Seat(note))));
        let crew =
            Crew::new(launcher, machine.grants.clone(), virtio, machine.vm.clone(), Arc::clone(&log), notify)
                .with_engine(config.engine.clone());
        Self {
            config,
            machine,
            slots,
            disks,
            crew,
            board,
            log,
            inbox,
            outbox,
            loader,
            loading: None,
            step: Step::Starting,
            outcome: Outcome::Forced,
            pausing: vec![],
            shutdowns: vec![],
            stops: vec![],
            questions: Questions::default(),
            arriving,
            unclear: None,
            panic: PanicWatch::default(),
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
                    for event in self.crew.hear(note) {
                        self.react(event);
                    }
                }
                Ok(Input::Loaded(answer)) => self.loaded(answer),
                Ok(Input::Doorbell) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Input::Request(request, answer)) => self.serve(request, answer),
                Ok(Input::DeviceStats(answer)) => self.report(answer),
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
        log::info!("{}: {text}", self.machine.grants.vm);
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
            self.start_crew();
        } else {
            self.step = Step::Load { by: Instant::now() + errand::DEADLINE };
            self.load();
        }
    }

    fn start_crew(&mut self) {
        self.step = Step::Starting;
        for party in self.everyone() {
            self.crew.start(party);
        }
        self.show();
    }

    /// Publishes the phase and the processes.
    fn show(&self) {
        let held = self.machine.vm.pause_mask.load(Ordering::SeqCst);
        let phase = match self.step {
            Step::Load { .. } | Step::Starting => Phase::Starting,
            Step::Running if self.arriving => Phase::Arriving,
            Step::Running if !self.shutdowns.is_empty() => Phase::Stopping,
            Step::Running if held & (pause::USER | pause::DISK) != 0 || self.unclear.is_some() => {
                Phase::Paused
            }
            Step::Running
            | Step::Swap(..)
            | Step::RebootHarts { .. }
            | Step::RebootDevices { .. }
            | Step::RebootLoad { .. }
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

    fn next_deadline(&self) -> Instant {
        let now = Instant::now();
        let step = match self.step {
            Step::Load { by }
            | Step::RebootHarts { by }
            | Step::RebootDevices { by, .. }
            | Step::RebootLoad { by } => Some(by),
            Step::Swap(ref swap, _) => swap.next_deadline(),
            _ => None,
        };
        let pausing = (!self.pausing.is_empty()).then_some(now + Duration::from_millis(1));
        let shutdown = self.shutdowns.iter().map(|s| s.by).min();
        let suspect = self.panic.next_look().filter(|_| matches!(self.step, Step::Running));
        [Some(now + LOOK), self.crew.next_deadline(), step, pausing, shutdown, suspect]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(now)
    }

    fn begin_end(&mut self, outcome: Outcome) {
        if matches!(self.step, Step::EndHarts | Step::EndRest | Step::Done) {
            return;
        }
        self.outcome = outcome;
        self.loading = None;
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
        self.look_at_disks();
        self.look_at_trouble();
        self.look_at_shutdowns();
        match self.step {
            Step::Load { by } | Step::RebootLoad { by } if by <= Instant::now() => {
                self.loaded(Err(errand::late()));
            }
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
                let id = self.crew.tell_devices(DevicesCommand::Reset).ok();
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

    /// Shows what is wrong with the crew, and holds the guest while nobody serves it: its time shall not go on.
    fn look_at_trouble(&mut self) {
        let final_step = matches!(self.step, Step::Failed | Step::EndHarts | Step::EndRest | Step::Done);
        let trouble = self.crew.trouble().filter(|_| !final_step);
        self.board.set_stuck(self.crew.stuck().filter(|_| !final_step));
        let vm = &self.machine.vm;
        // Everyone is called by it, also those that sleep.
        match (
            self.crew.is_short() && !final_step,
            vm.pause_mask.load(Ordering::SeqCst) & pause::TROUBLE != 0,
        ) {
            (true, false) => vm.pause(pause::TROUBLE),
            (false, true) => vm.unpause(pause::TROUBLE),
            _ => {}
        }
        let words = |trouble: &Option<String>| trouble.clone().map(|text| text.replace(char::is_numeric, ""));
        let shown = self.board.get().degraded;
        if words(&shown) != words(&trouble) {
            match &trouble {
                Some(why) => self.note(&format!("degraded: {why}")),
                None => self.note("all of its processes serve again"),
            }
        }
        if shown != trouble {
            self.board.update(|status| status.degraded = trouble);
        }
    }

    fn look_at_guest(&mut self) {
        let vm = &self.machine.vm;
        let code = vm.guest_request_code.get();
        match vm.guest_request.load(Ordering::Acquire) {
            request::NONE if vm.pause_mask.load(Ordering::SeqCst) & pause::LIMIT != 0 => {
                self.begin_end(Outcome::Limit);
            }
            request::NONE => self.look_at_panic(),
            request::REBOOT => self.reboot(),
            request::POWEROFF => self.begin_end(Outcome::Poweroff),
            request::HTIF_EXIT => self.begin_end(Outcome::HtifExit { value: code }),
            _ => self.begin_end(Outcome::GuestFailure { code }),
        }
    }
}

#[cfg(test)]
mod tests;
