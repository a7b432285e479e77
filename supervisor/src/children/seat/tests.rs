use super::*;
use crate::children::watch::{LOOK, PATIENCE, State};
use proptest::prelude::*;

const ZERO: Duration = Duration::ZERO;
/// Looks after which patience is at its end.
const ENOUGH: u32 = 6;

fn seat(role: Role) -> Seat {
    Seat::new(role, PATIENCE)
}

/// Told these events one after the other at the same time: what it did at the last.
fn after(seat: &mut Seat, now: Duration, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
    events.into_iter().map(|event| seat.step(event, now)).last().unwrap_or_default()
}

fn serving(role: Role) -> Seat {
    let mut seat = seat(role);
    after(&mut seat, ZERO, [Event::Wanted, Event::Started, Event::Hello, Event::Serves]);
    assert!(seat.is_serving());
    seat
}

fn killed() -> Event {
    Event::Ended("was killed".into())
}

fn no_room() -> Event {
    Event::NotStarted { why: "EMFILE".into(), passing: true }
}

fn died(actions: &[Action]) -> Option<(&str, Option<&str>)> {
    actions.iter().find_map(|action| match action {
        Action::Tell(Told::Died { how, fatal }) => Some((how.as_str(), fatal.as_deref())),
        _ => None,
    })
}

#[test]
fn a_process_is_started_attached_serves_and_ends() {
    let mut seat = seat(Role::Replaceable);
    assert_eq!(seat.step(Event::Wanted, ZERO), [Action::Start]);
    assert_eq!(seat.step(Event::Wanted, ZERO), [], "there is one");
    assert_eq!(seat.step(Event::Started, ZERO), []);
    assert_eq!(seat.step(Event::Hello, ZERO), [Action::Attach]);
    assert_eq!(seat.step(Event::Serves, ZERO), [Action::Tell(Told::Serving)]);
    assert_eq!(seat.deadline(), None);
    assert_eq!(seat.step(Event::Unwanted, ZERO), [Action::ShutDown]);
    assert_eq!(seat.step(Event::Unwanted, ZERO), [], "it was asked");
    assert_eq!(seat.step(Event::Ended("ended".into()), ZERO), [Action::Vacate, Action::Tell(Told::Ended)]);
    assert!(seat.is_vacant());
}

#[test]
fn who_does_not_end_is_killed_and_that_is_told_once() {
    let mut seat = serving(Role::Replaceable);
    after(&mut seat, ZERO, [Event::Unwanted]);
    let at = seat.deadline().expect("a deadline");
    assert_eq!(at, END_DEADLINE);
    let actions = seat.step(Event::Tick, at);
    assert!(matches!(&actions[..], [Action::Kill, Action::Tell(Told::Notice(_))]), "{actions:?}");
    assert_eq!(seat.step(Event::Tick, at + END_DEADLINE), [Action::Kill]);
    assert_eq!(seat.step(killed(), at + END_DEADLINE), [Action::Vacate, Action::Tell(Told::Ended)]);
}

#[test]
fn who_does_not_come_to_serve_is_killed_and_its_successor_is_due() {
    let mut seat = seat(Role::Replaceable);
    after(&mut seat, ZERO, [Event::Wanted, Event::Started]);
    assert_eq!(seat.step(Event::Tick, START_DEADLINE), [Action::Kill]);
    let actions = seat.step(killed(), START_DEADLINE);
    assert_eq!(died(&actions), Some(("was killed: it did not serve within 20s", None)));
    assert!(seat.is_due());
    assert_eq!(seat.step(Event::Tick, START_DEADLINE), [Action::Start], "the first one is replaced at once");
}

#[test]
fn a_death_tells_what_was_learnt_before() {
    for (event, words) in [
        (Event::Fatal("panicked".into()), "was killed: panicked"),
        (Event::Garbled("it says it is quasar-mmu".into()), "was killed: it says it is quasar-mmu"),
        (Event::Unreachable("its channel is full".into()), "was killed: its channel is full"),
    ] {
        let mut seat = serving(Role::Replaceable);
        after(&mut seat, ZERO, [event]);
        assert_eq!(died(&seat.step(killed(), ZERO)), Some((words, None)));
    }
    let mut seat = seat(Role::Replaceable);
    let refused = Event::Refused { why: "no such engine".into(), passing: false };
    assert_eq!(
        after(&mut seat, ZERO, [Event::Wanted, Event::Started, Event::Hello, refused]),
        [Action::Kill]
    );
    assert_eq!(died(&seat.step(killed(), ZERO)), Some(("cannot serve: no such engine", None)));
}

#[test]
fn a_hart_and_a_migrator_are_not_replaced() {
    for role in [Role::Irreplaceable, Role::Once] {
        let mut seat = serving(role);
        let actions = seat.step(killed(), ZERO);
        assert!(died(&actions).is_some_and(|(_, fatal)| fatal.is_some()), "{actions:?}");
        assert!(seat.is_vacant());
    }
}

