//! Hangs are deaths: who is watched, and when it is taken for dead although its process exists.
//!
//! A process that is stopped (SIGSTOP) does nothing for anybody. One that owes an answer and neither works nor wants
//! to is hung: its processor time stands still although nobody keeps it from running. One that only waits for a turn
//! on a loaded host is neither, and nor is one that owes nothing, such as a hart that sleeps.

use procfs::FromRead;
use procfs::process::Stat;
use std::time::Duration;

/// How often whoever is watched is looked at.
pub const LOOK: Duration = Duration::from_millis(500);
/// For how long somebody may be stopped, or owe an answer without working on it.
pub const PATIENCE: Duration = Duration::from_millis(1500);
/// How many times longer somebody may work on an answer without an end.
const WORK: u32 = 20;

/// What a process does at present (`/proc/PID/stat`, proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is stopped by a signal.
    Stopped,
    /// It runs or waits for a processor.
    Runs,
    /// It waits for something else, a debugger among it.
    Waits,
}

/// A look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When, since any moment.
    pub now: Duration,
    /// What it does.
    pub state: State,
    /// Processor time that it has used, in any unit.
    pub cpu: u64,
    /// Whether somebody waits for it.
    pub owes: bool,
    /// Moves with each thing that it gets done.
    pub done: u64,
}

/// What a look has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong.
    Well,
    /// It does nothing any more, in words that continue "mmu ".
    Hangs(String),
}

/// One process that is watched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    stopped_since: Option<Duration>,
    /// Since when it has owed something without getting anything done, and what it had done by then.
    owing_since: Option<(Duration, u64)>,
    /// Since when that has used no processor time although it could, and the time used by then.
    idle_since: Option<(Duration, u64)>,
}

impl Watch {
    /// Takes another look; nobody may be slower than `patience`.
    pub fn look(&mut self, look: &Look, patience: Duration) -> Verdict {
        let Look { now, state, cpu, owes, done } = *look;
        self.stopped_since = (state == State::Stopped).then(|| self.stopped_since.unwrap_or(now));
        self.owing_since = match self.owing_since {
            _ if !owes => None,
            Some((since, before)) if before == done => Some((since, before)),
            _ => Some((now, done)),
        };
        self.idle_since = match (self.owing_since, self.idle_since) {
            (None, _) => None,
            _ if state == State::Runs => None,
            (Some(_), Some((since, before))) if before == cpu => Some((since, before)),
            _ => Some((now, cpu)),
        };
        let long =
            |since: Option<Duration>, limit| since.is_some_and(|since| now.saturating_sub(since) >= limit);
        let idle = self.idle_since.zip(self.owing_since).map(|((idle, _), (owing, _))| idle.max(owing));
        if long(self.stopped_since, patience) {
            Verdict::Hangs("is stopped (SIGSTOP)".into())
        } else if long(idle, patience) {
            Verdict::Hangs("hangs: it owes an answer and does nothing".into())
        } else if long(self.owing_since.map(|(since, _)| since), patience.saturating_mul(WORK)) {
            Verdict::Hangs("hangs: it owes an answer and comes to no end".into())
        } else {
            Verdict::Well
        }
    }
}

/// Reads what a process does; nothing when it has ended.
#[must_use]
pub fn observe(pid: u32) -> Option<(State, u64)> {
    of(&Stat::from_file(format!("/proc/{pid}/stat")).ok()?)
}

