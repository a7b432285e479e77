//! The processes of one VM: who is starting, serving, ending or due to be replaced.
//!
//! Each sits in a [`Seat`], which decides what happens to it; the crew has the processes, does what their seats say, and
//! turns notes into what its owner needs to know.

use super::member::{Answered, Heard, Member, MemberNote, Refused, kind};
use crate::children::policy::Role;
use crate::children::seat::{Action, Event, Seat, Told};
use crate::children::trouble::{explain, is_momentary};
use crate::children::watch::{self, Look};
use crate::children::{Launcher, Reach, SendError};
use crate::machine::grants::VmGrants;
use quasar_abi::control::devices::{DevicesCommand, DevicesReply};
use quasar_abi::machine::VirtioDevice;
use quasar_abi::party::{MAX_HARTS, PartyId, status};
use quasar_abi::vm::Vm;
use quasar_api::ProcessInfo;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What the owner is told.
#[derive(Debug)]
pub enum CrewEvent {
    /// It is attached and serves.
    Serving(PartyId),
    /// It has ended as it was asked to.
    Ended(PartyId),
    /// It has died. Its successor starts by itself unless `fatal` says why there is none.
    Died {
        /// Who.
        party: PartyId,
        /// In what way.
        how: String,
        /// Why it is not replaced.
        fatal: Option<String>,
    },
    /// The devices have answered a command ([`Crew::tell_devices`]).
    Answer {
        /// The command's number.
        id: u64,
        /// What.
        result: Result<DevicesReply, String>,
    },
    /// It has something to tell people.
    Notice(PartyId, String),
}

/// A seat with who sits there.
#[derive(Debug)]
struct Place {
    seat: Seat,
    /// What its processes are started with, when it is not the crew's own.
    launcher: Option<Launcher>,
    process: Option<Member>,
    generation: u32,
    /// Number of the command that makes its process serve.
    start: Option<u64>,
}

/// A note with the seat and the generation of the process that it comes from.
#[derive(Debug)]
pub struct SeatNote {
    party: PartyId,
    generation: u32,
    note: MemberNote,
}

/// The processes of a VM.
pub struct Crew {
    launcher: Launcher,
    grants: VmGrants,
    virtio: Vec<VirtioDevice>,
    /// What executes the harts, when it is not each build's own choice.
    engine: Option<String>,
    vm: Vm,
    log: Arc<File>,
    notify: Arc<dyn Fn(SeatNote) + Send + Sync>,
    places: BTreeMap<PartyId, Place>,
    born: Instant,
    /// When everyone was looked at last.
    looked: Instant,
    /// What has happened and was not told yet.
    told: Vec<CrewEvent>,
}

const fn role(party: PartyId) -> Role {
    match party {
        PartyId::Mmu | PartyId::Devices => Role::Replaceable,
        PartyId::Hart(_) | PartyId::Supervisor => Role::Irreplaceable,
        PartyId::Migrator => Role::Once,
    }
}

/// Whether others wait for what a party does for them in shared memory.
fn serves_somebody(vm: &Vm, party: PartyId) -> bool {
    let runs = |party| vm.party(party).status.load(Ordering::SeqCst) == status::RUNNING;
    let waits_for_mmu = |hart: u8| vm.mmu_mail[usize::from(hart)].mailbox.pending();
    let waits_for_devices = |hart: u8| vm.mmio_mail[usize::from(hart)].mailbox.pending();
    let any_hart =
        |waits: &dyn Fn(u8) -> bool| (0..).take(MAX_HARTS).any(|n| runs(PartyId::Hart(n)) && waits(n));
    match party {
        PartyId::Mmu => any_hart(&waits_for_mmu),
        PartyId::Devices => {
            let posted = vm.notifications.iter().any(|posted| posted.get() != 0);
            runs(party) && (posted || any_hart(&waits_for_devices))
        }
        // Its guest waits for it, unless it waits itself.
        PartyId::Hart(n) => runs(party) && !waits_for_mmu(n) && !waits_for_devices(n) && !vm.htif.pending(),
        PartyId::Migrator | PartyId::Supervisor => false,
    }
}

impl Crew {
    /// A crew without members. `notify` is called from the children's readers; hand what it gets to
    /// [`Crew::hear`].
    #[must_use]
    pub fn new(
        launcher: Launcher,
        grants: VmGrants,
        virtio: Vec<VirtioDevice>,
        vm: Vm,
        log: Arc<File>,
        notify: Arc<dyn Fn(SeatNote) + Send + Sync>,
    ) -> Self {
        let (places, told) = (BTreeMap::new(), vec![]);
        let (born, looked) = (Instant::now(), Instant::now());
        Self { launcher, grants, virtio, engine: None, vm, log, notify, places, born, looked, told }
    }

