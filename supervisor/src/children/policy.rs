//! What happens when a child dies or cannot be started: a function of what happened before, of what died, and of the
//! time.
//!
//! Giving up is not final for what can be replaced: tries become rarer, without end, and everyone is told meanwhile.

use std::time::Duration;

/// Deaths in a row from which on a process is troubled: that is shown, and what needs it is paused until it serves.
pub const MANY: u32 = 6;
/// Who has lived for so long is forgiven all deaths before.
pub const FORGIVEN: Duration = Duration::from_secs(60);
/// And for each time that it has lived so long, one of them: somebody who kills one now and then waits for none.
const STEADY: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Until a start is tried again for which the host had no room.
const FIRST_ROOM: Duration = Duration::from_millis(100);
const LONGEST_ROOM: Duration = Duration::from_secs(5);

/// Whether a process of this role can be replaced by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its state lies in shared memory or is told it again: another one goes on.
    Replaceable,
    /// What it had not published is lost with it.
    Irreplaceable,
    /// It does one thing for one owner, who decides what its death means.
    Once,
}

/// What has become of the processes at one place so far. Times are since the owner's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Deaths in a row of processes that did not live long.
    deaths: u32,
    /// When the last successor was due.
    due: Option<Duration>,
    /// Starts in a row for which the host had no room.
    refusals: u32,
    /// Replaced, all in all.
    total: u64,
}

impl History {
    /// Restarts ever.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether processes here die again and again.
    #[must_use]
    pub fn is_troubled(&self) -> bool {
        self.deaths >= MANY
    }

    /// Deaths in a row.
    #[must_use]
    pub fn deaths(&self) -> u32 {
        self.deaths
    }

    /// One has come to serve.
    #[must_use]
    pub fn served(&self) -> Self {
        Self { refusals: 0, ..self.clone() }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start another one after this time.
    Restart {
        /// From now.
        after: Duration,
    },
    /// Leave it: the VM is paused and reported.
    GiveUp {
        /// Why, in words that continue "… ended and ".
        why: String,
    },
}

/// `first`, doubled each time, and never more than `longest`.
fn delay(times: u32, first: Duration, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

/// Decides about a process of `role` that died at `now`.
#[must_use]
pub fn decide(history: &History, role: Role, now: Duration) -> (History, Decision) {
    let lost = match role {
        Role::Replaceable => None,
        Role::Irreplaceable => Some("its unpublished state is lost, so that it cannot be replaced"),
        Role::Once => Some("what it was at is over"),
    };
    if let Some(why) = lost {
        return (history.clone(), Decision::GiveUp { why: why.to_owned() });
    }
    let before = history.due.map_or(0, |due| {
        let lived = now.saturating_sub(due);
        let forgiven = u32::try_from(lived.as_secs() / STEADY.as_secs()).unwrap_or(u32::MAX);
        if lived >= FORGIVEN { 0 } else { history.deaths.saturating_sub(forgiven) }
    });
    // The first death in a while is replaced at once: the guest waits for it.
    let after = before.checked_sub(1).map_or(Duration::ZERO, |n| delay(n, FIRST_DELAY, LONGEST_DELAY));
    let next = History {
        deaths: before.saturating_add(1),
        due: Some(now.saturating_add(after)),
        total: history.total + 1,
        ..history.clone()
    };
    (next, Decision::Restart { after })
}

/// A process could not be started because the host had no room for it just now: nothing has died. Returns when to try
/// again, from now.
#[must_use]
pub fn postpone(history: &History) -> (History, Duration) {
    let after = delay(history.refusals, FIRST_ROOM, LONGEST_ROOM);
    (History { refusals: history.refusals.saturating_add(1), ..history.clone() }, after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn deaths(at: &[u64]) -> (History, Vec<Duration>) {
        let mut history = History::default();
        let decisions = at.iter().map(|second| {
            let (next, decision) = decide(&history, Role::Replaceable, Duration::from_secs(*second));
            history = next;
            match decision {
                Decision::Restart { after } => after,
                Decision::GiveUp { why } => panic!("given up: {why}"),
            }
        });
        let decisions = decisions.collect();
        (history, decisions)
    }

    #[test]
    fn tries_become_rarer_without_end() {
        let ms = |all: &[u64]| all.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        let (history, delays) = deaths(&[1; 14]);
        assert_eq!(delays[..6], ms(&[0, 50, 100, 200, 400, 800]));
        assert_eq!(delays[10..], ms(&[25_600, 30_000, 30_000, 30_000]));
        assert!(history.is_troubled() && history.total() == 14);
        assert!(!deaths(&[1; 5]).0.is_troubled());
    }

    #[test]
    fn who_has_lived_long_is_forgiven() {
        assert_eq!(deaths(&[1, 100, 200, 300, 400, 500, 600]).1, vec![Duration::ZERO; 7]);
        let (history, delays) = deaths(&[0, 0, 0, 0, 0, 0, 0, 70]);
        assert_eq!(delays.last(), Some(&Duration::ZERO));
        assert!(!history.is_troubled());
        // It counts from when the last one was started, not from when the one before it died.
        let (history, _) = deaths(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60]);
        assert!(history.is_troubled());
        // One that is killed now and then is replaced at once each time.
        let now_and_then: Vec<u64> = (0..40).map(|n| n * 12).collect();
        assert_eq!(deaths(&now_and_then).1, vec![Duration::ZERO; 40]);
    }

    #[test]
    fn a_hart_is_not_replaced_and_restarts_are_counted() {
        let (history, decision) = decide(&History::default(), Role::Irreplaceable, Duration::ZERO);
        assert!(matches!(decision, Decision::GiveUp { .. }));
        assert_eq!(history.total(), 0);
        assert_eq!(decide(&history, Role::Replaceable, FORGIVEN).0.total(), 1);
    }

    #[test]
    fn a_host_without_room_costs_time_alone() {
        let mut history = decide(&History::default(), Role::Replaceable, Duration::ZERO).0;
        let before = history.clone();
        for n in 0..20 {
            let (next, after) = postpone(&history);
            assert_eq!(after, Duration::from_millis(100 << n.min(10)).min(LONGEST_ROOM));
            history = next;
        }
        assert_eq!(history.served(), before);
    }

    proptest! {
        /// Whatever happens, a process that can be replaced is tried again, within the longest delay, and the delay
        /// grows with the deaths in a row.
        #[test]
        fn a_process_that_can_be_replaced_is_never_given_up(gaps in prop::collection::vec(0_u64..200, 1..40)) {
            let (mut history, mut now) = (History::default(), Duration::ZERO);
            for gap in gaps {
                now += Duration::from_secs(gap);
                let before = history.clone();
                let (next, decision) = decide(&history, Role::Replaceable, now);
                let Decision::Restart { after } = decision else { panic!("given up") };
                prop_assert!(after <= LONGEST_DELAY);
                prop_assert!((1..=before.deaths() + 1).contains(&next.deaths()));
                prop_assert_eq!(next.deaths() == 1, after.is_zero());
                prop_assert_eq!(next.total(), before.total() + 1);
                history = next;
                now += after;
            }
        }
    }
}