fn of(stat: &Stat) -> Option<(State, u64)> {
    let state = match stat.state {
        'T' => State::Stopped,
        'R' => State::Runs,
        'Z' | 'X' => return None,
        _ => State::Waits,
    };
    Some((state, stat.utime + stat.stime))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK: Duration = Duration::from_millis(500);

    /// The time after which it is taken for dead, looked at every half second.
    fn ends(look: impl Fn(u32) -> Look) -> Option<(Duration, String)> {
        let mut watch = Watch::default();
        (0..200).find_map(|n| match watch.look(&Look { now: TICK * n, ..look(n) }, PATIENCE) {
            Verdict::Hangs(why) => Some((TICK * n, why)),
            Verdict::Well => None,
        })
    }

    const WELL: Look = Look { now: Duration::ZERO, state: State::Waits, cpu: 7, owes: false, done: 3 };

    #[test]
    fn who_owes_nothing_may_sleep_and_who_is_stopped_is_dead() {
        assert_eq!(ends(|_| WELL), None);
        let (at, why) = ends(|_| Look { state: State::Stopped, ..WELL }).expect("stopped");
        assert_eq!(at, PATIENCE);
        assert!(why.contains("stopped"), "{why}");
        // A moment's stop is none.
        assert_eq!(
            ends(|n| Look { state: [State::Stopped, State::Waits][n as usize / 3 % 2], ..WELL }),
            None
        );
    }

    #[test]
    fn who_owes_and_does_nothing_hangs_and_who_waits_for_a_turn_does_not() {
        let owing = Look { owes: true, ..WELL };
        let (at, why) = ends(|_| owing).expect("it hangs");
        assert_eq!(at, PATIENCE);
        assert!(why.contains("does nothing"), "{why}");
        let (at, why) = ends(|_| Look { state: State::Runs, ..owing }).expect("it comes to no end");
        assert_eq!(at, PATIENCE * WORK);
        assert!(why.contains("no end"), "{why}");
        // Some processor time at each look.
        assert_eq!(ends(|n| Look { cpu: n.into(), ..owing }).expect("no end").0, PATIENCE * WORK);
        // It gets things done, slowly.
        assert_eq!(ends(|n| Look { done: u64::from(n / 3), ..owing }), None);
        // New debts each time, and old ones paid.
        assert_eq!(ends(|n| Look { owes: n % 3 > 0, ..owing }), None);
    }

    #[test]
    fn a_line_of_proc_is_read_whatever_the_name_is() {
        let rest = "1 2 3 4 5 6 7 8 9 10 20 22".to_owned() + &" 0".repeat(37);
        let parse =
            |begin: &str| of(&Stat::from_read(format!("7 {begin} {rest}").as_bytes()).expect("a line"));
        assert_eq!(parse("(a) b) T"), Some((State::Stopped, 42)));
        assert_eq!(parse("(a) S"), Some((State::Waits, 42)));
        assert_eq!(parse("(a) R"), Some((State::Runs, 42)));
        assert_eq!(parse("(a) t"), Some((State::Waits, 42)), "a debugger's");
        assert_eq!(parse("(a) Z"), None);
        assert!(observe(std::process::id()).is_some());
        assert!(observe(u32::MAX).is_none());
    }

    fn state() -> impl Strategy<Value = State> {
        prop_oneof![Just(State::Stopped), Just(State::Runs), Just(State::Waits)]
    }

    proptest! {
        /// Nobody is taken for dead who was neither stopped nor in debt for as long as the patience lasts.
        #[test]
        fn nobody_is_dead_without_a_reason(looks in prop::collection::vec((state(), 0_u64..3, any::<bool>(), 0_u64..3), 1..60)) {
            let mut watch = Watch::default();
            let all: Vec<Look> = looks.iter().zip(0_u32..).map(|((state, cpu, owes, done), n)| {
                Look { now: TICK * n, state: *state, cpu: *cpu, owes: *owes, done: *done }
            }).collect();
            for (n, look) in all.iter().enumerate() {
                if let Verdict::Hangs(why) = watch.look(look, PATIENCE) {
                    let since = |held: &dyn Fn(&Look) -> bool| {
                        let first = all[..=n].iter().rev().take_while(|look| held(look)).last();
                        first.is_some_and(|first| look.now - first.now >= PATIENCE)
                    };
                    let stopped = since(&|look| look.state == State::Stopped);
                    prop_assert!(stopped || since(&|look| look.owes), "{why} at look {n}");
                }
            }
        }
    }
}
