//! Dirty rounds: every interleaving of a hart that stores and a collector that copies.
//!
//! The hart goes through the real cache and the real filler, which writes page tables, and marks what it stores
//! to as `Memory::translate` in quasar-cpu does; the collector goes through the real maps. After the last round
//! the copy must equal the memory. The order of `abi::dirty` never loses a write; copying before the
//! acknowledgement, which looks just as good, does.

mod common;

use common::pte::build;
use common::vm::{Ask, RAM_BYTES, ROOT, SATP, TestVm};
use quasar_abi::GuestRam;
use quasar_abi::machine::RAM_BASE;
use quasar_abi::party::PartyId;
use quasar_abi::ram::PAGE_BYTES;
use quasar_abi::tlb::{HartTlb, access, flag};
use quasar_mmu::fill::{Answer, TlbFiller};
use quasar_mmu::pmp::{Pmp, PmpWords};
use quasar_mmu::request::Request;
use quasar_mmu::walk::pte;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

const DATA: u64 = RAM_BASE + 0x40_0000;
const VA: u64 = 0x4000_0000;
const RWX: u64 = pte::V | pte::R | pte::W | pte::X;
/// The hart's stores: pages by number. The second store to page 0 comes through what the first one got.
const STORES: [u64; 3] = [0, 1, 0];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    LogOn,
    NextEpoch,
    AwaitAcknowledgement,
    CopyAll,
    CopyMarked,
}

const RIGHT: [Step; 7] = [
    Step::LogOn,
    Step::NextEpoch,
    Step::AwaitAcknowledgement,
    Step::CopyAll,
    Step::NextEpoch,
    Step::AwaitAcknowledgement,
    Step::CopyMarked,
];
/// The classic mistake.
const WRONG: [Step; 7] = [
    Step::LogOn,
    Step::NextEpoch,
    Step::AwaitAcknowledgement,
    Step::CopyAll,
    Step::NextEpoch,
    Step::CopyMarked,
    Step::AwaitAcknowledgement,
];

/// Where the data lies.
#[derive(Clone, Copy, Debug)]
enum Mapping {
    Pages,
    Superpage,
    Bare,
}

struct World<'a> {
    test: &'a TestVm,
    mapping: Mapping,
    pmp: Pmp,
    copy: BTreeMap<u64, Vec<u8>>,
    /// Half steps done: an even one finds out where to store, an odd one stores.
    hart_steps: usize,
    found: u64,
    /// Pages that the hart stores to without a look: its L1.
    writable: Vec<u64>,
}

fn page(ram: &GuestRam, gpa: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    ram.read(gpa, &mut bytes).expect("RAM");
    bytes
}

impl<'a> World<'a> {
    fn new(test: &'a TestVm, mapping: Mapping) -> Self {
        let vm = &test.vm;
        vm.log_active.set(0);
        let epoch = vm.epoch.get();
        test.maps.drain(epoch, |_| ());
        test.maps.drain(epoch + 1, |_| ());
        vm.party(PartyId::Hart(0)).epoch_ack.set(epoch);
        test.cache(0).flush_all();
        test.ram.fill(ROOT, 0, 8 * PAGE_BYTES).expect("RAM");
        test.ram.fill(DATA, 0, 2 * PAGE_BYTES).expect("RAM");
        match mapping {
            // D is clear: the mmu writes the leaf tables, whose pages must be copied as well.
            Mapping::Pages => {
                for n in 0..2 {
                    test.map(VA + n * PAGE_BYTES, 0, build(DATA + n * PAGE_BYTES, RWX | pte::A));
                }
            }
            Mapping::Superpage => {
                test.map(VA, 1, build(DATA, RWX | pte::A));
            }
            Mapping::Bare => {}
        }
        let pmp = Pmp::new(PmpWords::of(&vm.pmp[0]));
        Self { test, mapping, pmp, copy: BTreeMap::new(), hart_steps: 0, found: 0, writable: vec![] }
    }

    fn pages() -> impl Iterator<Item = u64> {
        (0..8).map(|n| ROOT + n * PAGE_BYTES).chain((0..2).map(|n| DATA + n * PAGE_BYTES))
    }

    fn hart_done(&self) -> bool {
        self.hart_steps == 2 * STORES.len()
    }

    /// Instruction boundary: takes a new epoch as harts do.
    fn safepoint(&mut self) {
        let party = self.test.vm.party(PartyId::Hart(0));
        let epoch = self.test.vm.epoch.load(Ordering::SeqCst);
        if party.epoch_ack.get() != epoch {
            self.writable.clear();
            party.epoch_ack.store(epoch, Ordering::SeqCst);
        }
    }

    fn hart(&mut self) {
        if self.hart_done() {
            return self.safepoint();
        }
        let number = STORES[self.hart_steps / 2];
        if self.hart_steps.is_multiple_of(2) {
            self.safepoint();
            self.found = self.find(number);
        } else {
            let cell = self.test.ram.cell64(self.found).expect("RAM");
            cell.set(cell.get() + 1 + self.hart_steps as u64);
        }
        self.hart_steps += 1;
    }

