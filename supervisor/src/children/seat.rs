//! A seat: one place at which a process is kept, whatever program it is. A machine without processes: it is told what
//! has happened and says what its owner is to do.
//!
//! Everything that a supervisor keeps alive sits in one: a VM's harts, mmu and devices, the switch, the programs behind
//! ways out, the migrators. What differs is the [`Role`].

use super::policy::{Decision, History, Role, decide, postpone};
use super::watch::{Limits, Look, Verdict, Watch};
use std::time::Duration;

/// Time for a process to come to serve.
pub const START_DEADLINE: Duration = Duration::from_secs(20);
/// Time for one to end when it was asked to; after it, it is killed.
pub const END_DEADLINE: Duration = Duration::from_secs(5);

/// How far the process at a seat is. Times are since the owner's start.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none, and none is to come.
    Vacant,
    /// It was started.
    Starting { by: Duration },
    /// It works.
    Serving,
    /// It is to end. `asked`: and was told to, in vain so far.
    Ending { by: Duration, asked: bool },
    /// There is none, and one will be started.
    Due { at: Duration },
}

/// What happens at a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process is wanted there, now.
    Wanted,
    /// None is wanted there any more.
    Unwanted,
    /// It was started.
    Started,
    /// It could not be started.
    NotStarted {
        /// Why, in words that continue "mmu ".
        why: String,
        /// The host had no room for it just now.
        passing: bool,
    },
    /// It takes commands.
    Hello,
    /// It has done all that it is to do before it works.
    Serves,
    /// It has refused that.
    Refused {
        /// Why.
        why: String,
        /// The host had no room for it just now.
        passing: bool,
    },
    /// It says that it ends, and why. Whether it still can is not waited for.
    Fatal(String),
    /// It said something that is not understood.
    Garbled(String),
    /// A command could not be sent to it.
    Unreachable(String),
    /// Its process has ended, and how.
    Ended(String),
    /// It was looked at.
    Look {
        /// What it owes to its owner.
        commands: Look,
        /// What it owes to others.
        service: Option<Look>,
    },
    /// Time has passed.
    Tick,
    /// Whoever would be started later shall be started now.
    TryNow,
}

/// What a seat's owner does, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a process, and tell [`Event::Started`] or [`Event::NotStarted`].
    Start,
    /// Have it do what it is to do before it works.
    Attach,
    /// Ask it to end.
    ShutDown,
    /// Kill it.
    Kill,
    /// Nobody is there any more: let go of what belongs to the process.
    Vacate,
    /// Its state is worth telling.
    Tell(Told),
}

/// What becomes known of a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It serves.
    Serving,
    /// It has ended, as it was to.
    Ended,
    /// It has died.
    Died {
        /// In what way.
        how: String,
        /// Why nobody takes its place, when nobody does.
        fatal: Option<String>,
    },
    /// Something for people, in words that continue "mmu ".
    Notice(String),
}

/// The state of a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    role: Role,
    limits: [Limits; 2],
    stage: Stage,
    history: History,
    /// The last thing that was learnt about its end.
    words: Option<String>,
    /// It said itself that it cannot serve.
    is_refusal: bool,
    /// Because the host had no room for it.
    is_shortage: bool,
    /// Since when the host has had no room for it.
    refused_since: Option<Duration>,
    /// Whether one has ever served here.
    has_served: bool,
    watches: [Watch; 2],
    /// Why it does nothing, as long as nobody can stand in for it.
    stuck: Option<String>,
}

impl Seat {
    /// A seat without a process. Who is watched may do nothing for as long as `patience`.
    #[must_use]
    pub fn new(role: Role, patience: Duration) -> Self {
        let service = if role == Role::Once { Limits::journey(patience) } else { Limits::service(patience) };
        Self {
            role,
            limits: [Limits::commands(patience), service],
            stage: Stage::Vacant,
            history: History::default(),
            words: None,
            is_refusal: false,
            is_shortage: false,
            refused_since: None,
            has_served: false,
            watches: Default::default(),
            stuck: None,
        }
    }

