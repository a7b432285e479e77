//! Journeys that something disturbs: whatever it is, exactly one side has the guest, whole, or nobody runs it and the
//! user is told so.

use crate::guest::{Guest, Manners, PAGES, RAM, differences, while_writing};
use crate::meddle::{Trick, meddled};
use crate::wire::{alone, connected, limits, migrate, peer, plain};
use quasar_abi::control::migrator::MigrationEvent;
use quasar_abi::machine::RAM_BASE;
use quasar_abi::vm::pause;
use quasar_migrator::connection::{PATIENCE, Peer};
use quasar_migrator::destination::{self, Obstacle};
use quasar_migrator::frame::{Kind, MAX_PAYLOAD};
use quasar_migrator::message::{Agreement, Offer, encode};
use quasar_migrator::source::{Outcome, send};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The frames of a journey that ends well, in their order.
const KINDS: [Kind; 12] = [
    Kind::Offer,
    Kind::Agreement,
    Kind::Machine,
    Kind::Ready,
    Kind::Pages,
    Kind::RoundEnd,
    Kind::RoundTaken,
    Kind::State,
    Kind::Final,
    Kind::Accepted,
    Kind::HandOver,
    Kind::Running,
];

fn runs(guest: &Guest) -> bool {
    guest.vm.pause_mask.load(Ordering::SeqCst) & pause::MIGRATOR == 0
}

/// What must hold however a journey ends.
fn exactly_one_runs(case: &str, from: &Guest, to: &Guest, outcome: &Outcome, received: &anyhow::Result<()>) {
    assert_eq!(runs(to), received.is_ok(), "{case}: {received:?}");
    match outcome {
        Outcome::StaysHere(_) => {
            assert!(runs(from) && !runs(to), "{case}: {outcome:?}, {received:?}");
            assert_eq!(from.vm.log_active.load(Ordering::SeqCst), 0, "{case}: the log is on");
        }
        Outcome::Completed(_) => assert!(!runs(from) && runs(to), "{case}: {outcome:?}, {received:?}"),
        Outcome::Unclear(_) => assert!(!runs(from), "{case}: {outcome:?}, {received:?}"),
    }
}

/// Disturbs one frame of a journey and looks at its end.
fn disturb(from: &Guest, kind: Kind, trick: &Trick) -> (Outcome, anyhow::Result<()>) {
    let case = format!("{kind:?} {trick:?}");
    let to = Guest::new("trouble");
    let (sockets, met) = meddled(kind, trick);
    let (outcome, received, _) = migrate(from, &to, sockets, &limits(), &Arc::default(), |_| {});
    assert!(met.load(Ordering::Acquire), "{case}: it did not come to that: {outcome:?}");
    exactly_one_runs(&case, from, &to, &outcome, &received);
    // As the supervisor does it when its user has looked at the other side.
    from.vm.unpause(pause::MIGRATOR);
    (outcome, received)
}

/// What a frame that does not arrive as it was sent leads to.
fn as_far_as_it_came(kind: Kind, trick: &Trick, outcome: &Outcome, received: &anyhow::Result<()>) {
    let right = match (kind, outcome) {
        (Kind::HandOver, Outcome::Unclear(_)) => received.is_err(),
        (Kind::Running, Outcome::Unclear(_)) => received.is_ok(),
        (Kind::HandOver | Kind::Running, _) => false,
        _ => matches!(outcome, Outcome::StaysHere(_)),
    };
    assert!(right, "{kind:?} {trick:?}: {outcome:?}, {received:?}");
}

#[test]
fn a_frame_of_any_kind_that_is_damaged_is_noticed_and_nothing_runs_twice() {
    let tricks = [
        Trick::Cut,
        Trick::Truncate,
        Trick::Flip,
        Trick::Renumber,
        Trick::Length(u32::try_from(MAX_PAYLOAD).expect("small") + 1),
        Trick::Length(u32::MAX),
        Trick::Kind(0),
        Trick::Kind(99),
        Trick::Payload(vec![0xff; 40]),
        Trick::Double,
    ];
    let try_all = |trick: &Trick| {
        let from = Guest::new("damage");
        from.ram.fill(RAM_BASE, 1, 1 << 20).expect("RAM");
        for kind in KINDS {
            let (outcome, received) = disturb(&from, kind, trick);
            // What comes twice is noticed by whoever still listens.
            if !matches!(trick, Trick::Double) {
                as_far_as_it_came(kind, trick, &outcome, &received);
            }
        }
        // After all that it runs and moves.
        let to = Guest::new("damage");
        let (outcome, ..) = while_writing(&from, Manners::Right, 200, || {
            migrate(&from, &to, connected(), &limits(), &Arc::default(), |_| {})
        });
        assert!(matches!(outcome, Outcome::Completed(_)), "{trick:?}: {outcome:?}");
        assert_eq!(differences(&from, &to), Vec::<u64>::new(), "{trick:?}");
    };
    // Who fails waits for the other side's last words: all at once.
    std::thread::scope(|scope| tricks.iter().for_each(|trick| drop(scope.spawn(|| try_all(trick)))));
}