    /// Has the harts executed by an engine of that name.
    #[must_use]
    pub fn with_engine(self, engine: Option<String>) -> Self {
        Self { engine, ..self }
    }

    fn place(&mut self, party: PartyId) -> &mut Place {
        let patience = self.launcher.patience;
        self.places.entry(party).or_insert_with(|| Place {
            seat: Seat::new(role(party), patience),
            launcher: None,
            process: None,
            generation: 0,
            start: None,
        })
    }

    /// From its next start on, a member's programs are this launcher's (`None`: the crew's own). Returns what
    /// they were.
    pub fn set_launcher(&mut self, party: PartyId, launcher: Option<Launcher>) -> Option<Launcher> {
        std::mem::replace(&mut self.place(party).launcher, launcher)
    }

    /// Tells a seat what has happened, and does what it says.
    fn step(&mut self, party: PartyId, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.born.elapsed();
            for action in self.place(party).seat.step(event, now) {
                events.extend(self.act(party, action));
            }
        }
    }

    /// Does what a seat says. Returns what comes of it.
    fn act(&mut self, party: PartyId, action: Action) -> Option<Event> {
        match action {
            Action::Start => return Some(self.spawn(party)),
            Action::Attach => {
                let place = self.places.get_mut(&party)?;
                let process = place.process.as_mut()?;
                let sent = process.start(&self.grants, &self.virtio, self.engine.as_deref());
                match sent {
                    Ok(id) => place.start = Some(id),
                    Err(error) => return Some(Event::Unreachable(error.to_string())),
                }
            }
            Action::ShutDown => {
                let sent = self.place(party).process.as_mut()?.shut_down();
                return sent.err().map(|error| Event::Unreachable(error.to_string()));
            }
            Action::Kill => self.place(party).process.as_ref()?.kill(),
            Action::Vacate => self.vacate(party),
            Action::Tell(told) => self.told.push(match told {
                Told::Serving => CrewEvent::Serving(party),
                Told::Ended => CrewEvent::Ended(party),
                Told::Died { how, fatal } => CrewEvent::Died { party, how, fatal },
                Told::Notice(text) => CrewEvent::Notice(party, text),
            }),
        }
        None
    }

    fn spawn(&mut self, party: PartyId) -> Event {
        let place = self.place(party);
        place.generation += 1;
        let generation = place.generation;
        let notify = Arc::clone(&self.notify);
        let tell = move |note| notify(SeatNote { party, generation, note });
        let launcher = self.place(party).launcher.clone().unwrap_or_else(|| self.launcher.clone());
        match Member::spawn(&launcher, party, &self.log, tell) {
            Ok(process) => {
                let slot = self.vm.party(party);
                slot.pid.set(process.pid());
                slot.generation.set(generation);
                let place = self.place(party);
                (place.process, place.start) = (Some(process), None);
                Event::Started
            }
            Err(error) => {
                let program = launcher.program(kind(party));
                let why = format!("{}: {}", program.display(), explain(&error));
                Event::NotStarted { why, passing: is_momentary(&error) }
            }
        }
    }

    /// Clears a member's slot: whoever waits for it to park must not.
    fn vacate(&mut self, party: PartyId) {
        self.place(party).process = None;
        let slot = self.vm.party(party);
        slot.pid.set(0);
        slot.status.store(status::ABSENT, Ordering::SeqCst);
    }

    /// Starts a member whose seat is empty. A failure is told as a death.
    pub fn start(&mut self, party: PartyId) {
        self.step(party, Event::Wanted);
    }

    /// Starts at once whoever is due later.
    pub fn try_now(&mut self) {
        for party in self.parties() {
            self.step(party, Event::TryNow);
        }
    }

    fn parties(&self) -> Vec<PartyId> {
        self.places.keys().copied().collect()
    }

    /// What is wrong with members for which nobody else can do the work now, in words; nothing mostly.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let now = self.born.elapsed();
        let of = |(party, place): (&PartyId, &Place)| place.seat.trouble(&party.to_string(), now);
        let all: Vec<String> = self.places.iter().filter_map(of).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Which hart does nothing, and why: what needs it at rest is not to be waited for.
    #[must_use]
    pub fn stuck(&self) -> Option<String> {
        self.places.iter().find_map(|(party, place)| Some(format!("{party} {}", place.seat.stuck()?)))
    }

    /// Whether nobody can serve the guest for some time.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.places.values().any(|place| place.seat.is_short())
    }

    /// Looks at every process.
    fn watch(&mut self) {
        let now = self.born.elapsed();
        for party in self.parties() {
            let Some(process) = &self.place(party).process else { continue };
            let Some((state, cpu)) = watch::observe(process.pid()) else { continue };
            let commands = Look { now, state, cpu, owes: process.owes(), done: process.answers() };
            let (owes, done) = (serves_somebody(&self.vm, party), self.vm.party(party).progress.get());
            let service = Some(Look { owes, done, ..commands });
            self.step(party, Event::Look { commands, service });
        }
    }

    /// Asks members to end; [`CrewEvent::Ended`] follows for each that is there.
    pub fn end(&mut self, party: PartyId) {
        self.step(party, Event::Unwanted);
    }

    /// Sends the devices a command; its answer comes as [`CrewEvent::Answer`].
    ///
    /// # Errors
    /// [`SendError`], also when nobody serves there.
    pub fn tell_devices(&mut self, command: DevicesCommand) -> Result<u64, SendError> {
        let place = self.places.get_mut(&PartyId::Devices).filter(|place| place.seat.is_serving());
        let member = place.and_then(|place| place.process.as_mut());
        member.and_then(Member::devices).ok_or(SendError::NotReady)?.send(command)
    }

    /// How a member's process is reached, while there is one.
    #[must_use]
    pub fn reach(&self, party: PartyId) -> Option<Reach> {
        self.places.get(&party)?.process.as_ref().map(Member::reach)
    }

    /// Whether no process is left of these members, and none will come.
    #[must_use]
    pub fn is_gone(&self, mut who: impl FnMut(PartyId) -> bool) -> bool {
        self.places.iter().all(|(id, place)| !who(*id) || place.seat.is_vacant())
    }

    /// Whether these members all serve.
    #[must_use]
    pub fn all_serving(&self, mut who: impl FnMut(PartyId) -> bool) -> bool {
        self.places.iter().all(|(id, place)| !who(*id) || place.seat.is_serving())
    }

    /// The members that have a process: role, process id, restarts.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessInfo> {
        let info = |(party, place): (&PartyId, &Place)| {
            let process = place.process.as_ref()?;
            Some(ProcessInfo {
                role: party.to_string(),
                pid: process.pid(),
                restarts: place.seat.history().total(),
                arch: process.arch().to_owned(),
            })
        };
        self.places.iter().filter_map(info).collect()
    }

    /// Takes a note from a child's reader. Returns what has happened.
    #[must_use]
    pub fn hear(&mut self, SeatNote { party, generation, note }: SeatNote) -> Vec<CrewEvent> {
        let place = self.places.get_mut(&party).filter(|place| place.generation == generation);
        let heard = place.and_then(|place| place.process.as_mut()?.hear(note));
        match heard {
            None => {}
            Some(Heard::Hello) => self.step(party, Event::Hello),
            Some(Heard::Notice(text)) => self.told.push(CrewEvent::Notice(party, text)),
            Some(Heard::Fatal(text)) => self.step(party, Event::Fatal(text)),
            Some(Heard::Answer { id, result }) => self.answer(party, id, result),
            Some(Heard::Garbled(what)) => self.step(party, Event::Garbled(what)),
            Some(Heard::Ended(how)) => self.step(party, Event::Ended(how)),
        }
        std::mem::take(&mut self.told)
    }

    fn answer(&mut self, party: PartyId, id: u64, result: Result<Answered, Refused>) {
        let starts = self.place(party).start.take_if(|start| *start == id).is_some();
        match result {
            Ok(_) if starts => self.step(party, Event::Serves),
            Err(Refused { words, passing }) if starts => {
                self.step(party, Event::Refused { why: words, passing })
            }
            // The answer to a shutdown, after which the end itself is what counts; or of members that are told nothing
            // but to start and to end.
            _ if !self.place(party).seat.is_serving() => {}
            Ok(Answered::Done) => {}
            Ok(Answered::Devices(reply)) => self.told.push(CrewEvent::Answer { id, result: Ok(reply) }),
            Err(refused) => self.told.push(CrewEvent::Answer { id, result: Err(refused.words) }),
        }
    }

    /// When [`Crew::tick`] is due next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.told.is_empty() {
            return Some(Instant::now());
        }
        let seats = self.places.values().filter_map(|place| place.seat.deadline()).min();
        let look =
            self.places.values().any(|place| place.process.is_some()).then(|| self.looked + watch::LOOK);
        seats.map(|at| self.born + at).into_iter().chain(look).min()
    }

    /// Does what is due: starts successors, kills who missed a deadline. Returns what has happened.
    pub fn tick(&mut self) -> Vec<CrewEvent> {
        let now = Instant::now();
        if now.duration_since(self.looked) >= watch::LOOK {
            self.looked = now;
            self.watch();
        }
        for party in self.parties() {
            self.step(party, Event::Tick);
        }
        std::mem::take(&mut self.told)
    }
}

#[cfg(test)]
mod tests;
