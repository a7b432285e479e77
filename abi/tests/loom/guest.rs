//! The guest's memory model on the host's: the accesses that quasar-cpu makes for loads, stores, fences and
//! atomics, in the shapes ("litmus tests") by which memory models are told apart.

use loom::sync::atomic::fence;
use loom::thread;
use quasar_abi::AtomicLe64;
use quasar_abi::le::order_atomic;
use quasar_abi::sync::model;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// `Width::load` and `Width::store`: single-copy atomic, unordered.
fn load(cell: &AtomicLe64) -> u64 {
    cell.load(Ordering::Relaxed)
}

fn store(cell: &AtomicLe64, value: u64) {
    cell.store(value, Ordering::Relaxed);
}

/// `Op::Fence`, whatever its operands.
fn guest_fence() {
    fence(Ordering::SeqCst);
}

/// `Memory::amo64`.
fn amoadd(cell: &AtomicLe64, by: u64) -> u64 {
    order_atomic();
    cell.fetch_add(by, Ordering::SeqCst)
}

/// `Memory::load_reserved`.
fn lr(cell: &AtomicLe64) -> u64 {
    order_atomic();
    cell.load(Ordering::SeqCst)
}

/// `Memory::store_conditional` of what `lr` saw.
fn sc(cell: &AtomicLe64, seen: u64, value: u64) -> bool {
    order_atomic();
    cell.compare_exchange(seen, value, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

type Words = Arc<[AtomicLe64; 3]>;

fn words() -> Words {
    Arc::new([AtomicLe64::new(0), AtomicLe64::new(0), AtomicLe64::new(0)])
}

fn other(words: &Words, act: impl FnOnce(&Words) -> u64 + 'static) -> thread::JoinHandle<u64> {
    let words = Arc::clone(words);
    thread::spawn(move || act(&words))
}

/// MP.
#[test]
fn a_message_behind_a_fence_is_seen_behind_a_fence() {
    model(3, || {
        let words = words();
        let writer = other(&words, |w| {
            store(&w[0], 1);
            guest_fence();
            store(&w[1], 1);
            0
        });
        let flag = load(&words[1]);
        guest_fence();
        assert!(flag == 0 || load(&words[0]) == 1);
        writer.join().unwrap();
    });
}

fn store_buffering(between: fn(&AtomicLe64)) {
    let words = words();
    let second = other(&words, move |w| {
        store(&w[1], 1);
        between(&w[2]);
        load(&w[0])
    });
    store(&words[0], 1);
    between(&words[2]);
    let mine = load(&words[1]);
    assert!(mine == 1 || second.join().unwrap() == 1, "both loads came before both stores");
}

/// SB with fence rw,rw.
#[test]
fn fences_order_stores_with_later_loads() {
    model(3, || store_buffering(|_| guest_fence()));
}

#[test]
#[should_panic(expected = "both loads")]
fn without_fences_stores_pass_later_loads() {
    model(3, || store_buffering(|_| ()));
}

/// SB with amoadd.aqrl to different words: an atomic that acquires and releases is one point of the memory
/// order, which no store before and no load after passes (RVWMO, rules 5 and 6 of the preserved program order).
#[test]
fn atomics_order_stores_with_later_loads() {
    model(3, || {
        let words = words();
        let scratch = Arc::new([AtomicLe64::new(0), AtomicLe64::new(0)]);
        let mine = Arc::clone(&scratch);
        let second = other(&words, move |w| {
            store(&w[1], 1);
            amoadd(&mine[1], 1);
            load(&w[0])
        });
        store(&words[0], 1);
        amoadd(&scratch[0], 1);
        let first = load(&words[1]);
        assert!(first == 1 || second.join().unwrap() == 1, "both loads came before both stores");
    });
}

/// The same with the host's sequentially consistent atomic alone, as it was: aarch64's pair of exclusive load
/// and store is no barrier for what stands around it.
#[test]
#[should_panic(expected = "both loads")]
fn a_bare_host_atomic_fails_to_order_stores_with_later_loads() {
    model(3, || {
        let words = words();
        let second = other(&words, |w| {
            store(&w[1], 1);
            w[2].fetch_add(1, Ordering::AcqRel);
            load(&w[0])
        });
        store(&words[0], 1);
        let apart = AtomicLe64::new(0);
        apart.fetch_add(1, Ordering::AcqRel);
        let first = load(&words[1]);
        assert!(first == 1 || second.join().unwrap() == 1, "both loads came before both stores");
    });
}

/// SB with lr.aqrl in place of the load.
#[test]
fn a_load_reserved_comes_after_earlier_stores() {
    model(3, || {
        let words = words();
        let second = other(&words, |w| {
            store(&w[1], 1);
            lr(&w[0])
        });
        store(&words[0], 1);
        let first = lr(&words[1]);
        assert!(first == 1 || second.join().unwrap() == 1, "both loads came before both stores");
    });
}

/// A lock by LR and SC around plain accesses, released by a fence and a plain store.
#[test]
fn a_lock_by_reservation_protects_plain_accesses() {
    fn locked_increment(w: &Words) {
        loop {
            let seen = lr(&w[0]);
            if seen == 0 && sc(&w[0], seen, 1) {
                break;
            }
            thread::yield_now();
        }
        store(&w[1], load(&w[1]) + 1);
        guest_fence();
        store(&w[0], 0);
    }
    model(2, || {
        let words = words();
        let second = other(&words, |w| {
            locked_increment(w);
            0
        });
        locked_increment(&words);
        second.join().unwrap();
        assert_eq!(load(&words[1]), 2);
    });
}
