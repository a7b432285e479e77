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
use crate::children::seat::{Event as SeatEvent, START_DEADLINE, Seat};
use crate::children::watch::{self, Look};
use crate::children::{Launcher, Note, Process, Questions};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;
use quasar_abi::Grant;
use quasar_abi::control::migrator::Security;
use quasar_abi::control::netswitch::{Netswitch, NetswitchCommand, NetswitchReply};
use quasar_abi::report::NetworksReport;
use quasar_api::{ProcessInfo, Publish, UplinkSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use swap::SwitchSwap;
use uplinks::{NetworkUplink, passt_name};

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
    /// The first hears at once whether the way out stays here, the other one when the port has moved.
    Depart(String, Answer, Sender<()>),
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
    /// The switch's.
    seat: Seat,
    looked: Instant,
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
        let passts = self.uplinks.values().filter_map(|u| u.passt()?.seat.deadline());
        let seats = passts.chain(self.seat.deadline()).map(|at| self.born + at);
        let next = seats.chain(self.listen_again).min();
        let anybody = self.switch.is_some() || !self.uplinks.is_empty();
        let longest = if anybody { watch::LOOK } else { IDLE };
        next.map_or(longest, |at| at.saturating_duration_since(Instant::now()).min(longest))
    }

    fn show(&self) {
        let switch = self.switch.as_ref().map(|process| ProcessInfo {
            role: "netswitch".into(),
            pid: process.pid(),
            restarts: self.seat.history().total(),
            arch: process.arch().to_owned(),
        });
        let passts = self.uplinks.values().filter_map(|uplink| {
            let seat = uplink.passt()?;
            let process = seat.process.as_ref()?;
            let role = format!("passt {}", seat.vm);
            let restarts = seat.seat.history().total();
            Some(ProcessInfo { role, pid: process.pid, restarts, arch: String::new() })
        });
        let all = switch.into_iter().chain(passts).collect();
        *self.shown.lock() = all;
        *self.troubles.lock() = self.trouble();
        self.show_addresses();
    }

    /// Shows the rest of the daemon who has which address.
    fn show_addresses(&self) {
        let addresses = self.ports.iter().filter_map(|(vm, port)| Some((vm.clone(), port.address?)));
        *self.addresses.lock() = addresses.collect();
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Switch(generation, note) if generation == self.generation => self.hear(note),
            Input::Serves(generation) if generation == self.generation => {
                self.step_switch(SeatEvent::Serves);
                self.newcomer_serves();
            }
            Input::Deaf(generation, error) if generation == self.generation && self.switch.is_some() => {
                self.deaf(&error);
            }
            Input::Switch(..) | Input::Serves(_) | Input::Deaf(..) | Input::Quit => {}
            Input::PasstEnded(name, generation, how) => self.passt_ended(&name, generation, &how),
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
                self.listening = Some(answer);
                self.step_switch(SeatEvent::Wanted);
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
            Input::Depart(vm, answer, moved) => self.depart(&vm, answer, moved),
            Input::Swap(launcher, answer) => self.swap(launcher, answer),
            Input::TryNow => self.try_now(),
            Input::Signal(vm, signal, answer) => answer(self.signal(vm.as_deref(), signal)),
            Input::Stats(answer) if self.seat.is_vacant() => answer(Ok(None)),
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
        } else {
            self.step_switch(SeatEvent::Wanted);
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

    fn depart(&mut self, vm: &str, answer: Answer, moved: Sender<()>) {
        let Some(port) = self.ports.remove(vm) else { return answer(Ok(false.into())) };
        let kept = self.uplinks.contains_key(&passt_name(vm)) || self.tap_of(&port.network).is_some();
        if kept {
            self.away.insert(vm.to_owned(), (port.network, port.mac));
        }
        answer(Ok(kept.into()));
        // Nobody hears it when that took too long.
        let has_moved = move |_| moved.send(()).unwrap_or_default();
        self.ask(NetswitchCommand::MovePort { port: port_name(vm) }, Box::new(has_moved));
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
        self.step_switch(SeatEvent::Tick);
        if self.listen_again.take_if(|at| *at <= now).is_some() {
            self.tell_listen();
        }
        self.step_passts(&SeatEvent::Tick);
        self.look_whether_passts_listen();
        self.look_at_waiting(now);
    }

    /// Looks at every process.
    fn watch(&mut self) {
        let now = self.born.elapsed();
        let look = |pid, owes, done| {
            let (state, cpu) = watch::observe(pid)?;
            Some(SeatEvent::Look { commands: Look { now, state, cpu, owes, done }, service: None })
        };
        let switch = self.switch.as_ref();
        if let Some(event) = switch.and_then(|switch| look(switch.pid(), switch.owes(), switch.answers())) {
            self.step_switch(event);
        }
        let passts = self.uplinks.iter().filter_map(|(name, uplink)| {
            let process = uplink.passt()?.process.as_ref()?;
            Some((name.clone(), look(process.pid, false, 0)?))
        });
        for (name, event) in passts.collect::<Vec<_>>() {
            self.step_passt(&name, event);
        }
    }

    fn try_now(&mut self) {
        self.step_switch(SeatEvent::TryNow);
        self.step_passts(&SeatEvent::TryNow);
    }

    /// What is wrong with the switch, and with the VMs' ways out, in words.
    fn trouble(&self) -> Troubles {
        let now = self.born.elapsed();
        let seats = self.uplinks.values().filter_map(NetworkUplink::passt);
        Troubles {
            switch: self.seat.trouble("netswitch", now),
            passts: seats
                .filter_map(|seat| Some((seat.vm.clone(), seat.seat.trouble("passt", now)?)))
                .collect(),
        }
    }

    fn look_at_waiting(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(waiting) = self.waiting.get(index) {
            let seat = self.uplinks.get(&passt_name(&waiting.vm)).and_then(NetworkUplink::passt);
            let listens = seat.is_none_or(|place| place.seat.is_serving());
            let failure = match seat.and_then(|s| s.ended.clone()) {
                Some(how) => Some(how),
                None if waiting.by <= now => {
                    let trouble = self.trouble().of(&waiting.vm).map(|why| format!(": {why}"));
                    let trouble = trouble.unwrap_or_default();
                    Some(format!("the network did not come up within {START_DEADLINE:?}{trouble}"))
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

#[cfg(test)]
mod tests;
