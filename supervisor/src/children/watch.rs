//! Hangs are deaths: who is watched, and when it is taken for dead although its process exists.
//!
//! A process that is stopped (SIGSTOP) does nothing for anybody. One that owes something and neither works nor wants to
//! is hung: its processor time stands still although nothing keeps it from running. One that works on what it owes for
//! much longer than any of it takes goes round in a circle. One that only waits for its turn on a loaded host, or for a
//! disk, is none of these, and nor is one that owes nothing, such as a hart that sleeps.
//!
//! Time counts between looks that follow one another: whoever looks and was itself kept from running sees a gap, which
//! says nothing about the process.

use procfs::FromRead;
use procfs::process::Stat;
use std::path::Path;
use std::time::Duration;

/// How often whoever is watched is looked at: who does nothing is found within 1.8 s.
pub const LOOK: Duration = Duration::from_millis(300);
/// Most that counts as the time between two looks.
const LONGEST_GAP: Duration = Duration::from_secs(1);
/// For how long somebody may be stopped, or owe something without working on it, unless it is said otherwise.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// What a process does at present (`/proc/PID/stat`, proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is stopped by a signal.
    Stopped,
    /// One of its threads runs, or waits for a processor or a disk.
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
    /// Processor time that it has used.
    pub cpu: Duration,
    /// Whether somebody waits for it.
    pub owes: bool,
    /// Moves with each thing that it gets done.
    pub done: u64,
}

/// How long what may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Being stopped, and owing something without working on it.
    pub idle: Duration,
    /// Owing something, in processor time that is spent meanwhile.
    pub work: Duration,
    /// Owing something, whatever happens.
    pub all: Duration,
}

impl Limits {
    /// For commands, which wait for a disk at the most.
    #[must_use]
    pub const fn commands(patience: Duration) -> Self {
        Self { idle: patience, work: patience.saturating_mul(2), all: patience.saturating_mul(20) }
    }

    /// For the loop that serves guests, each of whose turns takes some microseconds.
    #[must_use]
    pub const fn service(patience: Duration) -> Self {
        Self { idle: patience, work: patience.saturating_mul(2), all: patience.saturating_mul(4) }
    }

    /// For a journey, which waits for a peer, and gives that up by itself sooner than this; it tells of its progress.
    #[must_use]
    pub const fn journey(patience: Duration) -> Self {
        Self { idle: patience.saturating_mul(20), work: Duration::MAX, all: Duration::MAX }
    }
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    last: Option<Look>,
    stopped: Duration,
    /// For how long it has owed something without getting anything done.
    owing: Duration,
    /// Processor time used in that time.
    worked: Duration,
    /// For how long it has not even worked then.
    idle: Duration,
}

impl Watch {
    /// Takes another look; nobody may be slower than `limits`.
    pub fn look(&mut self, look: &Look, limits: Limits) -> Verdict {
        let last = self.last.replace(*look).unwrap_or(*look);
        let gap = look.now.saturating_sub(last.now).min(LONGEST_GAP);
        let both = |what: fn(&Look) -> bool| what(look) && what(&last);
        let so_far = |before: Duration, holds: bool, more: Duration| {
            if holds { before + more } else { Duration::ZERO }
        };

        let owes = both(|look| look.owes) && look.done == last.done;
        let idles = owes && look.cpu == last.cpu && both(|look| look.state != State::Runs);
        self.stopped = so_far(self.stopped, both(|look| look.state == State::Stopped), gap);
        self.owing = so_far(self.owing, owes, gap);
        self.worked = so_far(self.worked, owes, look.cpu.saturating_sub(last.cpu));
        self.idle = so_far(self.idle, idles, gap);

        if self.stopped >= limits.idle {
            Verdict::Hangs("is stopped (SIGSTOP)".into())
        } else if self.idle >= limits.idle {
            Verdict::Hangs("hangs: it is waited for and does nothing".into())
        } else if self.worked >= limits.work || self.owing >= limits.all {
            Verdict::Hangs("hangs: it is waited for and comes to no end".into())
        } else {
            Verdict::Well
        }
    }
}

/// Reads what a process does; nothing when it has ended.
#[must_use]
pub fn observe(pid: u32) -> Option<(State, Duration)> {
    let stat = stat(format!("/proc/{pid}/stat"))?;
    let state = match stat.state {
        'T' => State::Stopped,
        'Z' | 'X' => return None,
        state if is_busy(state) || has_busy_thread(pid) => State::Runs,
        _ => State::Waits,
    };
    let ticks = u32::try_from(stat.utime.saturating_add(stat.stime)).unwrap_or(u32::MAX);
    Some((state, TICK.saturating_mul(ticks)))
}

fn stat(path: impl AsRef<Path>) -> Option<Stat> {
    Stat::from_file(path).ok()
}

/// It runs or wants to, or waits for a disk without being interruptible.
const fn is_busy(state: char) -> bool {
    matches!(state, 'R' | 'D')
}

