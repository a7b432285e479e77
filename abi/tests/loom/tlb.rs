//! A hart's translation cache: filled by the mmu, probed and flushed by the hart.

use loom::thread;
use quasar_abi::mailbox::Mailbox;
use quasar_abi::sync::model;
use quasar_abi::tlb::{HartTlb, flag};
use quasar_abi::{AtomicLe64, ShmLayout};
use std::sync::Arc;

const SV39: u64 = 8 << 60;

/// One set of one way: all pages are in each other's way.
struct Shared {
    mailbox: Mailbox,
    va: AtomicLe64,
    tlb: HartTlb,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self { mailbox: Mailbox::zeroed(), va: AtomicLe64::new(0), tlb: HartTlb::zeroed() })
    }

    fn ask(&self, va: u64) {
        self.va.set(va);
        self.mailbox.post();
    }

    fn fill(&self, va: u64) {
        self.tlb.fill(va, 0, SV39, page(va) | flag::R, self.tlb.generation_word(SV39, 0));
    }
}

const fn page(va: u64) -> u64 {
    0x8000_0000 + va
}

fn mmu(shared: &Arc<Shared>, requests: usize) -> thread::JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        for _ in 0..requests {
            while !shared.mailbox.pending() {
                thread::yield_now();
            }
            shared.fill(shared.va.get());
            shared.mailbox.complete();
        }
    })
}

#[test]
fn the_mailbox_orders_fills_with_probes_and_flushes() {
    model(3, || {
        let shared = Shared::new();
        let mmu = mmu(&shared, 2);
        for va in [0x1000, 0x2000] {
            shared.ask(va);
            assert!(shared.mailbox.wait(0, || true));
            assert_eq!(shared.tlb.probe(va, SV39, 0), Some(page(va) | flag::R));
            shared.tlb.flush_all();
            assert_eq!(shared.tlb.probe(va, SV39, 0), None);
        }
        mmu.join().unwrap();
    });
}

/// Why a hart that goes on waits for the answer that it had left behind before it does anything else.
#[test]
#[should_panic(expected = "another page's translation")]
fn probing_while_the_mmu_fills_fails() {
    model(3, || {
        let shared = Shared::new();
        shared.fill(0x1000);
        let mmu = mmu(&shared, 1);
        shared.ask(0x2000);
        shared.tlb.flush_all();
        for va in [0x1000, 0x2000] {
            let found = shared.tlb.probe(va, SV39, 0);
            assert!(found.is_none_or(|to| to == page(va) | flag::R), "another page's translation");
        }
        mmu.join().unwrap();
    });
}

#[test]
fn a_hart_that_goes_on_takes_the_answer_it_left_behind_first() {
    model(3, || {
        let shared = Shared::new();
        shared.fill(0x1000);
        let mmu = mmu(&shared, 1);
        shared.ask(0x2000);
        // As Memory::take_left_over in quasar-cpu, then HartRunner::take_up_state.
        if shared.mailbox.pending() {
            assert!(shared.mailbox.wait(0, || true));
        }
        shared.tlb.flush_all();
        for va in [0x1000, 0x2000] {
            assert_eq!(shared.tlb.probe(va, SV39, 0), None);
        }
        mmu.join().unwrap();
    });
}
