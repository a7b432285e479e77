//! Journeys that nothing disturbs.

use crate::guest::{Guest, Manners, PAGES, RAM, differences, while_writing};
use crate::wire::{connected, limits, migrate};
use quasar_abi::control::migrator::{Limits, MigrationEvent};
use quasar_abi::machine::RAM_BASE;
use quasar_abi::vm::pause;
use quasar_migrator::source::Outcome;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[test]
fn a_writing_guest_arrives_whole() {
    let (from, to) = (Guest::new("whole"), Guest::new("whole"));
    from.ram.write(RAM_BASE + 5000, b"old").expect("RAM");
    let (outcome, received, events) = while_writing(&from, Manners::Right, PAGES / 2, || {
        migrate(&from, &to, connected(), &limits(), &Arc::default(), |_| {})
    });
    received.expect("received");
    let Outcome::Completed(MigrationEvent::Completed { rounds, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(rounds >= 2);
    assert_eq!(differences(&from, &to), Vec::<u64>::new());
    assert!(from.disk() == to.disk(), "the disks differ");
    let step = |guest: &Guest| guest.vm.hart_state[0].current().retired.get();
    assert!(step(&from) > 0 && step(&from) == step(&to));
    assert_eq!(to.vm.pause_mask.load(Ordering::SeqCst), 0, "the destination runs");
    assert_ne!(from.vm.pause_mask.load(Ordering::SeqCst), 0, "the source never runs again");
    assert!(to.vm.clock.ticks(0) + 10_000_000 >= from.vm.clock.ticks(0), "time went on");
    assert!(events.iter().any(|e| matches!(e, MigrationEvent::HandingOver)));
}

#[test]
fn ten_journeys_in_a_row_lose_nothing() {
    let guests = [Guest::new("hops"), Guest::new("hops"), Guest::new("hops")];
    for hop in 0..10 {
        let (from, to) = (&guests[hop % 3], &guests[(hop + 1) % 3]);
        // What is left of an earlier stay is dropped, as the supervisor drops it.
        to.ram.fill(RAM_BASE, 0, RAM).expect("RAM");
        let (outcome, received, _) = while_writing(from, Manners::Right, 300, || {
            migrate(from, to, connected(), &limits(), &Arc::default(), |_| {})
        });
        received.expect("received");
        assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
        assert_eq!(differences(from, to), Vec::<u64>::new(), "hop {hop}");
        from.vm.unpause(pause::MIGRATOR);
        from.vm.log_active.store(0, Ordering::SeqCst);
    }
}

#[test]
fn a_writer_that_keeps_its_grants_over_an_epoch_loses_writes_and_this_test_sees_it() {
    let lost = (0..20).any(|_| {
        let (from, to) = (Guest::new("classic"), Guest::new("classic"));
        let slow = Limits { bandwidth: 4 << 20, ..limits() };
        let (outcome, ..) = while_writing(&from, Manners::KeepsGrants, 64, || {
            migrate(&from, &to, connected(), &slow, &Arc::default(), |_| {})
        });
        matches!(outcome, Outcome::Completed(_)) && !differences(&from, &to).is_empty()
    });
    assert!(lost, "the broken order went unnoticed twenty times: the other tests prove nothing");
}