fn has_busy_thread(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| stat(thread.path().join("stat"))).any(|stat| is_busy(stat.state))
}

/// The unit of times in `/proc`: USER_HZ is 100 on all of our hosts (proc(5), `sysconf(_SC_CLK_TCK)`).
const TICK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TURN: Duration = Duration::from_millis(500);
    const LIMITS: Limits = Limits::commands(PATIENCE);

    /// The time after which it is taken for dead, looked at every half second.
    fn ends(look: impl Fn(u32) -> Look) -> Option<(Duration, String)> {
        let mut watch = Watch::default();
        (0..200).find_map(|n| match watch.look(&Look { now: TURN * n, ..look(n) }, LIMITS) {
            Verdict::Hangs(why) => Some((TURN * n, why)),
            Verdict::Well => None,
        })
    }

    const MS: Duration = Duration::from_millis(1);
    const WELL: Look = Look { now: Duration::ZERO, state: State::Waits, cpu: MS, owes: false, done: 3 };

    #[test]
    fn who_owes_nothing_may_sleep_and_who_is_stopped_is_dead() {
        assert_eq!(ends(|_| WELL), None);
        let (at, why) = ends(|_| Look { state: State::Stopped, ..WELL }).expect("stopped");
        assert_eq!(at, PATIENCE);
        assert!(why.contains("stopped"), "{why}");
        // A moment's stop is none.
        let flickers = |n: u32| [State::Stopped, State::Waits][n as usize / 3 % 2];
        assert_eq!(ends(|n| Look { state: flickers(n), ..WELL }), None);
    }

    #[test]
    fn who_owes_and_does_nothing_hangs_and_who_waits_for_a_turn_does_not() {
        let owing = Look { owes: true, ..WELL };
        let (at, why) = ends(|_| owing).expect("it hangs");
        assert_eq!(at, PATIENCE);
        assert!(why.contains("does nothing"), "{why}");
        let (at, why) = ends(|_| Look { state: State::Runs, ..owing }).expect("it comes to no end");
        assert_eq!(at, LIMITS.all, "it wants to, and is not let");
        assert!(why.contains("no end"), "{why}");
        // It works for a tenth of the time, and for all of it.
        assert_eq!(ends(|n| Look { cpu: MS * 50 * n, ..owing }).expect("no end").0, LIMITS.all);
        let (at, why) = ends(|n| Look { cpu: TURN * n, ..owing }).expect("a circle");
        assert_eq!(at, LIMITS.work);
        assert!(why.contains("no end"), "{why}");
        // It gets things done, slowly.
        assert_eq!(ends(|n| Look { done: u64::from(n / 3), ..owing }), None);
        // New debts each time, and old ones paid.
        assert_eq!(ends(|n| Look { owes: n % 3 > 0, ..owing }), None);
    }

    #[test]
    fn a_watcher_that_was_away_has_seen_nothing() {
        let (owing, mut watch) = (Look { owes: true, ..WELL }, Watch::default());
        let at = |seconds| Look { now: Duration::from_secs(seconds), ..owing };
        assert_eq!(watch.look(&at(0), LIMITS), Verdict::Well);
        assert_eq!(watch.look(&at(100), LIMITS), Verdict::Well, "an hour's absence counts for a second");
        assert!(matches!(watch.look(&at(200), LIMITS), Verdict::Hangs(_)));
    }

    #[test]
    fn one_thread_that_works_is_enough() {
        let own = std::process::id();
        let (stop, seen) = (std::sync::atomic::AtomicBool::new(false), std::sync::atomic::Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(seen) {
                    std::hint::spin_loop();
                }
            });
            let state = observe(own).map(|(state, _)| state);
            stop.store(true, seen);
            assert_eq!(state, Some(State::Runs));
        });
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
        let waits = |_| observe(child.id()).is_some_and(|(state, _)| state == State::Waits).then_some(());
        let found = (0..1000).find_map(|n| {
            waits(n).or_else(|| {
                std::thread::sleep(MS);
                None
            })
        });
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert_eq!(found, Some(()));
        assert_eq!(observe(child.id()), None, "it has ended");
        assert_eq!(observe(u32::MAX), None);
    }

    fn state() -> impl Strategy<Value = State> {
        prop_oneof![Just(State::Stopped), Just(State::Runs), Just(State::Waits)]
    }

    proptest! {
        /// Nobody is taken for dead who was neither stopped nor in debt for as long as the patience lasts.
        #[test]
        fn nobody_is_dead_without_a_reason(looks in prop::collection::vec((state(), 0_u32..3, any::<bool>(), 0_u64..3), 1..60)) {
            let mut watch = Watch::default();
            let all: Vec<Look> = looks.iter().zip(0_u32..).map(|((state, cpu, owes, done), n)| {
                Look { now: TURN * n, state: *state, cpu: MS * *cpu, owes: *owes, done: *done }
            }).collect();
            for (n, look) in all.iter().enumerate() {
                if let Verdict::Hangs(why) = watch.look(look, LIMITS) {
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
