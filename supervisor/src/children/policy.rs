//! What happens when a child dies: a function of what happened before, of what died, and of the time.

use std::time::Duration;

/// Restarts that are allowed within [`WINDOW`].
pub const MAX_RESTARTS: usize = 5;
/// The span over which restarts are counted.
pub const WINDOW: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Whether a process of this role can be replaced by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its state lies in shared memory or is told it again: another one goes on.
    Replaceable,
    /// What it had not published is lost with it.
    Irreplaceable,
}

/// The restarts of one process so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When, since the owner's start; oldest first, within [`WINDOW`] of the last.
    restarts: Vec<Duration>,
    /// All of them.
    total: u64,
}

impl History {
    /// Restarts ever.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
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

/// Decides about a process of `role` that died at `now` (since the owner's start).
#[must_use]
pub fn decide(history: &History, role: Role, now: Duration) -> (History, Decision) {
    if role == Role::Irreplaceable {
        let why = "its unpublished state is lost, so that it cannot be replaced".to_owned();
        return (history.clone(), Decision::GiveUp { why });
    }
    let recent: Vec<_> =
        history.restarts.iter().copied().filter(|t| now.saturating_sub(*t) < WINDOW).collect();
    if recent.len() >= MAX_RESTARTS {
        let why = format!("has been replaced {MAX_RESTARTS} times within {} s already", WINDOW.as_secs());
        return (History { restarts: recent, total: history.total }, Decision::GiveUp { why });
    }
    // The first death in a while is replaced at once: the guest waits for it.
    let after = match u32::try_from(recent.len()) {
        Ok(0) => Duration::ZERO,
        Ok(n) => FIRST_DELAY.saturating_mul(1 << (n - 1).min(16)).min(LONGEST_DELAY),
        Err(_) => LONGEST_DELAY,
    };
    let restarts = recent.into_iter().chain([now]).collect();
    (History { restarts, total: history.total + 1 }, Decision::Restart { after })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deaths(at: &[u64]) -> Vec<Decision> {
        let mut history = History::default();
        at.iter()
            .map(|second| {
                let (next, decision) = decide(&history, Role::Replaceable, Duration::from_secs(*second));
                history = next;
                decision
            })
            .collect()
    }

    const fn after(ms: u64) -> Decision {
        Decision::Restart { after: Duration::from_millis(ms) }
    }

    #[test]
    fn delays_grow_and_the_limit_ends_it() {
        let decisions = deaths(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(decisions[..5], [after(0), after(50), after(100), after(200), after(400)]);
        assert!(matches!(&decisions[5], Decision::GiveUp { why } if why.contains("5 times within 60 s")));
    }

    #[test]
    fn what_is_long_ago_is_forgiven() {
        assert_eq!(deaths(&[1, 100, 200, 300, 400, 500, 600]), vec![after(0); 7]);
        assert_eq!(deaths(&[0, 1, 2, 3, 4, 64]).last(), Some(&after(0)));
    }

    #[test]
    fn giving_up_is_not_final_once_time_has_passed() {
        let decisions = deaths(&[0, 0, 0, 0, 0, 0, 61]);
        assert!(matches!(decisions[5], Decision::GiveUp { .. }));
        assert_eq!(decisions[6], after(0));
    }

    #[test]
    fn a_hart_is_not_replaced_and_restarts_are_counted() {
        let (history, decision) = decide(&History::default(), Role::Irreplaceable, Duration::ZERO);
        assert!(matches!(decision, Decision::GiveUp { .. }));
        assert_eq!(history.total(), 0);
        assert_eq!(decide(&history, Role::Replaceable, WINDOW).0.total(), 1);
    }
}