#[test]
fn a_start_without_room_costs_time_and_is_told_once() {
    for role in [Role::Replaceable, Role::Irreplaceable, Role::Once] {
        let mut seat = seat(role);
        after(&mut seat, ZERO, [Event::Wanted]);
        let actions = seat.step(no_room(), ZERO);
        assert!(matches!(&actions[..], [Action::Tell(Told::Notice(_))]), "{actions:?}");
        assert!(seat.trouble("mmu", ZERO).expect("trouble").contains("room"));
        let mut now = ZERO;
        for _ in 0..4 {
            now = seat.deadline().expect("due");
            assert_eq!(seat.step(Event::Tick, now), [Action::Start]);
            assert_eq!(seat.step(no_room(), now), []);
        }
        after(&mut seat, now, [Event::TryNow]);
        assert_eq!(seat.step(Event::Tick, now), [Action::Start]);
        after(&mut seat, now, [Event::Started, Event::Hello, Event::Serves]);
        assert_eq!((seat.history().total(), seat.trouble("mmu", now)), (0, None), "nothing has died");
    }
}

#[test]
fn the_first_start_waits_for_room_for_some_time_and_later_ones_without_end() {
    let mut seat = seat(Role::Replaceable);
    after(&mut seat, ZERO, [Event::Wanted, no_room()]);
    let end = (1..100).find_map(|_| {
        let now = seat.deadline().expect("due");
        after(&mut seat, now, [Event::Tick]);
        died(&seat.step(no_room(), now)).map(|(how, _)| (now, how.to_owned()))
    });
    let (at, how) = end.expect("an end");
    assert!(at >= START_DEADLINE && at < START_DEADLINE * 2 && how.contains("EMFILE"), "{at:?} {how}");

    let mut seat = serving(Role::Replaceable);
    after(&mut seat, ZERO, [killed()]);
    for _ in 0..100 {
        let now = seat.deadline().expect("due");
        after(&mut seat, now, [Event::Tick]);
        assert_eq!(died(&seat.step(no_room(), now)), None);
    }
    assert!(seat.is_short());
}

#[test]
fn one_that_has_no_room_to_attach_is_tried_again() {
    let mut seat = seat(Role::Irreplaceable);
    let refused = Event::Refused { why: "ENOMEM".into(), passing: true };
    after(&mut seat, ZERO, [Event::Wanted, Event::Started, Event::Hello, refused]);
    let actions = seat.step(killed(), ZERO);
    assert!(matches!(&actions[..], [Action::Vacate, Action::Tell(Told::Notice(_))]), "{actions:?}");
    assert!(seat.is_due() && seat.history().total() == 0);
}

fn looks(seat: &mut Seat, looks: u32, look: impl Fn(Look) -> (Look, Option<Look>)) -> Vec<Action> {
    let well = Look { now: ZERO, state: State::Waits, cpu: ZERO, owes: false, done: 1 };
    let each = |n| {
        let (commands, service) = look(Look { now: LOOK * n, ..well });
        seat.step(Event::Look { commands, service }, LOOK * n)
    };
    (0..looks).map(each).find(|actions| !actions.is_empty()).unwrap_or_default()
}

#[test]
fn hangs_are_deaths() {
    type Case = fn(Look) -> (Look, Option<Look>);
    let hangs: [(&str, Case); 3] = [
        ("stopped", |look| (Look { state: State::Stopped, ..look }, None)),
        ("does nothing", |look| (Look { owes: true, ..look }, None)),
        ("does nothing", |look| (look, Some(Look { owes: true, ..look }))),
    ];
    for (words, case) in hangs {
        let mut seat = serving(Role::Replaceable);
        let actions = looks(&mut seat, ENOUGH, case);
        assert!(matches!(&actions[..], [Action::Tell(Told::Notice(_)), Action::Kill]), "{actions:?}");
        let how = seat.step(killed(), PATIENCE);
        assert!(died(&how).is_some_and(|(how, _)| how.contains(words)), "{how:?}");
        // Nobody would go on where a hart was: that is shown, and it may come back to itself.
        let mut seat = serving(Role::Irreplaceable);
        assert_eq!(looks(&mut seat, ENOUGH, case), []);
        assert!(
            seat.trouble("cpu0", ZERO).is_some_and(|text| text.starts_with("cpu0 ") && text.contains(words))
        );
        looks(&mut seat, 1, |look| (look, None));
        assert_eq!(seat.trouble("cpu0", ZERO), None);
        // But it does not keep a VM from ending.
        after(&mut seat, ZERO, [Event::Unwanted]);
        assert_eq!(looks(&mut seat, ENOUGH, hangs[1].1), [], "it has its time to end");
        assert!(looks(&mut seat, ENOUGH, hangs[0].1).contains(&Action::Kill));
    }
    // A migrator waits for its peer.
    assert_eq!(looks(&mut serving(Role::Once), 90, hangs[2].1), []);
    assert!(looks(&mut serving(Role::Once), 110, hangs[2].1).contains(&Action::Kill));
    assert!(looks(&mut serving(Role::Once), ENOUGH, hangs[0].1).contains(&Action::Kill));
    assert_eq!(looks(&mut serving(Role::Replaceable), 100, |look| (look, Some(look))), [], "nothing is owed");
}

