//! The processes of one VM: who is starting, serving, ending or due to be replaced.
//!
//! The crew turns notes into what its owner needs to know. It holds deadlines for each step that a child
//! could fail to take, and kills who misses one.

use super::member::{Answered, Heard, Member, MemberNote, Refused, kind};
use crate::children::policy::{Decision, History, Role, decide, postpone};
use crate::children::trouble::{explain, is_momentary};
use crate::children::watch::{self, Look, Verdict, Watch};
use crate::children::{Launcher, Reach, SendError};
use crate::machine::grants::VmGrants;
use quasar_abi::control::devices::{DevicesCommand, DevicesReply};
use quasar_abi::machine::VirtioDevice;
use quasar_abi::party::{PartyId, status};
use quasar_abi::vm::Vm;
use quasar_api::ProcessInfo;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time for a child to say hello and to attach.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Time for a child to end when it was asked to; after it, it is killed.
const END_DEADLINE: Duration = Duration::from_secs(5);

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

#[derive(Debug)]
enum Stage {
    Absent,
    Starting { by: Instant, start: Option<u64> },
    Serving,
    Ending { by: Instant, asked: bool },
    Due { at: Instant },
}

#[derive(Debug)]
struct Seat {
    stage: Stage,
    /// What its processes are started with, when it is not the crew's own.
    launcher: Option<Launcher>,
    process: Option<Member>,
    generation: u32,
    history: History,
    /// The last thing it said about its own death.
    last_words: Option<String>,
    /// Since when the host has had no room for it.
    refused_since: Option<Instant>,
    watch: Watch,
    /// Why it does nothing, as long as nobody can stand in for it.
    stuck: Option<String>,
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
    seats: BTreeMap<PartyId, Seat>,
    born: Instant,
    /// When everyone was looked at last.
    looked: Instant,
    /// Deaths found while starting or killing, told with the next tick.
    late: Vec<CrewEvent>,
}

