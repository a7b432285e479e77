//! The guest's clock: a writer, and readers that take the time meanwhile.

use loom::thread;
use quasar_abi::ShmLayout;
use quasar_abi::clock::VmClock;
use quasar_abi::sync::model;
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn clock() -> Arc<VmClock> {
    let clock = VmClock::zeroed();
    clock.set_base(1, 10);
    Arc::new(clock)
}

#[test]
fn readers_see_bases_that_are_whole_and_never_an_older_one() {
    model(3, || {
        let clock = clock();
        let writer = {
            let clock = Arc::clone(&clock);
            thread::spawn(move || {
                clock.set_base(2, 20);
                clock.set_base(3, 30);
            })
        };
        let (ticks, host_ns) = clock.base();
        assert_eq!(host_ns, ticks * 10, "words of two changes");
        let (later, host_ns) = clock.base();
        assert_eq!(host_ns, later * 10, "words of two changes");
        assert!(later >= ticks, "time went back");
        writer.join().unwrap();
        assert_eq!(clock.base(), (3, 30));
    });
}

/// As [`VmClock::set_base`], but the writer ends before its last store, or before the last two.
#[test]
fn a_writer_that_ends_in_the_middle_changes_nothing() {
    for stores in [1, 2] {
        model(3, move || {
            let clock = clock();
            let writer = {
                let clock = Arc::clone(&clock);
                thread::spawn(move || {
                    let next = &clock.bases[usize::from(clock.selector.get() & 1 == 0)];
                    for cell in [&next.ticks, &next.host_ns].into_iter().take(stores) {
                        cell.store(99, Ordering::Release);
                    }
                })
            };
            assert_eq!(clock.base(), (1, 10));
            writer.join().unwrap();
            assert_eq!(clock.base(), (1, 10));
            clock.set_base(2, 20);
            assert_eq!(clock.base(), (2, 20));
        });
    }
}

/// Why the words of a base are stored with release and loaded with acquire order.
#[test]
#[should_panic(expected = "words of two changes")]
fn filling_a_base_without_order_fails() {
    model(3, || {
        let clock = clock();
        let writer = {
            let clock = Arc::clone(&clock);
            thread::spawn(move || {
                for (selector, ticks) in [(2, 2), (3, 3)] {
                    let next = &clock.bases[usize::from(selector & 1 != 0)];
                    next.ticks.set(ticks);
                    next.host_ns.set(ticks * 10);
                    clock.selector.store(selector, Ordering::Release);
                }
            })
        };
        let (ticks, host_ns) = clock.base();
        assert_eq!(host_ns, ticks * 10, "words of two changes");
        writer.join().unwrap();
    });
}