#[test]
fn silence_in_any_place_ends_the_journey() {
    // Nothing but waiting: all at once, without writers.
    std::thread::scope(|scope| {
        for kind in KINDS {
            for trick in [Trick::Stall, Trick::Skip] {
                scope.spawn(move || {
                    let from = Guest::new("silence");
                    from.ram.fill(RAM_BASE, 1, 1 << 20).expect("RAM");
                    let (outcome, received) = disturb(&from, kind, &trick);
                    as_far_as_it_came(kind, &trick, &outcome, &received);
                });
            }
        }
    });
}

#[test]
fn versions_that_nobody_speaks_are_refused_and_older_ones_are_spoken() {
    let from = Guest::new("versions");
    from.ram.fill(RAM_BASE, 1, 1 << 20).expect("RAM");
    let offer = |versions: &[u32]| {
        let offer = Offer { versions: versions.to_vec(), ..Offer::ours() };
        (Kind::Offer, Trick::Payload(encode(&offer).expect("offer")))
    };
    let agreement = |version| {
        let agreement = Agreement { version, ..Offer::ours().agree().expect("agreement") };
        (Kind::Agreement, Trick::Payload(encode(&agreement).expect("agreement")))
    };
    for ((kind, trick), words) in [
        (offer(&[]), "no stream version in common"),
        (offer(&[9, 10]), "speaks [9, 10]"),
        (agreement(0), "stream version 0, which was not offered"),
        (agreement(9), "stream version 9, which was not offered"),
    ] {
        let Outcome::StaysHere(error) = disturb(&from, kind, &trick).0 else { panic!("{kind:?} {trick:?}") };
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
    for (kind, trick) in [offer(&[1]), offer(&[2]), offer(&[1, 9])] {
        let outcome = disturb(&from, kind, &trick).0;
        assert!(matches!(outcome, Outcome::Completed(_)), "{kind:?}: {outcome:?}");
    }
}

#[test]
fn a_user_who_gives_up_is_heard_at_every_step_up_to_the_hand_over() {
    let from = Guest::new("cancel");
    from.ram.fill(RAM_BASE, 1, 1 << 20).expect("RAM");
    for kind in KINDS {
        let (to, cancelled) = (Guest::new("cancel"), Arc::<AtomicBool>::default());
        let (sockets, met) = meddled(kind, &Trick::Tell(Arc::clone(&cancelled)));
        let (outcome, received, _) = migrate(&from, &to, sockets, &limits(), &cancelled, |_| {});
        assert!(met.load(Ordering::Acquire), "{kind:?}: {outcome:?}");
        exactly_one_runs(&format!("{kind:?}"), &from, &to, &outcome, &received);
        // From the hand-over on there is no way back, and it is not in doubt either.
        let right = match kind {
            Kind::HandOver | Kind::Running => matches!(outcome, Outcome::Completed(_)),
            _ => matches!(outcome, Outcome::StaysHere(_)),
        };
        assert!(right, "{kind:?}: {outcome:?}");
        from.vm.unpause(pause::MIGRATOR);
    }
}

#[test]
fn a_cancelled_journey_leaves_the_guest_running_and_the_next_one_succeeds() {
    let (from, to) = (Guest::new("cancel"), Guest::new("cancel"));
    while_writing(&from, Manners::Right, PAGES / 2, || {
        for phase in ["negotiate", "rounds", "pause"] {
            let cancelled = Arc::new(AtomicBool::new(false));
            let (outcome, received, _) = migrate(&from, &to, connected(), &limits(), &cancelled, |event| {
                if *event == MigrationEvent::Phase(phase.into()) {
                    cancelled.store(true, Ordering::Release);
                }
            });
            assert!(matches!(outcome, Outcome::StaysHere(_)), "{phase}: {outcome:?}");
            assert!(received.is_err(), "{phase}");
            assert_eq!(from.vm.pause_mask.load(Ordering::SeqCst), 0, "{phase}");
            assert_eq!(from.vm.log_active.load(Ordering::SeqCst), 0, "{phase}");
            assert_ne!(to.vm.pause_mask.load(Ordering::SeqCst), 0, "{phase}: nothing runs there");
        }
        to.ram.fill(RAM_BASE, 0, RAM).expect("RAM");
        let (outcome, ..) = migrate(&from, &to, connected(), &limits(), &Arc::default(), |_| {});
        assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
    });
    assert_eq!(differences(&from, &to), Vec::<u64>::new());
}

/// A connection that is cut, or damaged, after so many bytes from source to destination.
fn troubled(after: usize, damage: bool) -> (TcpStream, TcpStream) {
    let (client, mut near) = connected();
    let (mut far, server) = connected();
    let (mut back_in, mut back_out) = (far.try_clone().expect("clone"), near.try_clone().expect("clone"));
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut back_in, &mut back_out);
        let _ = back_out.shutdown(std::net::Shutdown::Write);
    });
    std::thread::spawn(move || {
        let (mut passed, mut chunk) = (0, vec![0; 65536]);
        while let Ok(n @ 1..) = near.read(&mut chunk) {
            if passed + n > after {
                if damage && passed <= after {
                    chunk[after - passed] ^= 0x40;
                } else if !damage {
                    let _ = far.write_all(&chunk[..after - passed]);
                    let _ = near.shutdown(std::net::Shutdown::Both);
                    let _ = far.shutdown(std::net::Shutdown::Both);
                    return;
                }
            }
            passed += n;
            if far.write_all(&chunk[..n]).is_err() {
                break;
            }
        }
        let _ = far.shutdown(std::net::Shutdown::Write);
    });
    (client, server)
}

