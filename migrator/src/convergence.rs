//! Whether to go on with rounds, to pause, to slow the guest down, or to give up: a plain function of
//! what the rounds have measured.

use quasar_abi::control::migrator::{Converge, Limits};
use std::time::Duration;

/// What the rounds have shown so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Rounds done.
    pub rounds: u32,
    /// Bytes of pages the last round sent, before compression.
    pub sent_bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// Bytes of pages dirtied meanwhile: what a last round would have to send.
    pub dirty_bytes: u64,
    /// The same of the round before; nothing after the first.
    pub previous_dirty_bytes: Option<u64>,
    /// Throttle in force, parts per thousand.
    pub throttle_permille: u64,
    /// Cost of the switch that does not depend on pages (state, acknowledgements), as measured or assumed.
    pub fixed: Duration,
    /// Bytes of pages per second the link has carried so far, over all rounds.
    pub rate: f64,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Send another round while the guest runs.
    Round,
    /// Pause and finish.
    Pause,
    /// Slow the harts to this throttle, then another round.
    Throttle(u64),
    /// It cannot be done within the limits.
    GiveUp(String),
}

/// Rounds that may pass without getting nearer before something else is tried.
const PATIENCE_ROUNDS: u32 = 3;
/// Rounds after which patience ends in any case.
const MOST_ROUNDS: u32 = 30;
/// The most the harts are slowed.
const MOST_THROTTLE: u64 = 990;

impl Measured {
    /// The downtime if the VM were paused now.
    #[must_use]
    pub fn forecast(&self) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a forecast")]
        let bytes = self.dirty_bytes as f64;
        self.fixed + Duration::try_from_secs_f64(bytes / self.rate.max(1.0)).unwrap_or(Duration::MAX)
    }

    /// Whether the last round left less to send than the one before.
    fn nearer(&self) -> bool {
        // A tenth less counts; anything above is noise of the guest's own.
        self.previous_dirty_bytes
            .is_none_or(|before| self.dirty_bytes.saturating_mul(10) < before.saturating_mul(9))
    }

    /// An explanation for people of why it does not get nearer.
    #[must_use]
    pub fn explanation(&self, limits: &Limits) -> String {
        let mib = |bytes: f64| bytes / (1024.0 * 1024.0);
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let dirty = self.dirty_bytes as f64 / self.took.as_secs_f64().max(1e-6);
        format!(
            "the guest writes {:.0} MiB/s of distinct pages, the link carries {:.0} MiB/s{}; pausing now would take {:.0} ms, \
             allowed are {:.1} ms",
            mib(dirty),
            mib(self.rate),
            if limits.bandwidth == 0 { "" } else { " under the bandwidth limit" },
            self.forecast().as_secs_f64() * 1e3,
            Duration::from_micros(limits.max_downtime_us).as_secs_f64() * 1e3,
        )
    }
}

/// Decides after a round. `stalled` counts the rounds in a row that did not get nearer.
#[must_use]
pub fn decide(measured: &Measured, limits: &Limits, stalled: u32) -> Decision {
    if measured.forecast() <= Duration::from_micros(limits.max_downtime_us) {
        return Decision::Pause;
    }
    if stalled < PATIENCE_ROUNDS && measured.rounds < MOST_ROUNDS {
        return Decision::Round;
    }
    match limits.converge {
        Converge::Pause => Decision::Pause,
        Converge::Abort => Decision::GiveUp(measured.explanation(limits)),
        Converge::Throttle if measured.throttle_permille >= MOST_THROTTLE => Decision::Pause,
        // Half of what is left each time: 500, 750, 875, …
        Converge::Throttle => {
            Decision::Throttle((measured.throttle_permille + 1000).div_ceil(2).clamp(500, MOST_THROTTLE))
        }
    }
}

/// The new count of rounds in a row that did not get nearer.
#[must_use]
pub fn stalled_after(measured: &Measured, stalled: u32) -> u32 {
    if measured.nearer() { 0 } else { stalled + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn limits(converge: Converge) -> Limits {
        Limits {
            max_downtime_us: 5_000,
            bandwidth: 0,
            timeout_s: 0,
            converge,
            delta_bytes: None,
            connections: 1,
        }
    }

    /// Plays a migration of a guest that dirties `dirty` bytes/s over a link of `link` bytes/s.
    fn play(dirty: u64, link: u64, converge: Converge) -> (Decision, u32, u64) {
        let (mut to_send, mut previous, mut stalled, mut throttle) = (512 * MIB, None, 0, 0);
        for round in 1..200 {
            let took = Duration::from_micros(to_send / (link / 1_000_000).max(1));
            let took_ms = u64::try_from(took.as_millis()).expect("short");
            let dirty_bytes = dirty / 1000 * (1000 - throttle) / 1000 * took_ms;
            let measured = Measured {
                rounds: round,
                sent_bytes: to_send,
                took,
                dirty_bytes: dirty_bytes.min(200 * MIB),
                previous_dirty_bytes: previous,
                throttle_permille: throttle,
                fixed: Duration::from_micros(500),
                rate: to_send as f64 / took.as_secs_f64().max(1e-6),
            };
            stalled = stalled_after(&measured, stalled);
            match decide(&measured, &limits(converge), stalled) {
                Decision::Throttle(to) => {
                    throttle = to;
                    stalled = 0
                }
                Decision::Round => {}
                end => return (end, round, throttle),
            }
            previous = Some(measured.dirty_bytes);
            to_send = measured.dirty_bytes;
        }
        panic!("no end");
    }

    #[test]
    fn a_quiet_guest_is_paused_after_few_rounds() {
        let (decision, rounds, throttle) = play(50 * MIB, 500 * MIB, Converge::Throttle);
        assert_eq!((decision, throttle), (Decision::Pause, 0));
        assert!(rounds <= 5, "{rounds}");
    }

    #[test]
    fn a_guest_that_writes_faster_than_the_link_ends_as_the_user_chose() {
        assert!(
            matches!(play(200 * MIB, 119 * MIB, Converge::Abort).0, Decision::GiveUp(why) if why.contains("MiB/s"))
        );
        assert_eq!(play(200 * MIB, 119 * MIB, Converge::Pause).0, Decision::Pause);
        let (decision, _, throttle) = play(200 * MIB, 119 * MIB, Converge::Throttle);
        assert_eq!(decision, Decision::Pause);
        assert!(throttle >= 500);
    }

    proptest! {
        #[test]
        fn every_policy_ends(dirty in 0u64..4000, link in 1u64..4000, policy in 0usize..3) {
            let converge = [Converge::Throttle, Converge::Pause, Converge::Abort][policy];
            let (decision, ..) = play(dirty * MIB, link * MIB, converge);
            prop_assert!(matches!(decision, Decision::Pause | Decision::GiveUp(_)));
        }
    }
}