const fn role(party: PartyId) -> Role {
    match party {
        PartyId::Mmu | PartyId::Devices => Role::Replaceable,
        PartyId::Hart(_) | PartyId::Migrator | PartyId::Supervisor => Role::Irreplaceable,
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
        let (seats, late) = (BTreeMap::new(), vec![]);
        Self {
            launcher,
            grants,
            virtio,
            engine: None,
            vm,
            log,
            notify,
            seats,
            born: Instant::now(),
            looked: Instant::now(),
            late,
        }
    }

    /// Has the harts executed by an engine of that name.
    #[must_use]
    pub fn with_engine(self, engine: Option<String>) -> Self {
        Self { engine, ..self }
    }

    fn seat(&mut self, party: PartyId) -> &mut Seat {
        self.seats.entry(party).or_insert_with(|| Seat {
            stage: Stage::Absent,
            launcher: None,
            process: None,
            generation: 0,
            history: History::default(),
            last_words: None,
            refused_since: None,
            watch: Watch::default(),
            stuck: None,
        })
    }

    /// From its next start on, a member's programs are this launcher's (`None`: the crew's own). Returns what
    /// they were.
    pub fn set_launcher(&mut self, party: PartyId, launcher: Option<Launcher>) -> Option<Launcher> {
        std::mem::replace(&mut self.seat(party).launcher, launcher)
    }

    /// Starts a member whose seat is empty. A failure is told as a death.
    pub fn start(&mut self, party: PartyId) {
        let seat = self.seat(party);
        if seat.process.is_some() {
            return;
        }
        seat.generation += 1;
        let generation = seat.generation;
        let notify = Arc::clone(&self.notify);
        let tell = move |note| notify(SeatNote { party, generation, note });
        let launcher = self.seat(party).launcher.clone().unwrap_or_else(|| self.launcher.clone());
        match Member::spawn(&launcher, party, &self.log, tell) {
            Ok(process) => {
                let slot = self.vm.party(party);
                slot.pid.set(process.pid());
                slot.generation.set(generation);
                let seat = self.seat(party);
                seat.last_words = None;
                seat.process = Some(process);
                seat.history = seat.history.started();
                seat.refused_since = None;
                (seat.watch, seat.stuck) = (Watch::default(), None);
                seat.stage = Stage::Starting { by: Instant::now() + START_DEADLINE, start: None };
            }
            Err(error) if is_momentary(&error) && self.may_wait_for_room(party) => {
                let seat = self.seat(party);
                let (history, after) = postpone(&seat.history);
                let first = seat.refused_since.is_none();
                seat.refused_since.get_or_insert_with(Instant::now);
                (seat.history, seat.stage) = (history, Stage::Due { at: Instant::now() + after });
                if first {
                    let text = format!("cannot be started now, and is tried again: {}", explain(&error));
                    self.late.push(CrewEvent::Notice(party, text));
                }
            }
            Err(error) => {
                let program = launcher.program(kind(party));
                let how = format!("cannot be started: {}: {}", program.display(), explain(&error));
                let event = self.died(party, how);
                self.late.push(event);
            }
        }
    }

    /// Whether a start for which the host has no room is tried again: always where one served before, for some time
    /// where none has.
    fn may_wait_for_room(&mut self, party: PartyId) -> bool {
        let seat = self.seat(party);
        seat.history.total() > 0 || seat.refused_since.is_none_or(|since| since.elapsed() < START_DEADLINE)
    }

    /// Starts at once whoever is due later.
    pub fn try_now(&mut self) {
        let now = Instant::now();
        for seat in self.seats.values_mut() {
            if let Stage::Due { at } = &mut seat.stage {
                *at = now;
            }
        }
    }

    /// What is wrong with members for which nobody else can do the work now, in words; nothing mostly.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let now = Instant::now();
        let of = |(party, seat): (&PartyId, &Seat)| match seat.stage {
            Stage::Due { .. } if seat.refused_since.is_some() => {
                Some(format!("{party} waits for room on this host"))
            }
            Stage::Due { at } if seat.history.is_troubled() => {
                let seconds = at.saturating_duration_since(now).as_secs() + 1;
                Some(format!(
                    "{party} has died {} times in a row, and is started again in {seconds} s (`quasar resume`: now)",
                    seat.history.deaths()
                ))
            }
            _ => seat.stuck.as_ref().map(|why| format!("{party} {why}")),
        };
        let all: Vec<String> = self.seats.iter().filter_map(of).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Whether nobody can serve the guest for some time.
    #[must_use]
    pub fn is_short(&self) -> bool {
        let waits = |seat: &Seat| seat.refused_since.is_some() || seat.history.is_troubled();
        self.seats.values().any(|seat| matches!(seat.stage, Stage::Due { .. }) && waits(seat))
    }

    /// Hangs are deaths: kills who does nothing for anybody any more. A hart cannot be replaced, and is only told of.
    fn watch(&mut self) {
        let now = self.born.elapsed();
        for (party, seat) in &mut self.seats {
            let Some(process) = &seat.process else { continue };
            let Some((state, cpu)) = watch::observe(process.pid()) else { continue };
            let owes = matches!(seat.stage, Stage::Serving) && process.owes();
            let look = Look { now, state, cpu, owes, done: process.answers() };
            let found = seat.watch.look(&look, watch::PATIENCE);
            match (found, role(*party), &seat.stage) {
                (Verdict::Hangs(why), Role::Replaceable, Stage::Serving | Stage::Starting { .. }) => {
                    seat.last_words = Some(why);
                    process.kill();
                }
                (Verdict::Hangs(why), _, _) => seat.stuck = Some(why),
                (Verdict::Well, _, _) => seat.stuck = None,
            }
        }
    }

    /// Asks members to end; [`CrewEvent::Ended`] follows for each that is there.
    pub fn end(&mut self, party: PartyId) {
        let Some(seat) = self.seats.get_mut(&party) else { return };
        let Some(process) = &mut seat.process else {
            seat.stage = Stage::Absent;
            return;
        };
        if matches!(seat.stage, Stage::Ending { .. }) {
            return;
        }
        let asked = process.shut_down().is_ok();
        if !asked {
            process.kill();
        }
        seat.stage = Stage::Ending { by: Instant::now() + END_DEADLINE, asked };
    }

    /// Sends the devices a command; its answer comes as [`CrewEvent::Answer`].
    ///
    /// # Errors
    /// [`SendError`], also when nobody serves there.
    pub fn tell_devices(&mut self, command: DevicesCommand) -> Result<u64, SendError> {
        let seat = self.seats.get_mut(&PartyId::Devices).filter(|seat| matches!(seat.stage, Stage::Serving));
        let member = seat.and_then(|seat| seat.process.as_mut());
        member.and_then(Member::devices).ok_or(SendError::NotReady)?.send(command)
    }

    /// How a member's process is reached, while there is one.
    #[must_use]
    pub fn reach(&self, party: PartyId) -> Option<Reach> {
        self.seats.get(&party)?.process.as_ref().map(Member::reach)
    }

    /// Whether no process is left of these members, and none will come.
    #[must_use]
    pub fn is_gone(&self, mut who: impl FnMut(PartyId) -> bool) -> bool {
        self.seats.iter().all(|(id, seat)| !who(*id) || matches!(seat.stage, Stage::Absent))
    }

    /// Whether these members all serve.
    #[must_use]
    pub fn all_serving(&self, mut who: impl FnMut(PartyId) -> bool) -> bool {
        self.seats.iter().all(|(id, seat)| !who(*id) || matches!(seat.stage, Stage::Serving))
    }

    /// The members that have a process: role, process id, restarts.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessInfo> {
        let info = |(party, seat): (&PartyId, &Seat)| {
            let process = seat.process.as_ref()?;
            Some(ProcessInfo {
                role: party.to_string(),
                pid: process.pid(),
                restarts: seat.history.total(),
                arch: process.arch().to_owned(),
            })
        };
        self.seats.iter().filter_map(info).collect()
    }

    /// Takes a note from a child's reader.
    pub fn hear(&mut self, SeatNote { party, generation, note }: SeatNote) -> Option<CrewEvent> {
        let seat = self.seats.get_mut(&party)?;
        if seat.generation != generation {
            return None;
        }
        let process = seat.process.as_mut()?;
        match process.hear(note)? {
            Heard::Hello => {
                match (&mut seat.stage, process.start(&self.grants, &self.virtio, self.engine.as_deref())) {
                    (Stage::Starting { start, .. }, Ok(id)) => *start = Some(id),
                    (Stage::Ending { .. }, _) | (_, Err(_)) => process.kill(),
                    _ => {}
                }
                None
            }
            Heard::Notice(text) => Some(CrewEvent::Notice(party, text)),
            Heard::Fatal(text) => {
                // It says that it ends; whether it still can is not waited for.
                seat.last_words = Some(text);
                process.kill();
                None
            }
            Heard::Answer { id, result } => self.answer(party, id, result),
            Heard::Garbled(what) => {
                seat.last_words = Some(what.clone());
                Some(CrewEvent::Notice(party, format!("sent something that is no event: {what}")))
            }
            Heard::Ended(how) => {
                let ending = matches!(seat.stage, Stage::Ending { .. });
                let how = seat.last_words.take().map_or(how.clone(), |words| format!("{how}: {words}"));
                if ending {
                    self.vacate(party);
                    self.seat(party).stage = Stage::Absent;
                    Some(CrewEvent::Ended(party))
                } else {
                    Some(self.died(party, how))
                }
            }
        }
    }

    fn answer(&mut self, party: PartyId, id: u64, result: Result<Answered, Refused>) -> Option<CrewEvent> {
        let seat = self.seats.get_mut(&party)?;
        let process = seat.process.as_mut()?;
        match (&seat.stage, &result) {
            (Stage::Starting { start: Some(wanted), .. }, Ok(_)) if *wanted == id => {
                seat.stage = Stage::Serving;
                Some(CrewEvent::Serving(party))
            }
            (Stage::Starting { start: Some(wanted), .. }, Err(error)) if *wanted == id => {
                seat.last_words = Some(error.words.clone());
                process.kill();
                None
            }
            // The answer to a shutdown; the end itself is what counts.
            (Stage::Ending { .. }, _) => None,
            (_, Ok(Answered::Devices(reply))) => Some(CrewEvent::Answer { id, result: Ok(reply.clone()) }),
            (_, Err(refused)) => Some(CrewEvent::Answer { id, result: Err(refused.words.clone()) }),
            // Members that are told nothing but to start and to end.
            (_, Ok(Answered::Done)) => None,
        }
    }

    /// Clears a member's slot: whoever waits for it to park must not.
    fn vacate(&mut self, party: PartyId) {
        self.seat(party).process = None;
        let slot = self.vm.party(party);
        slot.pid.set(0);
        slot.status.store(status::ABSENT, std::sync::atomic::Ordering::SeqCst);
    }

    fn died(&mut self, party: PartyId, how: String) -> CrewEvent {
        self.vacate(party);
        let now = self.born.elapsed();
        let seat = self.seat(party);
        let (history, decision) = decide(&seat.history, role(party), now);
        seat.history = history;
        let fatal = match decision {
            Decision::Restart { after } => {
                seat.stage = Stage::Due { at: Instant::now() + after };
                None
            }
            Decision::GiveUp { why } => {
                seat.stage = Stage::Absent;
                Some(why)
            }
        };
        CrewEvent::Died { party, how, fatal }
    }

    /// When [`Crew::tick`] is due next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.late.is_empty() {
            return Some(Instant::now());
        }
        let of = |seat: &Seat| match seat.stage {
            Stage::Starting { by, .. } | Stage::Ending { by, .. } => Some(by),
            Stage::Due { at } => Some(at),
            Stage::Absent | Stage::Serving => None,
        };
        self.seats.values().filter_map(of).min()
    }

    /// Does what is due: starts successors, kills who missed a deadline.
    pub fn tick(&mut self) -> Vec<CrewEvent> {
        let now = Instant::now();
        if now.duration_since(self.looked) >= watch::LOOK {
            self.looked = now;
            self.watch();
        }
        let due: Vec<PartyId> = self.seats.iter().filter(|(_, s)| s.is_due(now)).map(|(id, _)| *id).collect();
        for party in due {
            let seat = self.seat(party);
            match (&mut seat.stage, &seat.process) {
                (Stage::Due { .. }, _) => self.start(party),
                (Stage::Starting { by, .. }, Some(process)) => {
                    seat.last_words = Some(format!("it did not attach within {START_DEADLINE:?}"));
                    process.kill();
                    *by = now + START_DEADLINE;
                }
                (Stage::Ending { by, asked }, Some(process)) => {
                    process.kill();
                    *by = now + END_DEADLINE;
                    if std::mem::take(asked) {
                        let text = format!("did not end within {END_DEADLINE:?} and was killed");
                        self.late.push(CrewEvent::Notice(party, text));
                    }
                }
                _ => seat.stage = Stage::Absent,
            }
        }
        std::mem::take(&mut self.late)
    }
}

impl Seat {
    fn is_due(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Starting { by, .. } | Stage::Ending { by, .. } => by <= now,
            Stage::Due { at } => at <= now,
            Stage::Absent | Stage::Serving => false,
        }
    }
}