#[test]
fn a_cut_or_damaged_connection_anywhere_leaves_exactly_one_whole_guest() {
    let from = Guest::new("trouble");
    while_writing(&from, Manners::Right, 200, || {
        for (number, after) in [0, 10, 30, 100, 300, 1000, 5_000, 40_000, 90_000].into_iter().enumerate() {
            for damage in [false, true] {
                let to = Guest::new("trouble");
                let (outcome, received, _) =
                    migrate(&from, &to, troubled(after, damage), &limits(), &Arc::default(), |_| {});
                match outcome {
                    Outcome::StaysHere(_) => {
                        assert!(received.is_err(), "case {number}: both sides have the guest");
                        assert_eq!(from.vm.pause_mask.load(Ordering::SeqCst), 0, "case {number}");
                        assert_ne!(to.vm.pause_mask.load(Ordering::SeqCst), 0, "case {number}");
                    }
                    // The stream was over before the trouble came.
                    Outcome::Completed(_) => {
                        received.expect("received");
                        from.vm.unpause(pause::MIGRATOR);
                    }
                    Outcome::Unclear(error) => panic!("case {number}: {error:#}"),
                }
            }
        }
    });
}

#[test]
fn a_refusal_reaches_the_user_with_its_reason() {
    let (from, sockets) = (Guest::new("refuse"), connected());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = peer(sockets.1, &Arc::default());
            let refuse = |_: &_| Err(anyhow::anyhow!("no room: 3 GiB of memory are free, 8 are needed"));
            assert!(
                destination::receive(&mut peer, None, refuse, &Obstacle::default(), &mut |_| {}).is_err()
            );
        });
        let cancelled = Arc::default();
        let outcome =
            send(&from.local, || Ok(peer(sockets.0, &cancelled)), &alone, &limits(), &cancelled, &mut |_| {});
        let Outcome::StaysHere(error) = outcome else { panic!("{outcome:?}") };
        assert!(format!("{error:#}").contains("3 GiB of memory are free"), "{error:#}");
    });
}

/// A guest on its way to a host that its network does not reach, from before its first round on; it does after `until`.
fn with_an_obstacle(until: Option<Duration>) -> (Outcome, anyhow::Result<()>, Guest, Guest) {
    let (from, to, sockets) = (Guest::new("detour"), Guest::new("detour"), connected());
    let obstacle = Obstacle::default();
    obstacle.set(Some("no link to the switch at 10.0.0.1:7701".into()));
    to.vm.pause(pause::MIGRATOR);
    let (outcome, received) = std::thread::scope(|scope| {
        let received = scope.spawn(|| {
            let mut peer = peer(sockets.1, &Arc::default());
            destination::receive(&mut peer, None, |_| Ok(to.local.clone()), &obstacle, &mut |_| {})
        });
        scope.spawn(|| {
            if let Some(until) = until {
                std::thread::sleep(until);
                obstacle.set(None);
            }
        });
        let cancelled = Arc::default();
        // As a migrator has it: longer than the other side waits for the obstacle to go.
        let connect = || Ok(Peer::new(plain(sockets.0), &cancelled, PATIENCE));
        let outcome = send(&from.local, connect, &alone, &limits(), &cancelled, &mut |_| {});
        (outcome, received.join().expect("receiver"))
    });
    (outcome, received, from, to)
}

#[test]
fn no_guest_goes_where_its_network_does_not_reach() {
    let (outcome, received, from, to) = with_an_obstacle(None);
    let Outcome::StaysHere(error) = outcome else { panic!("{outcome:?}") };
    assert!(format!("{error:#}").contains("no link to the switch at 10.0.0.1:7701"), "{error:#}");
    assert!(received.is_err() && to.vm.pause_mask.load(Ordering::SeqCst) != 0);
    assert_eq!(from.vm.pause_mask.load(Ordering::SeqCst), 0, "it runs where it was");
    let (outcome, received, ..) = with_an_obstacle(Some(Duration::from_millis(300)));
    assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
    received.expect("it has come");
}
