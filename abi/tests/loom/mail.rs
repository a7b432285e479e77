//! Mailboxes and doorbells.

use loom::thread;
use quasar_abi::doorbell::Doorbell;
use quasar_abi::mailbox::Mailbox;
use quasar_abi::sync::model;
use quasar_abi::{AtomicLe64, ShmLayout};
use std::sync::Arc;
use std::sync::atomic::Ordering;

struct Desk {
    mailbox: Mailbox,
    /// The server's.
    doorbell: Doorbell,
    question: AtomicLe64,
    answer: AtomicLe64,
    served: AtomicLe64,
}

impl Desk {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            mailbox: Mailbox::zeroed(),
            doorbell: Doorbell::zeroed(),
            question: AtomicLe64::new(0),
            answer: AtomicLe64::new(0),
            served: AtomicLe64::new(0),
        })
    }

    fn ask(&self, question: u64) {
        self.question.set(question);
        self.mailbox.post();
        self.doorbell.ring();
    }

    /// As the mmu's and the devices' loops: what is seen of the bell, then the mailbox, then sleep.
    fn await_request(&self) {
        loop {
            let seen = self.doorbell.seen();
            if self.mailbox.pending() {
                return;
            }
            self.doorbell.wait(seen, None);
        }
    }

    fn work(&self) {
        self.answer.set(self.question.get() * 10);
        self.served.bump(1);
    }
}

#[test]
fn each_request_gets_its_own_answer_and_nobody_sleeps_for_ever() {
    model(3, || {
        let desk = Desk::new();
        let server = {
            let desk = Arc::clone(&desk);
            thread::spawn(move || {
                for _ in 0..2 {
                    desk.await_request();
                    desk.work();
                    desk.mailbox.complete();
                }
            })
        };
        for question in [1, 2] {
            desk.ask(question);
            assert!(desk.mailbox.wait(0, || true));
            assert_eq!(desk.answer.get(), question * 10);
        }
        server.join().unwrap();
    });
}

#[test]
fn a_request_outlives_its_server_and_is_served_again_by_the_next() {
    model(2, || {
        let desk = Desk::new();
        let server = {
            let desk = Arc::clone(&desk);
            thread::spawn(move || {
                desk.await_request();
                // Killed here: nobody has been told. Its successor looks at the mailbox without a ring.
                desk.work();
                assert!(desk.mailbox.pending());
                desk.work();
                desk.mailbox.complete();
                assert!(!desk.mailbox.pending());
            })
        };
        desk.ask(7);
        assert!(desk.mailbox.wait(0, || true));
        assert_eq!(desk.answer.get(), 70);
        server.join().unwrap();
    });
}

#[test]
fn an_answer_that_was_given_up_is_taken_later_and_served_once() {
    model(3, || {
        let desk = Desk::new();
        let server = {
            let desk = Arc::clone(&desk);
            thread::spawn(move || {
                for _ in 0..2 {
                    desk.await_request();
                    desk.work();
                    desk.mailbox.complete();
                }
            })
        };
        desk.ask(1);
        // With 1 spin and no patience: the hart is to park. What cpu/src/mem/mmio.rs does then and afterwards.
        let mut first = true;
        while desk.mailbox.answered.load(Ordering::Acquire) != desk.mailbox.posted.get() {
            if !first || desk.mailbox.wait(1, || false) {
                assert!(desk.mailbox.wait(0, || true));
            }
            first = false;
        }
        assert_ne!(desk.mailbox.posted.get(), desk.mailbox.taken.get());
        desk.mailbox.taken.set(desk.mailbox.posted.get());
        assert_eq!((desk.answer.get(), desk.served.get()), (10, 1));
        desk.ask(2);
        assert!(desk.mailbox.wait(0, || true));
        assert_eq!((desk.answer.get(), desk.served.get()), (20, 2));
        server.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "stale")]
fn posting_before_the_words_are_written_fails() {
    model(2, || {
        let desk = Desk::new();
        let server = {
            let desk = Arc::clone(&desk);
            thread::spawn(move || {
                desk.await_request();
                assert_eq!(desk.question.get(), 1, "stale");
            })
        };
        desk.mailbox.post();
        desk.question.set(1);
        desk.doorbell.ring();
        server.join().unwrap();
    });
}

fn ringer(bell: &Arc<(Doorbell, AtomicLe64)>) -> thread::JoinHandle<()> {
    let bell = Arc::clone(bell);
    thread::spawn(move || {
        bell.1.set(bell.1.get() + 1);
        bell.0.ring();
    })
}

#[test]
fn a_ring_wakes_every_waiter_and_shows_what_was_stored_before() {
    model(3, || {
        let bell = Arc::new((Doorbell::zeroed(), AtomicLe64::new(0)));
        let wait = |bell: &(Doorbell, AtomicLe64)| loop {
            let seen = bell.0.seen();
            if bell.1.get() != 0 {
                return;
            }
            bell.0.wait_spinning(seen, 1, None);
        };
        let ringer = ringer(&bell);
        let other = {
            let bell = Arc::clone(&bell);
            thread::spawn(move || wait(&bell))
        };
        wait(&bell);
        ringer.join().unwrap();
        other.join().unwrap();
        assert_eq!(bell.0.sleepers.get(), 0);
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn looking_at_the_words_before_the_bell_fails() {
    model(3, || {
        let bell = Arc::new((Doorbell::zeroed(), AtomicLe64::new(0)));
        let ringer = ringer(&bell);
        while bell.1.get() == 0 {
            let seen = bell.0.seen();
            bell.0.wait(seen, None);
        }
        ringer.join().unwrap();
    });
}
