//! The host's networks: a thread that owns the switch process and the programs behind its uplinks.
//!
//! It keeps what shall be (ports and uplinks) and tells a new switch all of it, so that a switch that died is
//! replaced without anyone else noticing more than a pause.

mod handle;
pub mod links;
mod relay;
mod swap;
mod switch;
mod uplinks;

pub use handle::NetworkHandle;
pub use links::LinkBoard;

use super::passt::Passt;
use crate::children::policy::History;
use crate::children::watch::{self, Look, Verdict, Watch};
use crate::children::{Launcher, Note, Process, Questions};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use quasar_abi::Grant;
use quasar_abi::control::migrator::Security;
use quasar_abi::control::netswitch::{Netswitch, NetswitchCommand, NetswitchReply};
use quasar_abi::report::NetworksReport;
use quasar_api::{ProcessInfo, Publish, UplinkSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use swap::SwitchSwap;
use uplinks::{NetworkUplink, PasstSeat, passt_name};

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
    pub rings: Grant,
    /// The card's address.
    pub mac: [u8; 6],
    /// The network's way out.
    pub uplink: UplinkSpec,
    /// Ports to publish.
    pub publish: Vec<Publish>,
    /// Its way out, here or at its home, is a passt.
    pub way_out: bool,
    /// Its network reaches outside by a TAP interface, here or at its home: addresses and names are somebody else's.
    pub outer: bool,
    /// The address that it has, or shall have.
    pub address: Option<Ipv4Addr>,
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

/// What is wrong with the programs of networks, in words.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    switch: Option<String>,
    /// By VM.
    passts: BTreeMap<String, String>,
}

impl Troubles {
    /// Those of a VM; nothing mostly.
    #[must_use]
    pub fn of(&self, vm: &str) -> Option<String> {
        self.switch.clone().or_else(|| self.passts.get(vm).cloned())
    }
}

/// The VMs' addresses, as the rest of the daemon sees them.
pub type Addresses = Arc<Mutex<BTreeMap<String, Ipv4Addr>>>;

type Answer = Box<dyn FnOnce(Result<serde_json::Value, String>) + Send>;
type ReportAnswer = Box<dyn FnOnce(Result<Option<NetworksReport>, String>) + Send>;
/// Who waits for the switch.
type SwitchAnswer = Box<dyn FnOnce(Result<NetswitchReply, String>) + Send>;

enum Input {
    Switch(u32, Note<Netswitch>),
    /// The switch of this generation has carried out all that it was told at its start.
    Serves(u32),
    PasstEnded(String, u32, String),
    Attach(Attachment, Answer),
    Detach(String, Option<Grant>, Answer),
    End(String, Grant, Answer),
    Listen(LinkOptions, Answer),
    Link(String),
    /// The switch of this generation cannot take links, and why.
    Deaf(u32, String),
    Release(String),
    Depart(String, Answer),
    Swap(Launcher, Answer),
    /// Start at once who is due later.
    TryNow,
    /// Send a signal to the switch, or to the program behind this VM's way out.
    Signal(Option<String>, i32, Answer),
    Stats(ReportAnswer),
    Quit,
}

/// A port that is not attached yet.
struct Waiting {
    vm: String,
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
    switch: Option<Process<Netswitch>>,
    generation: u32,
    history: History,
    watch: Watch,
    looked: Instant,
    due: Option<Instant>,
    born: Instant,
    ports: BTreeMap<String, Attachment>,
    /// By their names.
    uplinks: BTreeMap<String, NetworkUplink>,
    /// VMs on other hosts whose networks have their way out here: the networks' names, and the cards.
    away: BTreeMap<String, (String, [u8; 6])>,
    /// Who hears which of those have ended.
    ended: Sender<String>,
    listen: Option<LinkOptions>,
    /// Addresses of other hosts' switches.
    links: BTreeSet<String>,
    /// How the links to them are.
    board: Arc<LinkBoard>,
    waiting: Vec<Waiting>,
    questions: Questions<Netswitch, SwitchAnswer>,
    /// Who waits for the switch to listen.
    listening: Option<Answer>,
    /// Why the switch could not listen last, as far as that was told.
    deaf_told: Option<String>,
    /// When a switch that could not listen is told to again.
    listen_again: Option<Instant>,
    swap: Option<SwitchSwap>,
    shown: Arc<Mutex<Vec<ProcessInfo>>>,
    addresses: Addresses,
    troubles: Arc<Mutex<Troubles>>,
}

