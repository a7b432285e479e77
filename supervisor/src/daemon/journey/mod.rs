//! VMs on their way: to and from other hosts, to and from files.
//!
//! Each journey is a thread with a migrator process of its own ([`migrator`]). [`outgoing`] sends a VM,
//! [`incoming`] takes one from a peer or a file, [`suspend`] writes one to a file, [`description`] is what the two
//! supervisors tell each other; [`JourneyEvent`] is what users see of it.

pub mod description;
pub mod incoming;
pub mod migrator;
pub mod outgoing;
pub mod suspend;

pub use migrator::Input;

use super::whereabouts::Travel;
use crate::children::Reach;
use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex, MutexGuard};
use quasar_abi::control::migrator::MigrationEvent;
use quasar_api::{JourneyEvent, JourneyView};
use std::time::Duration;

/// A migrator's event as a sender's user sees it; nothing for what concerns the supervisor alone.
#[must_use]
fn shown(event: MigrationEvent, to: &str) -> Option<JourneyEvent> {
    Some(match event {
        MigrationEvent::Incoming { .. } => return None,
        MigrationEvent::Phase(phase) => JourneyEvent::Phase { phase },
        MigrationEvent::Round(report) => JourneyEvent::Round { report },
        MigrationEvent::Progress(progress) => JourneyEvent::Progress { progress },
        MigrationEvent::HandingOver => JourneyEvent::HandingOver,
        MigrationEvent::Running { downtime_us } => JourneyEvent::Arrived { downtime_us },
        MigrationEvent::NotConverging { explanation } => JourneyEvent::NotConverging { explanation },
        MigrationEvent::Unclear { reason } => JourneyEvent::Unclear { error: reason },
        MigrationEvent::Completed { total_us, downtime_us, forecast_us, wire_bytes, rounds, hash } => {
            let to = to.to_owned();
            JourneyEvent::Completed { to, total_us, downtime_us, forecast_us, wire_bytes, rounds, hash }
        }
    })
}

/// How long the migrator of a VM that has come may take to end.
const MOMENT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Record {
    events: Vec<JourneyEvent>,
    /// The last event, kept until what it means has been done here.
    last: Option<JourneyEvent>,
    /// The VM runs here; nothing is left but its migrator's end.
    arrived: bool,
    ended: bool,
}

impl Travel for Journey {
    fn has_ended(&self) -> bool {
        self.record().ended
    }

    fn way(&self) -> String {
        self.way.clone()
    }
}

/// A journey as others see it.
#[derive(Debug)]
pub struct Journey {
    way: String,
    record: Mutex<Record>,
    changed: Condvar,
    orders: Sender<Input>,
    migrator: Mutex<Option<Reach>>,
}

impl Journey {
    /// A journey whose thread listens at the other end of `orders`.
    #[must_use]
    pub fn new(way: String, orders: Sender<Input>) -> Self {
        Self { way, record: Mutex::default(), changed: Condvar::new(), orders, migrator: Mutex::default() }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // An event is pushed whole; what a panicking thread left is as good as any.
        self.record.lock()
    }

    /// Adds an event.
    pub fn push(&self, event: JourneyEvent) {
        self.record().events.push(event);
        self.changed.notify_all();
    }

    /// Adds an event if there is one.
    pub fn extend(&self, event: Option<JourneyEvent>) {
        if let Some(event) = event {
            self.push(event);
        }
    }

    /// Keeps the last event until [`Journey::finish`].
    pub fn conclude(&self, event: Option<JourneyEvent>) {
        self.record().last = event;
    }

    /// Adds the event that was kept.
    pub fn finish(&self) {
        let last = self.record().last.take();
        self.extend(last);
    }

    /// Says that the VM runs here.
    pub fn has_come(&self) {
        self.record().arrived = true;
    }

