//! A migrator process on one journey, bound to the thread that owns it.

use crate::children::trouble::explain;
use crate::children::watch::{self, Look, Verdict, Watch};
use crate::children::{Launcher, Note, Process, Reach};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use quasar_abi::control::migrator::{self, MigrationEvent, MigratorCommand, MigratorRefusal, MigratorReply};
use quasar_abi::control::{Event, ProcessKind};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Time for the process to say hello.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Time for it to end when it was asked to.
const END_DEADLINE: Duration = Duration::from_secs(5);

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
    process: Process<migrator::Migrator>,
    inbox: Receiver<Input>,
    journey: u64,
    gone: bool,
    /// What it said of its own death.
    last_words: Option<String>,
    watch: Watch,
    begun: Instant,
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
        let program = launcher.program(ProcessKind::Migrator);
        let notify = move |note| drop(outbox.send(Input::Note(note)));
        let peer = peer.map(|fd| ("--peer-fd", fd));
        let mut process = Process::spawn_with(launcher, peer, log, notify).map_err(|error| {
            format!("the migrator cannot be started: {}: {}", program.display(), explain(&error))
        })?;
        let by = Instant::now() + START_DEADLINE;
        loop {
            match inbox.recv_timeout(by.saturating_duration_since(Instant::now())) {
                Ok(Input::Note(Note::Hello(_, sender))) => {
                    process.greeted(sender);
                    let sent = process.send(first);
                    let journey = sent.map_err(|error| format!("the migrator: {error}"))?;
                    return Ok(Self {
                        process,
                        inbox,
                        journey,
                        gone: false,
                        last_words: None,
                        watch: Watch::default(),
                        begun: Instant::now(),
                    });
                }
                Ok(Input::Note(Note::Garbled(what))) => return Err(format!("the migrator said {what}")),
                Ok(Input::Note(Note::Ended(how))) => return Err(format!("the migrator {how}")),
                Ok(Input::Cancel | Input::Abort) => return Err("cancelled".into()),
                Ok(Input::Note(Note::Event(Event::Fatal(text)))) => {
                    return Err(format!("the migrator: {text}"));
                }
                Ok(Input::Note(Note::Event(_))) => {}
                Err(_) => return Err(format!("the migrator was not ready within {START_DEADLINE:?}")),
            }
        }
    }

    /// Starts a migrator, hears its hello and ends it: whether its program is of use.
    ///
    /// # Errors
    /// In words for people.
    pub fn try_out(launcher: &Launcher, log: &File) -> Result<(), String> {
        Self::start(launcher, None, log, inputs(), MigratorCommand::Shutdown).map(Self::wait)
    }

    /// How others reach its process.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.process.reach()
    }

    /// Sends a further command. One that cannot be sent shows as the process's end.
    pub fn tell(&mut self, command: MigratorCommand) {
        if let Err(error) = self.process.send(command) {
            log::warn!("migrator: {error}; it is killed");
            self.process.kill();
        }
    }

    /// Hangs are deaths: kills a migrator that is stopped. Returns why.
    pub fn look(&mut self) -> Option<String> {
        let (state, cpu) = watch::observe(self.process.pid())?;
        let look = Look { now: self.begun.elapsed(), state, cpu, owes: false, done: 0 };
        match self.watch.look(&look, watch::PATIENCE) {
            Verdict::Hangs(why) => {
                log::warn!("a migrator (process {}) {why}; it is killed", self.process.pid());
                self.process.kill();
                Some(why)
            }
            Verdict::Well => None,
        }
    }

    /// Waits for what comes next, and carries out what users order meanwhile.
    pub fn hear(&mut self, patience: Duration) -> Heard {
        match self.inbox.recv_timeout(patience) {
            Ok(Input::Note(Note::Event(Event::News(event)))) => Heard::Migration(event),
            Ok(Input::Note(Note::Event(Event::Done { id, reply }))) => {
                self.process.answered();
                if id == self.journey { Heard::Done(reply) } else { Heard::Nothing }
            }
            Ok(Input::Note(Note::Event(Event::Refused { id, refusal }))) => {
                self.process.answered();
                if id == self.journey { Heard::Failed(refusal) } else { Heard::Nothing }
            }
            Ok(Input::Note(Note::Event(Event::Fatal(text)))) => {
                // It ends by itself, or hangs while it does.
                self.process.kill();
                self.last_words = Some(text);
                Heard::Nothing
            }
            Ok(Input::Note(Note::Event(Event::Notice(text)))) => {
                log::warn!("migrator: {text}");
                Heard::Nothing
            }
            Ok(Input::Note(Note::Garbled(what))) => {
                log::warn!("a migrator sent something that is no event: {what}");
                Heard::Nothing
            }
            Ok(Input::Note(Note::Ended(how))) => {
                self.gone = true;
                Heard::Died(match self.last_words.take() {
                    Some(words) => format!("{how}: {words}"),
                    None => how,
                })
            }
            Ok(Input::Note(_)) | Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Ok(Input::Cancel) => {
                self.tell(MigratorCommand::Cancel);
                Heard::Nothing
            }
            Ok(Input::Abort) => {
                self.process.kill();
                Heard::Nothing
            }
            Err(RecvTimeoutError::Disconnected) => Heard::Died("is not heard any more".into()),
        }
    }

    /// Ends the process and waits until it has gone: it holds the VM's memory.
    pub fn end(mut self) {
        if !self.gone {
            self.tell(MigratorCommand::Shutdown);
        }
        self.wait();
    }

    fn wait(mut self) {
        let mut by = Instant::now() + END_DEADLINE;
        while !self.gone {
            if Instant::now() >= by {
                self.process.kill();
                by = Instant::now() + END_DEADLINE;
            }
            self.hear(by.saturating_duration_since(Instant::now()));
        }
    }
}
