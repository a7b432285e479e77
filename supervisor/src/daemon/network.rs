//! The host's networks: a thread that owns the switch process and the programs behind its uplinks.
//!
//! It keeps what shall be (ports and uplinks) and tells a new switch all of it, so that a switch that died is
//! replaced without anyone else noticing more than a pause.

use super::passt::Passt;
use super::spec::{Publish, UplinkSpec};
use crate::children::policy::{Decision, History, Role, decide};
use crate::children::{Command, Launcher, Note, Process};
use crate::vm::ProcessInfo;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use quasar_abi::control::migrator::Security;
use quasar_abi::control::netswitch::{NetswitchCommand, Uplink};
use quasar_abi::control::{Event, ProcessKind, Reply};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time for the switch to start, and for a port to be attached.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Time for an asked switch to end.
const END_DEADLINE: Duration = Duration::from_secs(3);
/// How often it is looked whether an uplink's program listens yet.
const LOOK: Duration = Duration::from_millis(10);
const IDLE: Duration = Duration::from_secs(60);

/// A VM's wish for a port.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The VM.
    pub vm: String,
    /// The network's name.
    pub network: String,
    /// The card's packet rings.
    pub segment: String,
    /// The card's address.
    pub mac: [u8; 6],
    /// The network's way out.
    pub uplink: UplinkSpec,
    /// Ports to publish.
    pub publish: Vec<Publish>,
    /// The VM is still elsewhere: hold frames for it until [`NetworkHandle::release`].
    pub held: bool,
}

/// Where the switch takes links from other hosts' switches.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// "address:port".
    pub listen: SocketAddr,
    /// How links are protected, in both directions.
    pub security: Security,
}

type Answer = Box<dyn FnOnce(Result<serde_json::Value, String>) + Send>;

enum Input {
    Switch(u32, Note),
    PasstEnded(String, u32, String),
    Attach(Attachment, Answer),
    Detach(String, Option<String>, Answer),
    Listen(LinkOptions, Answer),
    Link(String),
    Release(String),
    Depart(String, Answer),
    Stats(Answer),
    Quit,
}

/// The networks as the rest of the daemon sees them.
pub struct NetworkHandle {
    inbox: Sender<Input>,
    thread: Mutex<Option<JoinHandle<()>>>,
    processes: Arc<Mutex<Vec<ProcessInfo>>>,
}

