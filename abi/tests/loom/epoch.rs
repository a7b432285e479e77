//! Dirty epochs: no write is lost, whenever a round is closed.

use loom::sync::RwLock;
use loom::thread;
use quasar_abi::dirty::PageMaps;
use quasar_abi::party::{PartyId, status};
use quasar_abi::sync::model;
use quasar_abi::vm::{Vm, VmControl};
use quasar_abi::{AtomicLe64, Segment};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const HART: PartyId = PartyId::Hart(0);

/// A VM with one page of RAM, which is one word long.
struct Machine {
    vm: Vm,
    maps: PageMaps,
    page: AtomicLe64,
    marking: RwLock<()>,
}

impl Machine {
    fn new() -> Arc<Self> {
        let vm = Vm::new(Arc::new(Segment::of::<VmControl>(1))).unwrap();
        vm.harts.set(1);
        let maps = PageMaps::new(Arc::new(Segment::of::<AtomicLe64>(3)), 0, 4096).unwrap();
        Arc::new(Self { vm, maps, page: AtomicLe64::new(0), marking: RwLock::new(()) })
    }

    fn mark(&self) {
        self.maps.mark(self.vm.epoch.load(Ordering::SeqCst), 0, 1);
    }

    /// The collector's round in its order: `await_acknowledgement` is what must not be left out.
    fn round(&self, copy: &mut u64, await_acknowledgement: bool) {
        let closed = self.vm.next_epoch();
        while await_acknowledgement && !self.vm.epoch_acknowledged() {
            thread::yield_now();
        }
        let mut dirty = false;
        self.maps.drain(closed, |_| dirty = true);
        if dirty {
            *copy = self.page.get();
        }
    }

    /// Rounds while somebody writes; then, at rest, what both maps still say.
    fn collect(&self, rounds: usize, writer: thread::JoinHandle<()>, await_acknowledgement: bool) {
        let mut copy = 0;
        for _ in 0..rounds {
            self.round(&mut copy, await_acknowledgement);
        }
        writer.join().unwrap();
        self.round(&mut copy, await_acknowledgement);
        self.round(&mut copy, await_acknowledgement);
        assert_eq!(copy, self.page.get(), "a write is missing from the copy");
    }
}

/// A hart: `HartRunner::acknowledge_epoch` between stores, and `Memory::log` before one to a page that its own
/// translations do not let it write yet (first the mark, then the store).
fn hart(machine: &Arc<Machine>, stores: u64) -> thread::JoinHandle<()> {
    let machine = Arc::clone(machine);
    machine.vm.party(HART).status.store(status::RUNNING, Ordering::SeqCst);
    thread::spawn(move || {
        let party = machine.vm.party(HART);
        let mut writable = false;
        for value in 1..=stores {
            let epoch = machine.vm.epoch.load(Ordering::SeqCst);
            if party.epoch_ack.load(Ordering::SeqCst) != epoch {
                writable = false;
                party.epoch_ack.store(epoch, Ordering::SeqCst);
            }
            if !writable {
                machine.mark();
                writable = true;
            }
            machine.page.set(value);
        }
        machine.vm.park(HART);
    })
}

#[test]
fn no_store_of_a_hart_is_lost() {
    model(3, || {
        let machine = Machine::new();
        let hart = hart(&machine, 2);
        machine.collect(1, hart, true);
    });
}

#[test]
fn a_map_that_comes_round_again_loses_nothing() {
    model(2, || {
        let machine = Machine::new();
        let hart = hart(&machine, 3);
        machine.collect(2, hart, true);
    });
}

#[test]
#[should_panic(expected = "missing from the copy")]
fn copying_before_the_acknowledgement_fails() {
    model(3, || {
        let machine = Machine::new();
        let hart = hart(&machine, 2);
        machine.collect(1, hart, false);
    });
}

/// A hart that is parked has no grants. One that goes on while a round is closed: `try_run`, then
/// `acknowledge_epoch`, as in `HartRunner::take_up_state`.
#[test]
fn a_hart_that_goes_on_in_the_middle_of_a_round_loses_nothing() {
    model(3, || {
        let machine = Machine::new();
        machine.mark();
        machine.page.set(1);
        machine.vm.park(HART);
        let hart = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                assert!(machine.vm.try_run(HART));
                let party = machine.vm.party(HART);
                let epoch = machine.vm.epoch.load(Ordering::SeqCst);
                party.epoch_ack.store(epoch, Ordering::SeqCst);
                machine.mark();
                machine.page.set(2);
                machine.vm.park(HART);
            })
        };
        machine.collect(1, hart, true);
    });
}

/// Devices: the lines of `Dma::marked` and `Dma::acknowledge_epoch` in quasar-devices, with `loom`'s lock; a
/// worker writes while the server acknowledges.
#[test]
fn no_write_of_a_device_is_lost() {
    model(2, || {
        let machine = Machine::new();
        machine.vm.log_active.set(1);
        let devices = machine.vm.party(PartyId::Devices);
        devices.status.store(status::RUNNING, Ordering::SeqCst);
        let worker = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                let _marking = machine.marking.read().unwrap();
                machine.page.set(1);
                if machine.vm.log_active.load(Ordering::SeqCst) != 0 {
                    machine.mark();
                }
            })
        };
        let server = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                let acknowledged = &machine.vm.party(PartyId::Devices).epoch_ack;
                if acknowledged.get() != machine.vm.epoch.load(Ordering::SeqCst) {
                    let _none_marking = machine.marking.write().unwrap();
                    acknowledged.store(machine.vm.epoch.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                worker.join().unwrap();
                machine.vm.park(PartyId::Devices);
            })
        };
        machine.collect(1, server, true);
    });
}