    /// Whether it still goes on. One whose VM runs here is over in a moment, which is waited for.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        let mut record = self.record();
        if record.arrived {
            self.changed.wait_while_for(&mut record, |record| !record.ended, MOMENT);
        }
        !record.ended
    }

    /// Says that nothing more comes.
    pub fn end(&self) {
        self.record().ended = true;
        self.changed.notify_all();
    }

    /// Events from number `from` on, waiting at most `patience` for the first; and whether more may come.
    #[must_use]
    pub fn follow(&self, from: usize, patience: Duration) -> (Vec<JourneyEvent>, bool) {
        let quiet = |record: &mut Record| record.events.len() <= from && !record.ended;
        let mut record = self.record();
        self.changed.wait_while_for(&mut record, quiet, patience);
        let news = record.events.get(from..).unwrap_or_default().to_vec();
        (news, !record.ended)
    }

    /// Waits for its end.
    pub fn wait(&self) {
        self.changed.wait_while(&mut self.record(), |record| !record.ended);
    }

    /// Remembers which process makes it.
    pub fn set_migrator(&self, reach: Option<Reach>) {
        *self.migrator.lock() = reach;
    }

    /// The process that makes it.
    #[must_use]
    pub fn migrator(&self) -> Option<Reach> {
        self.migrator.lock().clone()
    }

    /// Asks it to give up, if the hand-over has not happened.
    pub fn cancel(&self) {
        // It has ended when nobody listens.
        drop(self.orders.send(Input::Cancel));
    }

    /// Ends its migrator by force.
    pub fn abort(&self) {
        // As above.
        drop(self.orders.send(Input::Abort));
    }

    /// What is shown of it.
    #[must_use]
    pub fn view(&self) -> JourneyView {
        let record = self.record();
        let phase = record.events.iter().rev().find_map(|event| match event {
            JourneyEvent::Phase { phase } => Some(phase.clone()),
            _ => None,
        });
        let rounds = record.events.iter().filter(|e| matches!(e, JourneyEvent::Round { .. })).count();
        JourneyView {
            way: self.way.clone(),
            phase: phase.unwrap_or_else(|| "start".into()),
            rounds: u32::try_from(rounds).unwrap_or(u32::MAX),
            pid: self.migrator().map(|reach| reach.pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn journey() -> (Journey, crossbeam_channel::Receiver<Input>) {
        let (orders, inbox) = migrator::inputs();
        (Journey::new("to there".into(), orders), inbox)
    }

    fn phase(name: &str) -> JourneyEvent {
        JourneyEvent::Phase { phase: name.into() }
    }

    #[test]
    fn what_happens_is_followed_from_any_point_and_the_last_event_waits_for_what_it_means() {
        let (journey, _inbox) = journey();
        assert_eq!(journey.view().phase, "start");
        journey.push(phase("negotiate"));
        journey.push(phase("rounds"));
        journey.conclude(Some(JourneyEvent::Arrived { downtime_us: 7 }));
        let (news, goes_on) = journey.follow(1, Duration::ZERO);
        assert!(
            matches!(&news[..], [JourneyEvent::Phase { phase }] if phase == "rounds") && goes_on,
            "{news:?}"
        );
        assert!(journey.follow(2, Duration::ZERO).0.is_empty(), "the end is not told yet");
        assert_eq!((journey.view().phase.as_str(), journey.view().rounds), ("rounds", 0));
        journey.finish();
        journey.end();
        let (news, goes_on) = journey.follow(2, Duration::from_secs(60));
        assert!(matches!(&news[..], [JourneyEvent::Arrived { downtime_us: 7 }]) && !goes_on, "{news:?}");
        assert!(journey.has_ended() && journey.follow(99, Duration::from_secs(60)).0.is_empty());
    }

    #[test]
    fn one_whose_vm_has_come_is_over_in_a_moment() {
        let (journey, _inbox) = journey();
        let journey = Arc::new(journey);
        assert!(journey.goes_on(), "and nobody waits for it");
        journey.has_come();
        let asks = Arc::clone(&journey);
        let thread = std::thread::spawn(move || asks.goes_on());
        journey.end();
        assert!(!thread.join().expect("it waited"));
    }

    #[test]
    fn who_waits_hears_of_events_and_of_the_end() {
        let (journey, inbox) = journey();
        let journey = Arc::new(journey);
        let waits = Arc::clone(&journey);
        let thread = std::thread::spawn(move || {
            let (news, _) = waits.follow(0, Duration::from_secs(60));
            waits.wait();
            news.len()
        });
        journey.push(phase("negotiate"));
        journey.cancel();
        journey.abort();
        assert!(matches!(inbox.try_iter().collect::<Vec<_>>()[..], [Input::Cancel, Input::Abort]));
        journey.end();
        assert_eq!(thread.join().expect("it waited"), 1);
    }
}
