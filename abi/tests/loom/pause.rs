//! The pause: who runs, who rests, who may touch what meanwhile.

#![allow(unsafe_code, reason = "loom's cells are read and written through raw pointers")]

use loom::cell::UnsafeCell;
use loom::thread;
use quasar_abi::Segment;
use quasar_abi::party::{PartyId, attention, status};
use quasar_abi::sync::model;
use quasar_abi::vm::{Vm, VmControl, pause};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const HART: PartyId = PartyId::Hart(0);

/// A VM with one hart, and its memory, in which the checker refuses any access that another one's does not
/// happen before.
struct Machine {
    vm: Vm,
    memory: UnsafeCell<u64>,
}

// SAFETY: the cell is the model: loom panics when two threads are in it at once.
unsafe impl Sync for Machine {}

impl Machine {
    fn new() -> Arc<Self> {
        let vm = Vm::new(Arc::new(Segment::of::<VmControl>(1))).unwrap();
        vm.harts.set(1);
        Arc::new(Self { vm, memory: UnsafeCell::new(0) })
    }

    fn write(&self) -> u64 {
        // SAFETY: see Sync.
        self.memory.with_mut(|value| unsafe {
            *value += 1;
            *value
        })
    }

    fn read(&self) -> u64 {
        // SAFETY: see Sync.
        self.memory.with(|value| unsafe { *value })
    }

    /// As `HartRunner::wait_until_free` in quasar-cpu.
    fn wait_until_free(&self) {
        let party = self.vm.party(HART);
        loop {
            let seen = party.doorbell.seen();
            party.attention.swap(0, Ordering::SeqCst);
            if self.vm.try_run(HART) {
                return;
            }
            party.doorbell.wait(seen, None);
        }
    }

    fn publish(&self, pc: u64) {
        let published = &self.vm.hart_state[0];
        published.next().pc.set(pc);
        published.publish();
    }

    fn pause_and_wait(&self) {
        self.vm.pause(pause::USER);
        while !self.vm.at_rest() {
            thread::yield_now();
        }
    }
}

fn hart(machine: &Arc<Machine>, steps: u64) -> thread::JoinHandle<()> {
    let machine = Arc::clone(machine);
    thread::spawn(move || {
        for _ in 0..steps {
            machine.wait_until_free();
            let pc = machine.write();
            machine.publish(pc);
            machine.vm.park(HART);
        }
    })
}

#[test]
fn at_rest_memory_and_state_belong_to_who_paused() {
    model(3, || {
        let machine = Machine::new();
        let hart = hart(&machine, 2);
        machine.pause_and_wait();
        let before = machine.read();
        assert_eq!(machine.vm.hart_state[0].current().pc.get(), before, "the state is the memory's");
        machine.write();
        machine.publish(before + 1);
        assert_eq!(machine.read(), before + 1, "nobody else writes");
        machine.vm.unpause(pause::USER);
        hart.join().unwrap();
        assert_eq!(machine.read(), 3);
        assert_eq!(machine.vm.hart_state[0].current().pc.get(), 3);
    });
}

#[test]
fn two_reasons_to_pause_are_both_waited_for() {
    model(2, || {
        let machine = Machine::new();
        machine.pause_and_wait();
        machine.vm.pause(pause::MIGRATOR);
        let hart = hart(&machine, 1);
        machine.vm.unpause(pause::USER);
        assert_eq!(machine.read(), 0);
        machine.vm.unpause(pause::MIGRATOR);
        hart.join().unwrap();
    });
}

#[test]
#[should_panic]
fn looking_at_the_mask_before_saying_that_one_runs_fails() {
    model(3, || {
        let machine = Machine::new();
        let hart = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                if machine.vm.pause_mask.load(Ordering::SeqCst) == 0 {
                    machine.vm.party(HART).status.store(status::RUNNING, Ordering::SeqCst);
                    machine.write();
                    machine.vm.park(HART);
                }
            })
        };
        machine.pause_and_wait();
        machine.read();
        hart.join().unwrap();
    });
}

/// What `wait_for_interrupt` in quasar-cpu does, against a line that `settle` in quasar-devices raises.
#[test]
fn an_interrupt_ends_a_wait_for_it() {
    model(3, || {
        let machine = Machine::new();
        let devices = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                machine.write();
                machine.vm.hart_control[0].lines.fetch_or(1 << 9, Ordering::SeqCst);
                machine.vm.party(HART).call(attention::INTERRUPT);
            })
        };
        let party = machine.vm.party(HART);
        loop {
            let seen = party.doorbell.seen();
            if machine.vm.hart_control[0].lines.load(Ordering::SeqCst) != 0 {
                break;
            }
            if party.attention.swap(0, Ordering::SeqCst) == 0 {
                party.doorbell.wait(seen, None);
            }
        }
        assert_eq!(machine.read(), 1, "what the device wrote before is there");
        devices.join().unwrap();
    });
}