#[test]
fn one_that_hangs_while_it_starts_is_not_waited_for() {
    let mut seat = seat(Role::Replaceable);
    after(&mut seat, ZERO, [Event::Wanted, Event::Started]);
    let actions = looks(&mut seat, ENOUGH, |look| (Look { state: State::Stopped, ..look }, None));
    assert!(actions.contains(&Action::Kill), "{actions:?}");
    // It says nothing and does nothing; whoever works to come to that has more time, and a hart is no exception.
    for role in [Role::Replaceable, Role::Irreplaceable, Role::Once] {
        let begin = || {
            let mut seat = self::seat(role);
            after(&mut seat, ZERO, [Event::Wanted, Event::Started]);
            seat
        };
        assert!(looks(&mut begin(), ENOUGH, |look| (look, None)).contains(&Action::Kill), "{role:?}");
        let works = |look: Look| (Look { cpu: look.now / 10, ..look }, None);
        assert_eq!(looks(&mut begin(), ENOUGH * 5, works), [], "{role:?}");
    }
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Replaceable), Just(Role::Irreplaceable), Just(Role::Once)]
}

fn event() -> impl Strategy<Value = Event> {
    let text = || "[a-z]{1,4}".prop_map(String::from);
    let look = (any::<bool>(), any::<bool>(), 0_u64..2).prop_map(|(stopped, owes, done)| Look {
        now: ZERO,
        state: if stopped { State::Stopped } else { State::Waits },
        cpu: ZERO,
        owes,
        done,
    });
    prop_oneof![
        3 => Just(Event::Wanted),
        1 => Just(Event::Unwanted),
        2 => Just(Event::Hello),
        2 => Just(Event::Serves),
        1 => (text(), any::<bool>()).prop_map(|(why, passing)| Event::Refused { why, passing }),
        1 => text().prop_map(Event::Fatal),
        1 => text().prop_map(Event::Garbled),
        1 => text().prop_map(Event::Unreachable),
        2 => Just(killed()),
        4 => look.prop_map(|look| Event::Look { commands: look, service: Some(look) }),
        3 => Just(Event::Tick),
        1 => Just(Event::TryNow),
    ]
}

/// The processes as the owner has them: the machine's word against what was done.
#[derive(Default)]
struct World {
    process: bool,
    killed: bool,
}

proptest! {
    /// Whatever happens in whatever order: there is never a second process, none is killed or told anything that is
    /// not there, none is forgotten, and a place that is to have one always has a time at which one comes.
    #[test]
    fn no_process_is_doubled_or_forgotten(
        role in role(),
        steps in prop::collection::vec((event(), any::<bool>(), 0_u64..3000), 1..80),
    ) {
        let (mut seat, mut world, mut now) = (seat(role), World::default(), ZERO);
        for (event, has_room, ms) in steps {
            now += Duration::from_millis(ms);
            // What is said by nobody is not heard.
            let spoken = !matches!(event, Event::Wanted | Event::Unwanted | Event::Tick | Event::TryNow);
            if spoken && !world.process {
                continue;
            }
            if matches!(event, Event::Ended(_)) {
                world = World::default();
            }
            let at_end = matches!(event, Event::Ended(_));
            let wanted = matches!(event, Event::Wanted);
            let mut todo = std::collections::VecDeque::from(seat.step(event, now));
            while let Some(action) = todo.pop_front() {
                match action {
                    Action::Start => {
                        prop_assert!(!world.process);
                        world = World { process: has_room, killed: false };
                        let event = if has_room { Event::Started } else { no_room() };
                        todo.extend(seat.step(event, now));
                    }
                    Action::Attach | Action::ShutDown => prop_assert!(world.process),
                    Action::Kill => {
                        prop_assert!(world.process);
                        world.killed = true;
                    }
                    Action::Vacate => prop_assert!(!world.process && (at_end || !has_room)),
                    Action::Tell(_) => {}
                }
            }
            prop_assert_eq!(seat.has_process(), world.process);
            prop_assert_eq!(seat.is_vacant() || seat.is_serving(), seat.deadline().is_none());
            prop_assert!(!wanted || world.process || seat.is_due() || !has_room);
            if role == Role::Replaceable && at_end && !world.killed {
                prop_assert!(seat.is_vacant() || seat.is_due() || world.process);
            }
        }
    }
}