    /// Takes an event at `now`, a time since the owner's start.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match event {
            Event::Wanted => match self.stage {
                Stage::Vacant | Stage::Due { .. } => self.start(now),
                _ => vec![],
            },
            Event::Unwanted => self.end(now),
            Event::Started => vec![],
            Event::NotStarted { why, passing: true } if self.may_wait_for_room(now) => {
                let first = self.refused_since.is_none();
                self.wait_for_room(now);
                let notice = format!("cannot be started now, and is tried again: {why}");
                first.then_some(Action::Tell(Told::Notice(notice))).into_iter().collect()
            }
            Event::NotStarted { why, .. } => self.died(format!("cannot be started: {why}"), now),
            Event::Hello => match self.stage {
                Stage::Starting { .. } => vec![Action::Attach],
                Stage::Ending { .. } => vec![Action::Kill],
                _ => vec![],
            },
            Event::Serves => match self.stage {
                Stage::Starting { .. } => {
                    self.stage = Stage::Serving;
                    self.history = self.history.served();
                    (self.refused_since, self.has_served) = (None, true);
                    vec![Action::Tell(Told::Serving)]
                }
                _ => vec![],
            },
            Event::Refused { why, passing } => match self.stage {
                Stage::Starting { .. } => {
                    (self.words, self.is_refusal, self.is_shortage) = (Some(why), true, passing);
                    vec![Action::Kill]
                }
                _ => vec![],
            },
            Event::Fatal(text) | Event::Unreachable(text) => self.kill(text),
            Event::Garbled(what) => {
                self.words = Some(what.clone());
                vec![Action::Tell(Told::Notice(format!("sent something that is no event: {what}")))]
            }
            Event::Ended(how) => self.ended(&how, now),
            Event::Look { commands, service } => self.look(&commands, service.as_ref()),
            Event::Tick => self.tick(now),
            Event::TryNow => {
                if let Stage::Due { at } = &mut self.stage {
                    *at = now;
                }
                vec![]
            }
        }
    }

    fn start(&mut self, now: Duration) -> Vec<Action> {
        (self.words, self.stuck) = (None, None);
        (self.is_refusal, self.is_shortage) = (false, false);
        self.watches = Default::default();
        self.stage = Stage::Starting { by: now + START_DEADLINE };
        vec![Action::Start]
    }

    fn end(&mut self, now: Duration) -> Vec<Action> {
        match self.stage {
            Stage::Vacant | Stage::Due { .. } => {
                self.stage = Stage::Vacant;
                vec![]
            }
            Stage::Ending { .. } => vec![],
            Stage::Starting { .. } | Stage::Serving => {
                self.stage = Stage::Ending { by: now + END_DEADLINE, asked: true };
                vec![Action::ShutDown]
            }
        }
    }

    fn kill(&mut self, words: String) -> Vec<Action> {
        if let Stage::Ending { asked, .. } = &mut self.stage {
            *asked = false;
        }
        self.words = Some(words);
        if self.has_process() { vec![Action::Kill] } else { vec![] }
    }

    /// Whether a start for which the host has no room is tried again: always where one served before, for some time
    /// where none has.
    fn may_wait_for_room(&self, now: Duration) -> bool {
        let waited = |since: Duration| now.saturating_sub(since);
        self.has_served || self.refused_since.is_none_or(|since| waited(since) < START_DEADLINE)
    }

    fn wait_for_room(&mut self, now: Duration) {
        let (history, after) = postpone(&self.history);
        self.refused_since.get_or_insert(now);
        (self.history, self.stage) = (history, Stage::Due { at: now + after });
    }

    fn ended(&mut self, how: &str, now: Duration) -> Vec<Action> {
        let words = self.words.take();
        match self.stage {
            Stage::Vacant | Stage::Due { .. } => vec![],
            Stage::Ending { .. } => {
                self.stage = Stage::Vacant;
                vec![Action::Vacate, Action::Tell(Told::Ended)]
            }
            Stage::Starting { .. } if self.is_shortage && self.may_wait_for_room(now) => {
                let first = self.refused_since.is_none();
                self.wait_for_room(now);
                let why = words.unwrap_or_default();
                let notice = Told::Notice(format!("cannot work now, and is tried again: {why}"));
                [Action::Vacate].into_iter().chain(first.then_some(Action::Tell(notice))).collect()
            }
            Stage::Starting { .. } | Stage::Serving => {
                let how = match words {
                    // That it was killed then says nothing.
                    Some(words) if self.is_refusal => format!("cannot serve: {words}"),
                    Some(words) => format!("{how}: {words}"),
                    None => how.to_owned(),
                };
                self.died(how, now)
            }
        }
    }

    fn died(&mut self, how: String, now: Duration) -> Vec<Action> {
        let (history, decision) = decide(&self.history, self.role, now);
        self.history = history;
        let fatal = match decision {
            Decision::Restart { after } => {
                self.stage = Stage::Due { at: now + after };
                None
            }
            Decision::GiveUp { why } => {
                self.stage = Stage::Vacant;
                Some(why)
            }
        };
        vec![Action::Vacate, Action::Tell(Told::Died { how, fatal })]
    }

    /// Hangs are deaths. A hart cannot be replaced: of one that hangs people are told, as long as it is not to end.
    fn look(&mut self, commands: &Look, service: Option<&Look>) -> Vec<Action> {
        if !self.has_process() {
            return vec![];
        }
        // Who starts owes that; who is to end may wait for a slow disk until its time is over.
        let (serves, starts) = (self.is_serving(), self.is_starting());
        let commands = Look { owes: starts || (commands.owes && serves), ..*commands };
        let looks = [(Some(commands), true), (service.copied(), serves)];
        let mut hangs = None;
        for (((look, owes), limits), watch) in looks.into_iter().zip(self.limits).zip(&mut self.watches) {
            let Some(look) = look else { continue };
            let look = Look { owes: look.owes && owes, ..look };
            if let Verdict::Hangs(why) = watch.look(&look, limits) {
                hangs.get_or_insert(why);
            }
        }
        let Some(why) = hangs else {
            self.stuck = None;
            return vec![];
        };
        match (self.role, &self.stage) {
            // One that starts has done nothing yet.
            (Role::Irreplaceable, Stage::Serving) => {
                self.stuck = Some(why);
                vec![]
            }
            // It is killed already, or about to go.
            _ if self.words.as_ref() == Some(&why) => vec![Action::Kill],
            _ => {
                let notice = Action::Tell(Told::Notice(format!("{why}; it is killed")));
                [notice].into_iter().chain(self.kill(why)).collect()
            }
        }
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        match &mut self.stage {
            Stage::Due { at } if *at <= now => self.start(now),
            Stage::Starting { by } if *by <= now => {
                *by = now + START_DEADLINE;
                self.words.get_or_insert_with(|| format!("it did not serve within {START_DEADLINE:?}"));
                vec![Action::Kill]
            }
            Stage::Ending { by, asked } if *by <= now => {
                *by = now + END_DEADLINE;
                let text = format!("did not end within {END_DEADLINE:?} and was killed");
                let told = std::mem::take(asked).then_some(Action::Tell(Told::Notice(text)));
                [Action::Kill].into_iter().chain(told).collect()
            }
            _ => vec![],
        }
    }

    /// When [`Event::Tick`] is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match self.stage {
            Stage::Starting { by } | Stage::Ending { by, .. } => Some(by),
            Stage::Due { at } => Some(at),
            Stage::Vacant | Stage::Serving => None,
        }
    }

    /// Whether there is a process, or one is being started.
    #[must_use]
    pub fn has_process(&self) -> bool {
        !matches!(self.stage, Stage::Vacant | Stage::Due { .. })
    }

    /// Whether there is none, and none will come.
    #[must_use]
    pub fn is_vacant(&self) -> bool {
        self.stage == Stage::Vacant
    }

    /// Whether there is none, and one will come.
    #[must_use]
    pub fn is_due(&self) -> bool {
        matches!(self.stage, Stage::Due { .. })
    }

    /// Whether it works.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.stage == Stage::Serving
    }

    /// Whether it was started and does not work yet.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Starting { .. })
    }

    /// Whether nobody can do the work of this seat for some time.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.is_due() && (self.refused_since.is_some() || self.history.is_troubled())
    }

    /// Why it does nothing, when nobody can take its place.
    #[must_use]
    pub fn stuck(&self) -> Option<&str> {
        self.stuck.as_deref()
    }

    /// What became of the processes here.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What is wrong with `who` sits here, if nobody else can do the work now; nothing mostly.
    #[must_use]
    pub fn trouble(&self, who: &str, now: Duration) -> Option<String> {
        match self.stage {
            Stage::Due { .. } if self.refused_since.is_some() => {
                Some(format!("{who} waits for room on this host"))
            }
            Stage::Due { at } if self.history.is_troubled() => {
                let (deaths, seconds) = (self.history.deaths(), at.saturating_sub(now).as_secs() + 1);
                Some(format!(
                    "{who} has died {deaths} times in a row, and is started again in {seconds} s (`quasar resume`: now)"
                ))
            }
            _ => self.stuck.as_ref().map(|why| format!("{who} {why}")),
        }
    }
}

#[cfg(test)]
mod tests;