impl NetworkHandle {
    /// Starts the thread; the switch is started when the first port is wanted.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(launcher: Launcher, directory: PathBuf, log: Arc<File>) -> std::io::Result<Self> {
        let (outbox, inbox) = unbounded();
        let processes = Arc::new(Mutex::new(vec![]));
        let keeper = Keeper {
            launcher,
            directory,
            log,
            outbox: outbox.clone(),
            switch: None,
            generation: 0,
            history: History::default(),
            due: None,
            born: Instant::now(),
            ports: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            away: BTreeMap::new(),
            listen: None,
            links: BTreeSet::new(),
            waiting: vec![],
            answers: BTreeMap::new(),
            listening: None,
            shown: Arc::clone(&processes),
        };
        let thread = std::thread::Builder::new().name("network".into()).spawn(move || keeper.run(&inbox))?;
        Ok(Self { inbox: outbox, thread: Mutex::new(Some(thread)), processes })
    }

    fn ask(&self, input: impl FnOnce(Answer) -> Input) -> Result<serde_json::Value, String> {
        let (send, receive) = crossbeam_channel::bounded(1);
        let answer: Answer = Box::new(move |result| drop(send.send(result)));
        let gone = || "the daemon is ending".to_owned();
        self.inbox.send(input(answer)).map_err(|_| gone())?;
        receive.recv().map_err(|_| gone())?
    }

    /// Attaches a port, making its network and uplink when they are new. Waits until frames flow.
    ///
    /// # Errors
    /// In words for people; nothing is left of the attempt.
    pub fn attach(&self, attachment: Attachment) -> Result<(), String> {
        self.ask(|answer| Input::Attach(attachment, answer)).map(drop)
    }

    /// Detaches a VM's port if it is still the one of this segment (a VM that left may be back), and ends its
    /// network's uplink with the last one.
    pub fn detach(&self, vm: &str, segment: &str) {
        let (vm, segment) = (vm.to_owned(), Some(segment.to_owned()));
        // An error says that the thread has ended, and every port with it.
        drop(self.ask(|answer| Input::Detach(vm, segment, answer)));
    }

    /// Lets a VM's network go, wherever the VM is.
    pub fn forget(&self, vm: &str) {
        // As above.
        drop(self.ask(|answer| Input::Detach(vm.to_owned(), None, answer)));
    }

    /// Takes links from other hosts' switches from now on.
    ///
    /// # Errors
    /// When the switch cannot listen there.
    pub fn listen(&self, options: LinkOptions) -> Result<(), String> {
        self.ask(|answer| Input::Listen(options, answer)).map(drop)
    }

    /// Keeps a link to the switch at this address.
    pub fn link(&self, to: &str) {
        // The thread has ended when this fails, and every link with it.
        drop(self.inbox.send(Input::Link(to.to_owned())));
    }

    /// Delivers what was held for a VM that runs here now, and announces its place.
    pub fn release(&self, vm: &str) {
        // As above.
        drop(self.inbox.send(Input::Release(vm.to_owned())));
    }

    /// The VM runs on another host from now on: its port moves there. Returns whether its network still has
    /// its way out here; then [`NetworkHandle::forget`] ends that.
    pub fn depart(&self, vm: &str) -> bool {
        let departed = self.ask(|answer| Input::Depart(vm.to_owned(), answer));
        departed.is_ok_and(|kept| kept.as_bool() == Some(true))
    }

    /// The switch's counters, or null when there is no switch.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub fn stats(&self) -> Result<serde_json::Value, String> {
        self.ask(Input::Stats)
    }

    /// The switch and the programs behind uplinks.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessInfo> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends everything.
    pub fn stop(&self) {
        // An error says that it has ended already.
        drop(self.inbox.send(Input::Quit));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            log::error!("the network thread panicked; its message is above");
        }
    }
}

struct PasstSeat {
    process: Option<Passt>,
    generation: u32,
    history: History,
    due: Option<Instant>,
    /// How it ended, while nobody has looked.
    ended: Option<String>,
}

struct NetworkUplink {
    spec: UplinkSpec,
    publish: Vec<Publish>,
    passt: Option<PasstSeat>,
}

/// A port that is not attached yet.
struct Waiting {
    vm: String,
    network: String,
    by: Instant,
    command: Option<u64>,
    attached: bool,
    answer: Answer,
}

struct Keeper {
    launcher: Launcher,
    directory: PathBuf,
    log: Arc<File>,
    outbox: Sender<Input>,
    switch: Option<Process>,
    generation: u32,
    history: History,
    due: Option<Instant>,
    born: Instant,
    ports: BTreeMap<String, Attachment>,
    uplinks: BTreeMap<String, NetworkUplink>,
    /// VMs on other hosts whose networks have their way out here: the networks' names.
    away: BTreeMap<String, String>,
    listen: Option<LinkOptions>,
    /// Addresses of other hosts' switches.
    links: BTreeSet<String>,
    waiting: Vec<Waiting>,
    answers: BTreeMap<u64, Answer>,
    /// Who waits for the switch to listen.
    listening: Option<Answer>,
    shown: Arc<Mutex<Vec<ProcessInfo>>>,
}

fn port_name(vm: &str) -> String {
    format!("{vm}/0")
}

fn uplink_name(network: &str) -> String {
    format!("{network}/uplink")
}

