//! A migrator process on one journey, bound to the thread that owns it.

use crate::children::policy::Role;
use crate::children::seat::{self, Action, Seat, Told};
use crate::children::trouble::{explain, is_momentary};
use crate::children::watch::{self, Look};
use crate::children::{Launcher, Note, Process, Reach};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use quasar_abi::control::migrator::{self, MigrationEvent, MigratorCommand, MigratorRefusal, MigratorReply};
use quasar_abi::control::{Event, ProcessKind};
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// What a journey's thread reacts to.
#[derive(Debug)]
pub enum Input {
    /// The migrator's.
    Note(Note<migrator::Migrator>),
    /// Give up if that is still possible.
    Cancel,
    /// Kill the migrator.
    Abort,
}

/// What was heard.
#[derive(Debug)]
pub enum Heard {
    /// Something happens.
    Migration(MigrationEvent),
    /// The journey's command is done.
    Done(MigratorReply),
    /// It failed.
    Failed(MigratorRefusal),
    /// The process has ended.
    Died(String),
    /// Nothing for a while, or nothing that concerns the journey.
    Nothing,
}

/// A migrator that has said hello and was given its journey.
pub struct Migrator {
    seat: Seat,
    process: Option<Process<migrator::Migrator>>,
    inbox: Receiver<Input>,
    /// Number of the journey's command.
    journey: u64,
    /// What was heard of it.
    heard: u64,
    /// How it ended, when it has.
    gone: Option<String>,
    born: Instant,
    looked: Instant,
}

/// What a migrator is started with.
struct Start<'a> {
    launcher: &'a Launcher,
    peer: Option<BorrowedFd<'a>>,
    log: &'a File,
    outbox: Sender<Input>,
    first: MigratorCommand,
}

impl Start<'_> {
    fn spawn(&self) -> std::io::Result<Process<migrator::Migrator>> {
        let outbox = self.outbox.clone();
        let notify = move |note| drop(outbox.send(Input::Note(note)));
        let peer = self.peer.map(|fd| ("--peer-fd", fd));
        Process::spawn_with(self.launcher, peer, self.log, notify)
    }
}

/// The two ends of what a journey's thread reacts to.
#[must_use]
pub fn inputs() -> (Sender<Input>, Receiver<Input>) {
    unbounded()
}

impl Migrator {
    /// Starts a migrator and gives it its first command. It dies with the calling thread.
    ///
    /// # Errors
    /// In words for people.
    pub fn start(
        launcher: &Launcher,
        peer: Option<BorrowedFd<'_>>,
        log: &File,
        (outbox, inbox): (Sender<Input>, Receiver<Input>),
        first: MigratorCommand,
    ) -> Result<Self, String> {
        let start = Start { launcher, peer, log, outbox, first };
        let mut migrator = Self {
            seat: Seat::new(Role::Once, launcher.patience),
            process: None,
            inbox,
            journey: 0,
            heard: 0,
            gone: None,
            born: Instant::now(),
            looked: Instant::now(),
        };
        migrator.step(seat::Event::Wanted, Some(&start));
        while !migrator.seat.is_serving() {
            let next = migrator.seat.deadline().map(|at| migrator.born + at);
            let next = next.map_or(watch::LOOK, |at| at.saturating_duration_since(Instant::now()));
            match migrator.inbox.recv_timeout(next.min(watch::LOOK)) {
                Ok(Input::Note(note)) => drop(migrator.hear_note(note, Some(&start))),
                Ok(Input::Cancel | Input::Abort) => return Err("cancelled".into()),
                Err(_) => {}
            }
            migrator.look(Some(&start));
            if let Some(how) = &migrator.gone {
                return Err(format!("the migrator {how}"));
            }
        }
        Ok(migrator)
    }

