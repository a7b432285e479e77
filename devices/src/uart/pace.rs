//! How fast input comes in over the serial line.
//!
//! A line that hands over the next byte as soon as there is room never lets its interrupt fall: Linux reads on within
//! one interrupt for as long as there is data, and a paste of 50 kB kept a hart there for half a minute. So bytes
//! come a receiver's worth at a time, the next only after the guest has read the last, and after a rest that is a
//! multiple of the time that it took: a guest that is busy with other things has most of its time for them, however
//! slow or loaded the host is; and fewer bytes at a time where it takes long to read them. A guest whose harts all sleep waits for nothing but the line.

use super::state::FIFO;
use std::time::{Duration, Instant};

/// The rest after a receiver's worth, as a multiple of the time in which the guest read it.
const REST: u32 = 4;
/// The shortest rest: what is read was acted upon by nobody yet.
const SHORTEST: Duration = Duration::from_micros(100);
/// The longest: a guest that was paused, or read late, does not wait in proportion.
const LONGEST: Duration = Duration::from_millis(100);
/// The longest that the guest shall read at a time: on a loaded host fewer bytes are handed over.
const SERVICE: Duration = Duration::from_millis(4);
/// How soon it is looked again whether the harts sleep.
const LOOK: Duration = Duration::from_micros(200);

/// The line's pace. It is no part of the saved state: a process that takes over begins at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Most bytes at a time.
    burst: usize,
    /// When it was filled, while the guest reads.
    filled: Option<Instant>,
    /// When the guest had read what it got last, and how long it rests.
    rest: Option<(Instant, Duration)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { burst: FIFO, filled: None, rest: None }
    }
}

impl Pace {
    /// How many bytes may be handed over at a time.
    #[must_use]
    pub fn burst(&self) -> usize {
        self.burst
    }

    /// The receiver was filled.
    pub fn filled(&mut self, now: Instant) {
        (self.filled, self.rest) = (Some(now), None);
    }

    /// The receiver was seen empty.
    pub fn emptied(&mut self, now: Instant) {
        if let Some(filled) = self.filled.take() {
            let took = now.saturating_duration_since(filled);
            self.rest = Some((now, took.saturating_mul(REST).clamp(SHORTEST, LONGEST)));
            if took > SERVICE {
                self.burst = (self.burst / 2).max(1);
            } else if took < SERVICE / 2 {
                self.burst = (self.burst * 2).min(FIFO);
            }
        }
    }

    /// Whether it may be filled again, and if not, when to ask. `idle` says whether every hart sleeps.
    #[must_use]
    pub fn wait(&self, now: Instant, idle: impl FnOnce() -> bool) -> Option<Duration> {
        let (since, rest) = self.rest?;
        let rested = now.saturating_duration_since(since);
        if rested < SHORTEST {
            return Some(SHORTEST - rested);
        }
        let left = rest.checked_sub(rested).filter(|left| !left.is_zero())?;
        (!idle()).then(|| left.min(LOOK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(took: Duration) -> (Pace, Instant) {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.wait(start, || false), None, "nothing came yet");
        pace.filled(start);
        pace.emptied(start + took);
        (pace, start + took)
    }

    #[test]
    fn a_busy_guest_has_most_of_its_time_to_itself() {
        for took in [1, 50, 300, 1000, 2400].map(Duration::from_micros) {
            let (pace, emptied) = after(took);
            let rest = (took * REST).clamp(SHORTEST, LONGEST);
            let just_before = emptied + rest - Duration::from_nanos(1);
            assert_eq!(pace.wait(just_before, || false), Some(Duration::from_nanos(1)), "{took:?}");
            assert_eq!(pace.wait(emptied + rest, || false), None, "{took:?}");
        }
        let (pace, emptied) = after(Duration::from_secs(3600));
        assert_eq!(pace.wait(emptied + LONGEST, || false), None, "it had been paused");
    }

    #[test]
    fn where_reading_takes_long_less_is_read_at_a_time() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut bursts = |per_byte: Duration| {
            let mut read = || {
                pace.filled(now);
                now += per_byte * u32::try_from(pace.burst()).expect("small");
                pace.emptied(now);
                pace.burst()
            };
            [(); 10].map(|()| read())
        };
        assert_eq!(bursts(Duration::from_micros(20)), [FIFO; 10]);
        assert_eq!(bursts(Duration::from_millis(1))[..4], [8, 4, 4, 4]);
        assert_eq!(bursts(Duration::from_secs(1))[9], 1);
        assert_eq!(bursts(Duration::from_micros(20))[9], FIFO);
    }

    #[test]
    fn an_idle_guest_does_not_wait_for_the_line() {
        let (pace, emptied) = after(Duration::from_millis(1));
        assert!(pace.wait(emptied, || true).is_some(), "it has not acted on what it read yet");
        assert_eq!(pace.wait(emptied + SHORTEST, || false), Some(LOOK));
        assert_eq!(pace.wait(emptied + SHORTEST, || true), None);
    }

    #[test]
    fn the_rest_counts_from_the_first_look_at_an_empty_receiver() {
        let (mut pace, emptied) = after(Duration::from_millis(1));
        pace.emptied(emptied + Duration::from_millis(2));
        assert_eq!(pace.wait(emptied + Duration::from_millis(4), || false), None);
    }
}