fn port_name(vm: &str) -> String {
    format!("{vm}/0")
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
        let passts = self.uplinks.values().filter_map(|u| u.passt()?.due);
        let next = passts
            .chain(self.due)
            .chain(self.listen_again)
            .chain(self.swap.as_ref().map(SwitchSwap::deadline))
            .min();
        let anybody = self.switch.is_some() || !self.uplinks.is_empty();
        let longest = if anybody { watch::LOOK } else { IDLE };
        next.map_or(longest, |at| at.saturating_duration_since(Instant::now()).min(longest))
    }

    fn show(&self) {
        let switch = self.switch.as_ref().map(|process| ProcessInfo {
            role: "netswitch".into(),
            pid: process.pid(),
            restarts: self.history.total(),
            arch: process.arch().to_owned(),
        });
        let passts = self.uplinks.values().filter_map(|uplink| {
            let seat = uplink.passt()?;
            let process = seat.process.as_ref()?;
            let role = format!("passt {}", seat.vm);
            Some(ProcessInfo { role, pid: process.pid, restarts: seat.history.total(), arch: String::new() })
        });
        let all = switch.into_iter().chain(passts).collect();
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = all;
        *self.troubles.lock().unwrap_or_else(PoisonError::into_inner) = self.trouble();
        self.show_addresses();
    }

    /// Shows the rest of the daemon who has which address.
    fn show_addresses(&self) {
        let addresses = self.ports.iter().filter_map(|(vm, port)| Some((vm.clone(), port.address?)));
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses.collect();
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Switch(generation, note) if generation == self.generation => self.hear(note),
            Input::Serves(generation) if generation == self.generation => self.newcomer_serves(),
            Input::Deaf(generation, error) if generation == self.generation && self.switch.is_some() => {
                self.deaf(&error);
            }
            Input::Switch(..) | Input::Serves(_) | Input::Deaf(..) | Input::Quit => {}
            Input::PasstEnded(name, generation, how) => self.passt_ended(&name, generation, how),
            Input::Attach(attachment, answer) => self.attach(attachment, answer),
            Input::Detach(vm, rings, answer) => {
                if rings.is_none() {
                    self.forget(&vm);
                }
                if rings.is_none() || self.ports.get(&vm).is_some_and(|p| Some(&p.rings) == rings.as_ref()) {
                    self.detach(&vm);
                }
                answer(Ok(serde_json::Value::Null));
            }
            Input::End(vm, rings, answer) => {
                if self.ports.get(&vm).is_some_and(|port| port.rings == rings) {
                    self.send(NetswitchCommand::EndPort { port: port_name(&vm) });
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
            Input::Swap(launcher, answer) => self.swap(launcher, answer),
            Input::TryNow => self.try_now(),
            Input::Signal(vm, signal, answer) => answer(self.signal(vm.as_deref(), signal)),
            Input::Stats(answer) if self.switch.is_none() && self.due.is_none() => answer(Ok(None)),
            Input::Stats(answer) => {
                let told = |result| match result {
                    Ok(NetswitchReply::Stats(report)) => answer(Ok(Some(report))),
                    Ok(_) => answer(Err("the switch answered without a report".into())),
                    Err(error) => answer(Err(error)),
                };
                self.ask(NetswitchCommand::Stats, Box::new(told));
            }
        }
    }

    fn attach(&mut self, attachment: Attachment, answer: Answer) {
        if let Err(error) = self.open_uplink(&attachment) {
            return answer(Err(error));
        }
        let vm = attachment.vm.clone();
        self.ports.insert(vm.clone(), attachment);
        let by = Instant::now() + START_DEADLINE;
        self.waiting.push(Waiting { vm: vm.clone(), by, command: None, attached: false, answer });
        if self.switch.as_ref().is_some_and(Process::is_ready) {
            self.tell_uplinks();
            self.tell_port(&vm);
        } else if self.switch.is_none() {
            self.start_switch();
        }
    }

    fn signal(&self, vm: Option<&str>, signal: i32) -> Result<serde_json::Value, String> {
        let reach = match vm {
            None => self.switch.as_ref().map(Process::reach).ok_or("there is no switch at present"),
            Some(vm) => {
                let seat = self.uplinks.get(&passt_name(vm)).and_then(NetworkUplink::passt);
                let passt = seat.and_then(|seat| seat.process.as_ref());
                passt.map(Passt::reach).ok_or("it has no passt here at present")
            }
        };
        let reach = reach?;
        // One that has just ended had it coming.
        drop(reach.pidfd.send(signal));
        Ok(reach.pid.into())
    }

    fn detach(&mut self, vm: &str) {
        if self.ports.remove(vm).is_some() {
            self.send(NetswitchCommand::DetachPort { port: port_name(vm) });
            self.close_unused();
        }
    }

    fn depart(&mut self, vm: &str, answer: Answer) {
        let Some(port) = self.ports.remove(vm) else { return answer(Ok(false.into())) };
        let kept = self.uplinks.contains_key(&passt_name(vm)) || self.tap_of(&port.network).is_some();
        if kept {
            self.away.insert(vm.to_owned(), (port.network, port.mac));
        }
        // Nothing here waits for the switch; who waits for the answer knows then that the port has moved.
        let moved = move |_| answer(Ok(kept.into()));
        self.ask(NetswitchCommand::MovePort { port: port_name(vm) }, Box::new(moved));
    }

    fn forget(&mut self, vm: &str) {
        if self.away.remove(vm).is_some() {
            self.close_unused();
        }
    }

    /// Another host says that a VM has ended there.
    fn ended(&mut self, network: &str, mac: [u8; 6]) {
        let found = self.away.iter().find(|(_, (of, card))| of == network && *card == mac);
        let Some(vm) = found.map(|(vm, _)| vm.clone()) else { return };
        log::info!("VM {vm} has ended on another host");
        self.forget(&vm);
        // The host is ending when nobody hears it.
        drop(self.ended.send(vm));
    }

    fn look(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.looked) >= watch::LOOK {
            self.looked = now;
            self.watch();
        }
        if self.due.is_some_and(|at| at <= now) {
            self.start_switch();
        }
        if self.listen_again.take_if(|at| *at <= now).is_some() {
            self.tell_listen();
        }
        self.start_due_passts(now);
        self.look_at_swap(now);
        self.look_at_waiting(now);
    }

    /// Hangs are deaths: kills who does nothing for anybody any more.
    fn watch(&mut self) {
        let now = self.born.elapsed();
        let look = |watch: &mut Watch, pid, owes, done| {
            let (state, cpu) = watch::observe(pid)?;
            match watch.look(&Look { now, state, cpu, owes, done }, watch::PATIENCE) {
                Verdict::Hangs(why) => Some(why),
                Verdict::Well => None,
            }
        };
        if let Some(switch) = &self.switch
            && let Some(why) = look(&mut self.watch, switch.pid(), switch.owes(), switch.answers())
        {
            log::error!("netswitch (process {}) {why}; it is killed and replaced", switch.pid());
            switch.kill();
        }
        for seat in self.uplinks.values_mut().filter_map(NetworkUplink::passt_mut) {
            if let Some(process) = &seat.process
                && let Some(why) = look(&mut seat.watch, process.pid, false, 0)
            {
                log::error!(
                    "passt of VM {} (process {}) {why}; it is killed and replaced",
                    seat.vm,
                    process.pid
                );
                // Its end is heard of.
                process.reach().pidfd.kill();
            }
        }
    }

    fn try_now(&mut self) {
        let now = Some(Instant::now());
        self.due = self.due.and(now);
        for seat in self.uplinks.values_mut().filter_map(NetworkUplink::passt_mut) {
            seat.due = seat.due.and(now);
        }
    }

    /// What is wrong with the switch, and with the VMs' ways out, in words.
    fn trouble(&self) -> Troubles {
        let words = |who: &str, history: &History| {
            format!(
                "{who} has died {} times in a row, and is tried again (`quasar resume`: now)",
                history.deaths()
            )
        };
        let switch =
            (self.due.is_some() && self.history.is_troubled()).then(|| words("netswitch", &self.history));
        let troubled = |seat: &&PasstSeat| seat.due.is_some() && seat.history.is_troubled();
        let seats = self.uplinks.values().filter_map(NetworkUplink::passt).filter(troubled);
        Troubles {
            switch,
            passts: seats.map(|seat| (seat.vm.clone(), words("passt", &seat.history))).collect(),
        }
    }

    fn look_at_waiting(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(waiting) = self.waiting.get(index) {
            let seat = self.uplinks.get(&passt_name(&waiting.vm)).and_then(NetworkUplink::passt);
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