    /// Tells the seat what has happened, and does what it says. `start` is there until the process serves.
    fn step(&mut self, event: seat::Event, start: Option<&Start<'_>>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.seat.step(event, self.born.elapsed()) {
                events.extend(self.act(action, start));
            }
        }
    }

    fn act(&mut self, action: Action, start: Option<&Start<'_>>) -> Option<seat::Event> {
        match action {
            Action::Start => {
                let start = start?;
                return Some(match start.spawn() {
                    Ok(process) => {
                        self.process = Some(process);
                        seat::Event::Started
                    }
                    Err(error) => {
                        let program = start.launcher.program(ProcessKind::Migrator);
                        let why = format!("{}: {}", program.display(), explain(&error));
                        seat::Event::NotStarted { why, passing: is_momentary(&error) }
                    }
                });
            }
            Action::Attach => {
                return Some(match self.process.as_mut()?.send(start?.first.clone()) {
                    Ok(journey) => {
                        self.journey = journey;
                        seat::Event::Serves
                    }
                    Err(error) => seat::Event::Unreachable(error.to_string()),
                });
            }
            Action::ShutDown => {
                let sent = self.process.as_mut()?.send(MigratorCommand::Shutdown);
                return sent.err().map(|error| seat::Event::Unreachable(error.to_string()));
            }
            Action::Kill => self.process.as_ref()?.kill(),
            // How it ended is told first.
            Action::Vacate | Action::Tell(Told::Serving) => {}
            Action::Tell(Told::Notice(text)) => log::warn!("a migrator {text}"),
            Action::Tell(Told::Ended) => self.gone = Some("has ended".into()),
            Action::Tell(Told::Died { how, .. }) => self.gone = Some(how),
        }
        None
    }

    /// Starts a migrator, hears its hello and ends it: whether its program is of use.
    ///
    /// # Errors
    /// In words for people.
    pub fn try_out(launcher: &Launcher, log: &File) -> Result<(), String> {
        Self::start(launcher, None, log, inputs(), MigratorCommand::Shutdown).map(Self::end)
    }

    /// How others reach its process.
    #[must_use]
    pub fn reach(&self) -> Option<Reach> {
        self.process.as_ref().map(Process::reach)
    }

    /// Sends a further command. One that cannot be sent shows as the process's end.
    pub fn tell(&mut self, command: MigratorCommand) {
        let sent = self.process.as_mut().map(|process| process.send(command));
        if let Some(Err(error)) = sent {
            self.step(seat::Event::Unreachable(error.to_string()), None);
        }
    }

    /// Looks whether it is dead although its process exists.
    fn look(&mut self, start: Option<&Start<'_>>) {
        self.step(seat::Event::Tick, start);
        if self.looked.elapsed() < watch::LOOK {
            return;
        }
        self.looked = Instant::now();
        let Some(process) = &self.process else { return };
        let Some((state, cpu)) = watch::observe(process.pid()) else { return };
        // The journey's own command is answered when it is over.
        let (now, owes) = (self.born.elapsed(), process.unanswered() > usize::from(self.seat.is_serving()));
        let commands = Look { now, state, cpu, owes, done: process.answers() };
        let service = Some(Look { owes: true, done: self.heard, ..commands });
        self.step(seat::Event::Look { commands, service }, start);
    }

    /// Waits for what comes next, and carries out what users order meanwhile.
    pub fn hear(&mut self, patience: Duration) -> Heard {
        if self.gone.is_none() {
            let heard = match self.inbox.recv_timeout(patience.min(watch::LOOK)) {
                Ok(Input::Note(note)) => self.hear_note(note, None),
                Ok(Input::Cancel) => {
                    self.tell(MigratorCommand::Cancel);
                    Heard::Nothing
                }
                Ok(Input::Abort) => {
                    self.step(seat::Event::Fatal("was to end at once".into()), None);
                    Heard::Nothing
                }
                Err(RecvTimeoutError::Timeout) => Heard::Nothing,
                Err(RecvTimeoutError::Disconnected) => Heard::Died("is not heard any more".into()),
            };
            self.look(None);
            if !matches!(heard, Heard::Nothing) {
                return heard;
            }
        }
        self.gone.clone().map_or(Heard::Nothing, Heard::Died)
    }

    fn hear_note(&mut self, note: Note<migrator::Migrator>, start: Option<&Start<'_>>) -> Heard {
        self.heard += 1;
        let event = match note {
            Note::Hello(_, sender) => {
                if let Some(process) = &mut self.process {
                    process.greeted(sender);
                }
                seat::Event::Hello
            }
            Note::Event(Event::News(event)) => return Heard::Migration(event),
            Note::Event(Event::Done { id, reply }) => {
                return if self.is_journeys(id) { Heard::Done(reply) } else { Heard::Nothing };
            }
            Note::Event(Event::Refused { id, refusal }) => {
                return if self.is_journeys(id) { Heard::Failed(refusal) } else { Heard::Nothing };
            }
            Note::Event(Event::Notice(text)) => {
                log::warn!("migrator: {text}");
                return Heard::Nothing;
            }
            Note::Event(Event::Hello(_)) => return Heard::Nothing,
            Note::Event(Event::Fatal(text)) => seat::Event::Fatal(text),
            Note::Garbled(what) => seat::Event::Garbled(what),
            Note::Ended(how) => seat::Event::Ended(how),
        };
        self.step(event, start);
        Heard::Nothing
    }

    /// Counts an answer. Whether it is the journey's.
    fn is_journeys(&mut self, id: u64) -> bool {
        if let Some(process) = &mut self.process {
            process.answered();
        }
        id == self.journey
    }

    /// Ends the process and waits until it has gone: it holds the VM's memory.
    pub fn end(mut self) {
        self.step(seat::Event::Unwanted, None);
        while self.gone.is_none() {
            let by = self.seat.deadline().map_or(self.born, |at| self.born + at);
            self.hear(by.saturating_duration_since(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::children::standin::{self, BROKEN, SILENT, STOPPED};

    /// How a migrator ends that is this script; `order` comes while it starts.
    fn end_of(script: &str, order: Option<Input>) -> String {
        let (directory, launcher) = standin::launcher(script, &[ProcessKind::Migrator]);
        let (outbox, inbox) = inputs();
        if let Some(order) = order {
            outbox.send(order).expect("the other end is here");
        }
        let first = MigratorCommand::Shutdown;
        let started = Migrator::start(&launcher, None, &standin::log(&directory), (outbox, inbox), first);
        started.map(Migrator::end).expect_err("it says no hello")
    }

    #[test]
    fn one_that_does_not_come_to_work_says_why() {
        assert_eq!(end_of(BROKEN, None), "the migrator ended with exit status 3");
        let stopped = end_of(STOPPED, None);
        assert!(stopped.contains("SIGKILL") && stopped.contains("is stopped"), "{stopped}");
        assert_eq!(end_of(SILENT, Some(Input::Cancel)), "cancelled");
        assert_eq!(end_of(SILENT, Some(Input::Abort)), "cancelled");
        let absent = Launcher::new("/nonexistent".into(), quasar_abi::control::Transport::Socket);
        let log = tempfile::tempfile().expect("log");
        let absent = Migrator::try_out(&absent, &log).expect_err("there is none");
        assert!(absent.contains("cannot be started: /nonexistent/quasar-migrator"), "{absent}");
    }
}