impl Keeper {
    fn run(mut self, inbox: &Receiver<Input>) {
        loop {
            match inbox.recv_timeout(self.patience()) {
                Ok(Input::Quit) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(input) => self.take(input),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.look();
            self.show();
        }
        self.end(inbox);
    }

    fn patience(&self) -> Duration {
        if !self.waiting.is_empty() {
            return LOOK;
        }
        let passts = self.uplinks.values().filter_map(|u| u.passt.as_ref()?.due);
        let next = passts.chain(self.due).min();
        next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()))
    }

    fn show(&self) {
        let switch = self.switch.as_ref().map(|process| ProcessInfo {
            role: "netswitch".into(),
            pid: process.pid(),
            restarts: self.history.total(),
            arch: process.arch().to_owned(),
        });
        let passts = self.uplinks.iter().filter_map(|(network, uplink)| {
            let seat = uplink.passt.as_ref()?;
            let process = seat.process.as_ref()?;
            let role = format!("passt {network}");
            Some(ProcessInfo { role, pid: process.pid, restarts: seat.history.total(), arch: String::new() })
        });
        let all = switch.into_iter().chain(passts).collect();
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Switch(generation, note) if generation == self.generation => self.hear(note),
            Input::Switch(..) | Input::Quit => {}
            Input::PasstEnded(network, generation, how) => self.passt_ended(&network, generation, how),
            Input::Attach(attachment, answer) => self.attach(attachment, answer),
            Input::Detach(vm, segment, answer) => {
                if segment.is_none() {
                    self.forget(&vm);
                }
                if segment.is_none()
                    || self.ports.get(&vm).is_some_and(|p| Some(&p.segment) == segment.as_ref())
                {
                    self.detach(&vm);
                }
                answer(Ok(serde_json::Value::Null));
            }
            Input::Listen(options, answer) => {
                self.listen = Some(options);
                if self.switch.is_none() {
                    self.start_switch();
                }
                self.listening = Some(answer);
                if self.switch.as_ref().is_some_and(Process::is_ready) {
                    self.tell_links();
                }
            }
            Input::Link(to) => {
                if self.links.insert(to.clone()) {
                    self.tell_link(to);
                }
            }
            Input::Release(vm) => {
                if let Some(port) = self.ports.get_mut(&vm) {
                    port.held = false;
                }
                self.away.remove(&vm);
                self.send(NetswitchCommand::ReleasePort { port: port_name(&vm), addresses: vec![] });
            }
            Input::Depart(vm, answer) => self.depart(&vm, answer),
            Input::Stats(answer) => match self.send(NetswitchCommand::Stats) {
                Some(id) => drop(self.answers.insert(id, answer)),
                None => answer(Ok(serde_json::Value::Null)),
            },
        }
    }

    fn attach(&mut self, attachment: Attachment, answer: Answer) {
        if let Err(error) = self.open_uplink(&attachment) {
            self.close_unused(&attachment.network);
            return answer(Err(error));
        }
        let Attachment { vm, network, .. } = attachment.clone();
        self.ports.insert(vm.clone(), attachment);
        let by = Instant::now() + START_DEADLINE;
        self.waiting.push(Waiting { vm: vm.clone(), network, by, command: None, attached: false, answer });
        if self.switch.as_ref().is_some_and(Process::is_ready) {
            self.tell_uplinks();
            self.tell_port(&vm);
        } else if self.switch.is_none() {
            self.start_switch();
        }
    }

    /// Makes the network's uplink if it has none yet.
    fn open_uplink(&mut self, wanted: &Attachment) -> Result<(), String> {
        let network = &wanted.network;
        if let Some(there) = self.uplinks.get(network) {
            let same = there.spec == wanted.uplink || wanted.uplink == UplinkSpec::None;
            return if same && wanted.publish.iter().all(|p| there.publish.contains(p)) {
                Ok(())
            } else {
                Err(format!(
                    "network {network} has the uplink {} already; a second one, or ports published later, are not \
                     possible: start the VM that publishes ports first, or give this one a network of its own",
                    there.spec
                ))
            };
        }
        let passt = match &wanted.uplink {
            UplinkSpec::None => return Ok(()),
            UplinkSpec::Tap(_) => None,
            UplinkSpec::Passt => Some(PasstSeat {
                process: None,
                generation: 0,
                history: History::default(),
                due: None,
                ended: None,
            }),
        };
        let uplink = NetworkUplink { spec: wanted.uplink.clone(), publish: wanted.publish.clone(), passt };
        self.uplinks.insert(network.clone(), uplink);
        self.start_passt(network)
    }

    fn start_passt(&mut self, network: &str) -> Result<(), String> {
        let socket = self.directory.join(format!("{network}.passt"));
        let outbox = self.outbox.clone();
        let Some(uplink) = self.uplinks.get_mut(network) else { return Ok(()) };
        let Some(seat) = &mut uplink.passt else { return Ok(()) };
        seat.generation += 1;
        let (name, generation) = (network.to_owned(), seat.generation);
        let ended = move |how| drop(outbox.send(Input::PasstEnded(name, generation, how)));
        seat.process = Some(Passt::spawn(&socket, &uplink.publish, ended).map_err(|e| e.to_string())?);
        seat.ended = None;
        Ok(())
    }

    fn passt_ended(&mut self, network: &str, generation: u32, how: String) {
        let now = self.born.elapsed();
        let Some(seat) = self.uplinks.get_mut(network).and_then(|u| u.passt.as_mut()) else { return };
        if seat.generation != generation {
            return;
        }
        let words = seat.process.take().map(|p| p.last_words()).unwrap_or_default();
        let how = format!("passt of network {network} ended ({how}): {words}");
        log::warn!("{how}");
        seat.ended = Some(how);
        if self.waiting.iter().any(|w| w.network == network) {
            // It never worked: whoever waits is told why.
            return;
        }
        let (history, decision) = decide(&seat.history, Role::Replaceable, now);
        seat.history = history;
        match decision {
            Decision::Restart { after } => seat.due = Some(Instant::now() + after),
            Decision::GiveUp { why } => {
                log::error!("passt of network {network} {why}; the network has no way out")
            }
        }
    }

    fn start_switch(&mut self) {
        self.generation += 1;
        self.due = None;
        let (generation, outbox) = (self.generation, self.outbox.clone());
        let notify = move |note| drop(outbox.send(Input::Switch(generation, note)));
        match Process::spawn(&self.launcher, ProcessKind::Netswitch, &self.log, notify) {
            Ok(process) => self.switch = Some(process),
            Err(error) => {
                let program = self.launcher.program(ProcessKind::Netswitch);
                self.switch_ended(&format!("cannot be started: {}: {error}", program.display()));
            }
        }
    }

    fn hear(&mut self, note: Note) {
        match note {
            Note::Hello(_, sender) => {
                let Some(switch) = &mut self.switch else { return };
                switch.greeted(sender);
                self.tell_links();
                self.tell_uplinks();
                let all: Vec<String> = self.ports.keys().cloned().collect();
                for vm in all {
                    self.tell_port(&vm);
                }
            }
            Note::Event(Event::Done { id, reply }) => self.answered(id, Ok(reply)),
            Note::Event(Event::Failed { id, error }) => self.answered(id, Err(error)),
            Note::Event(Event::Notice(text) | Event::Fatal(text)) => log::warn!("netswitch: {text}"),
            Note::Event(_) => {}
            Note::Garbled(what) => log::warn!("netswitch sent something that is no event: {what}"),
            Note::Ended(how) => {
                self.switch = None;
                self.switch_ended(&how);
            }
        }
    }

    fn switch_ended(&mut self, how: &str) {
        log::error!("netswitch {how}");
        for answer in std::mem::take(&mut self.answers).into_values() {
            answer(Err("the switch has died; it is being replaced, ask again".into()));
        }
        for waiting in &mut self.waiting {
            waiting.command = None;
        }
        if let Some(answer) = self.listening.take() {
            answer(Err(format!("the switch process {how}")));
        }
        if self.ports.is_empty() && self.listen.is_none() {
            return;
        }
        let (history, decision) = decide(&self.history, Role::Replaceable, self.born.elapsed());
        self.history = history;
        match decision {
            Decision::Restart { after } => self.due = Some(Instant::now() + after),
            Decision::GiveUp { why } => {
                log::error!("netswitch {why}; the VMs run on without network");
                for waiting in std::mem::take(&mut self.waiting) {
                    self.ports.remove(&waiting.vm);
                    (waiting.answer)(Err(format!("the switch process {how} and {why}")));
                }
            }
        }
    }

    fn send(&mut self, command: NetswitchCommand) -> Option<u64> {
        let switch = self.switch.as_mut().filter(|s| s.is_ready())?;
        match switch.send(Command::Netswitch(command)) {
            Ok(id) => Some(id),
            Err(error) => {
                log::error!("netswitch: {error}; it is killed and replaced");
                switch.kill();
                None
            }
        }
    }

    fn tell_uplinks(&mut self) {
        let uplink = |(network, uplink): (&String, &NetworkUplink)| {
            let uplink = match (&uplink.spec, &uplink.passt) {
                (UplinkSpec::Tap(interface), _) => Uplink::Tap { interface: interface.clone() },
                _ => Uplink::Stream { path: self.directory.join(format!("{network}.passt")) },
            };
            NetswitchCommand::AddUplink { network: network.clone(), name: uplink_name(network), uplink }
        };
        let commands: Vec<_> = self.uplinks.iter().map(uplink).collect();
        for command in commands {
            self.send(command);
        }
    }

    fn tell_links(&mut self) {
        let Some(LinkOptions { listen, security }) = self.listen.clone() else { return };
        let id = self.send(NetswitchCommand::Listen { address: listen.to_string(), security });
        if let (Some(id), Some(answer)) = (id, self.listening.take()) {
            self.answers.insert(id, answer);
        }
        for to in self.links.clone() {
            self.tell_link(to);
        }
    }

    fn tell_link(&mut self, to: String) {
        let Some(LinkOptions { security, .. }) = self.listen.clone() else { return };
        self.send(NetswitchCommand::AddLink { name: to.clone(), to, security });
    }

    fn tell_port(&mut self, vm: &str) {
        let Some(port) = self.ports.get(vm).cloned() else { return };
        if port.held {
            self.send(NetswitchCommand::HoldPort { port: port_name(vm) });
        }
        let id = self.send(NetswitchCommand::AttachPort {
            network: port.network,
            port: port_name(vm),
            segment: port.segment,
            mac: port.mac,
        });
        if let Some(waiting) = self.waiting.iter_mut().find(|w| w.vm == vm) {
            waiting.command = id;
        }
    }

    fn answered(&mut self, id: u64, result: Result<Reply, String>) {
        if let Some(switch) = &mut self.switch {
            switch.answered();
        }
        if let Some(answer) = self.answers.remove(&id) {
            return answer(match result {
                Ok(Reply::Json(text)) => serde_json::from_str(&text).map_err(|e| e.to_string()),
                Ok(Reply::Unit) => Ok(serde_json::Value::Null),
                Err(error) => Err(error),
            });
        }
        let waiting = self.waiting.iter().position(|w| w.command == Some(id));
        match (waiting, result) {
            (Some(index), Ok(_)) => self.waiting[index].attached = true,
            (Some(index), Err(error)) => {
                let waiting = self.waiting.swap_remove(index);
                self.detach(&waiting.vm);
                (waiting.answer)(Err(error));
            }
            (None, Err(error)) => {
                log::error!("netswitch refused a command: {error}");
                // An uplink that cannot be had is told to whoever waits for its network.
                for waiting in std::mem::take(&mut self.waiting) {
                    self.detach(&waiting.vm);
                    (waiting.answer)(Err(error.clone()));
                }
            }
            (None, Ok(_)) => {}
        }
    }

    fn detach(&mut self, vm: &str) {
        let Some(port) = self.ports.remove(vm) else { return };
        self.send(NetswitchCommand::DetachPort { port: port_name(vm) });
        self.close_unused(&port.network);
    }

    fn depart(&mut self, vm: &str, answer: Answer) {
        let Some(port) = self.ports.remove(vm) else { return answer(Ok(false.into())) };
        let kept = self.uplinks.contains_key(&port.network);
        if kept {
            self.away.insert(vm.to_owned(), port.network);
        }
        match self.send(NetswitchCommand::MovePort { port: port_name(vm) }) {
            // Nothing here waits for the switch; who waits for the answer knows then that the port has moved.
            Some(id) => drop(self.answers.insert(id, Box::new(move |_| answer(Ok(kept.into()))))),
            None => answer(Ok(kept.into())),
        }
    }

    fn forget(&mut self, vm: &str) {
        if let Some(network) = self.away.remove(vm) {
            self.close_unused(&network);
        }
    }

    fn close_unused(&mut self, network: &str) {
        if self.ports.values().any(|p| p.network == network) || self.away.values().any(|n| n == network) {
            return;
        }
        if self.uplinks.remove(network).is_some() {
            self.send(NetswitchCommand::RemoveUplink { name: uplink_name(network) });
        }
    }

    fn look(&mut self) {
        let now = Instant::now();
        if self.due.is_some_and(|at| at <= now) {
            self.start_switch();
        }
        let due = |u: &NetworkUplink| u.passt.as_ref().is_some_and(|s| s.due.is_some_and(|at| at <= now));
        let passts: Vec<String> =
            self.uplinks.iter().filter(|(_, u)| due(u)).map(|(n, _)| n.clone()).collect();
        for network in passts {
            if let Some(seat) = self.uplinks.get_mut(&network).and_then(|u| u.passt.as_mut()) {
                seat.due = None;
            }
            if let Err(error) = self.start_passt(&network) {
                log::error!("network {network}: {error}");
            }
        }
        self.look_at_waiting(now);
    }

    fn look_at_waiting(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(waiting) = self.waiting.get(index) {
            let seat = self.uplinks.get(&waiting.network).and_then(|u| u.passt.as_ref());
            let listens = seat.is_none_or(|s| s.process.as_ref().is_some_and(Passt::listens));
            let failure = match seat.and_then(|s| s.ended.clone()) {
                Some(how) => Some(how),
                None if waiting.by <= now => {
                    Some(format!("the network did not come up within {START_DEADLINE:?}"))
                }
                None => None,
            };
            match failure {
                Some(how) => {
                    let waiting = self.waiting.swap_remove(index);
                    self.detach(&waiting.vm);
                    (waiting.answer)(Err(how));
                }
                None if waiting.attached && listens => {
                    let waiting = self.waiting.swap_remove(index);
                    (waiting.answer)(Ok(serde_json::Value::Null));
                }
                None => index += 1,
            }
        }
    }

    fn end(mut self, inbox: &Receiver<Input>) {
        self.ports.clear();
        self.uplinks.clear();
        if self.send(NetswitchCommand::Shutdown).is_none() {
            self.switch = None;
        }
        let by = Instant::now() + END_DEADLINE;
        let generation = self.generation;
        while self.switch.is_some() {
            match inbox.recv_timeout(by.saturating_duration_since(Instant::now())) {
                Ok(Input::Switch(of, Note::Ended(_))) if of == generation => self.switch = None,
                Ok(_) => {}
                Err(_) => self.switch = None,
            }
        }
    }
}