    /// The guest-physical address to store to, marked: from the cache, or from the mmu.
    fn find(&mut self, number: u64) -> u64 {
        let gpa = self.translate(number);
        if !self.writable.contains(&gpa) {
            let vm = &self.test.vm;
            if vm.log_active.load(Ordering::SeqCst) != 0 {
                self.test.maps.mark(vm.epoch.load(Ordering::SeqCst), gpa, 1);
            }
            self.writable.push(gpa);
        }
        gpa
    }

    fn translate(&self, number: u64) -> u64 {
        let tlb: &HartTlb = self.test.cache(0);
        let ask = match self.mapping {
            Mapping::Bare => Ask::bare(DATA + number * PAGE_BYTES, access::WRITE),
            Mapping::Pages | Mapping::Superpage => Ask::write(VA + number * PAGE_BYTES),
        };
        if let Some(found) = tlb.probe(ask.va, ask.space, flag::D) {
            return found & flag::GPA;
        }
        let mail = &self.test.vm.mmu_mail[0];
        mail.va.set(ask.va);
        mail.space.set(ask.space);
        mail.access.set(ask.access);
        mail.privilege.set(ask.privilege);
        mail.menvcfg.set(ask.menvcfg);
        mail.len.set(ask.len);
        let request = Request::try_from(mail).expect("sensible");
        let (test, pmp) = (self.test, &self.pmp);
        let filler = TlbFiller { ram: &test.ram, maps: &test.maps, control: &test.vm, tlb, pmp };
        match filler.answer(&request).0 {
            Answer::Ok(flags) => {
                assert_ne!(flags & flag::D, 0);
                flags & flag::GPA
            }
            other => panic!("{other:?}"),
        }
    }

    /// Whether the step could be done.
    fn collect(&mut self, step: Step) -> bool {
        let vm = &self.test.vm;
        match step {
            Step::LogOn => vm.log_active.store(1, Ordering::SeqCst),
            Step::NextEpoch => drop(vm.next_epoch()),
            Step::AwaitAcknowledgement => return vm.epoch_acknowledged(),
            Step::CopyAll => {
                self.test.maps.drain(vm.epoch.get() - 1, |_| ());
                for gpa in Self::pages() {
                    self.copy.insert(gpa, page(&self.test.ram, gpa));
                }
            }
            Step::CopyMarked => self.copy_marked(vm.epoch.get() - 1),
        }
        true
    }

    fn copy_marked(&mut self, epoch: u64) {
        let (ram, copy) = (&self.test.ram, &mut self.copy);
        self.test.maps.drain(epoch, |gpa| {
            copy.insert(gpa, page(ram, gpa));
        });
    }

    /// Runs a schedule (a bit per step: the collector's turn or the hart's), stops the hart at a
    /// boundary, copies what is marked, and says whether the copy is whole.
    fn whole_after(mut self, collector: &[Step], schedule: u32) -> bool {
        let mut next = 0;
        for turn in 0.. {
            if next == collector.len() && self.hart_done() {
                break;
            }
            let collectors = next < collector.len() && (self.hart_done() || schedule >> (turn % 32) & 1 != 0);
            if collectors && self.collect(collector[next]) {
                next += 1;
            } else {
                self.hart();
            }
        }
        let epoch = self.test.vm.epoch.get();
        self.copy_marked(epoch + 1);
        self.copy_marked(epoch);
        Self::pages().all(|gpa| self.copy[&gpa] == page(&self.test.ram, gpa))
    }
}

/// Schedules after which the copy differs from the memory.
fn losses(collector: &[Step], mapping: Mapping) -> usize {
    let test = TestVm::new(1);
    assert!(test.ram.len() == RAM_BYTES && SATP >> 60 == 8);
    let turns = collector.len() + 2 * STORES.len();
    (0..1 << turns).filter(|schedule| !World::new(&test, mapping).whole_after(collector, *schedule)).count()
}

#[test]
fn acknowledged_before_copied_loses_nothing() {
    for mapping in [Mapping::Pages, Mapping::Superpage, Mapping::Bare] {
        assert_eq!(losses(&RIGHT, mapping), 0, "{mapping:?}");
    }
}

#[test]
fn copied_before_acknowledged_loses_writes() {
    for mapping in [Mapping::Pages, Mapping::Superpage, Mapping::Bare] {
        assert_ne!(losses(&WRONG, mapping), 0, "{mapping:?}: this test would not notice a lost write");
    }
}

/// The log costs no translation: a superpage stays one entry, which outlives the epoch.
#[test]
fn entries_are_the_same_while_the_log_is_on() {
    let test = TestVm::new(1);
    let mut world = World::new(&test, Mapping::Superpage);
    let tlb = test.cache(0);
    test.vm.log_active.set(1);
    world.find(0);
    let epoch = test.vm.next_epoch() + 1;
    world.safepoint();
    assert!(tlb.probe(VA + 0x5000, SATP, flag::D).is_some());
    assert_eq!(tlb.fractured.get(), 0);
    assert_eq!(test.maps.count(epoch), 0, "nothing was written in this epoch");
}
