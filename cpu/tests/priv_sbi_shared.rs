//! The SBI's real host over real segments: harts in threads of their own that start, interrupt, fence, pause.

use quasar_abi::dirty::{PageMaps, maps_bytes};
use quasar_abi::hart::hsm;
use quasar_abi::party::{PartyId, attention, status};
use quasar_abi::ram::PAGE_BYTES;
use quasar_abi::vm::{CONTROL_BYTES, Vm, pause, request};
use quasar_abi::{GuestRam, Segment, SegmentKind};
use quasar_cpu::hart::Hart;
use quasar_cpu::mem::HartRam;
use quasar_cpu::sbi::host::{EnginePorts, SharedHost, take_start};
use quasar_cpu::sbi::{SbiHost, SbiOutcome, handle};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

const RAM: u64 = 0x8000_0000;
const RAM_BYTES: usize = 64 * 1024;

#[derive(Clone)]
struct Machine {
    vm: Vm,
    ram: GuestRam,
    maps: PageMaps,
}

impl Machine {
    fn new(harts: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, SeqCst);
        let segment = |what: &str, kind, len| {
            let name = format!("/quasar-test-{}-sbi-{what}-{number}", std::process::id());
            Arc::new(Segment::create(&name, kind, len, 1).expect("a segment"))
        };
        let bytes = RAM_BYTES as u64;
        let map_bytes = usize::try_from(maps_bytes(bytes)).expect("small");
        let maps = PageMaps::new(segment("maps", SegmentKind::Maps, map_bytes), RAM, bytes).expect("maps");
        let vm = Vm::new(segment("control", SegmentKind::Control, CONTROL_BYTES)).expect("a control block");
        vm.ram_bytes.set(bytes);
        vm.harts.set(harts);
        for hart in 1..usize::try_from(harts).expect("few") {
            vm.hart_control[hart].hsm.set(hsm::STOPPED);
        }
        Self { vm, ram: GuestRam::new(segment("ram", SegmentKind::Ram, RAM_BYTES), RAM), maps }
    }

    fn hart_ram(&self) -> HartRam {
        HartRam::new(self.vm.clone(), self.ram.clone(), self.maps.clone())
    }

    fn run(&self, hart: u8) -> bool {
        self.vm.try_run(PartyId::Hart(hart))
    }

    /// Serves the fences asked of a hart, as an engine does.
    fn serve_fences(&self, hart: u8) {
        let control = &self.vm.hart_control[usize::from(hart)];
        control.sfence_done.store(control.sfence_asked.load(SeqCst), SeqCst);
        control.fencei_done.store(control.fencei_asked.load(SeqCst), SeqCst);
    }

    fn call(
        &self,
        hart: &mut Hart,
        extension: u64,
        function: u64,
        arguments: &[u64],
    ) -> (SbiOutcome, Engine) {
        let mut engine = Engine::new(self, hart.index);
        hart.x[10..10 + arguments.len()].copy_from_slice(arguments);
        hart.x[16] = function;
        hart.x[17] = extension;
        let outcome = {
            let mut host =
                SharedHost { vm: &self.vm, ram: &self.hart_ram(), me: hart.index, engine: &mut engine };
            handle(hart, &mut host)
        };
        (outcome, engine)
    }
}

struct Engine {
    machine: Machine,
    hart: u8,
    waits: u64,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Engine {
    fn new(machine: &Machine, hart: u8) -> Self {
        Self { machine: machine.clone(), hart, waits: 0, output: vec![], input: b"xyz".to_vec() }
    }
}

impl EnginePorts for Engine {
    fn serve_while_waiting(&mut self) -> bool {
        self.waits += 1;
        self.machine.serve_fences(self.hart);
        self.machine.vm.pause_mask.load(SeqCst) == 0
    }
    fn uart_write(&mut self, byte: u8) {
        self.output.push(byte);
    }
    fn uart_read(&mut self) -> Option<u8> {
        if self.input.is_empty() { None } else { Some(self.input.remove(0)) }
    }
}

fn guest(index: u8) -> Hart {
    let mut hart = Hart::new(index);
    hart.start(RAM, 0);
    hart
}

const IPI: u64 = 0x0073_5049;
const RFENCE: u64 = 0x5246_4e43;
const HSM: u64 = 0x0048_534d;
const SRST: u64 = 0x5352_5354;
const DBCN: u64 = 0x4442_434e;

#[test]
fn an_interrupt_is_posted_and_the_party_called() {
    let machine = Machine::new(2);
    let (outcome, _) = machine.call(&mut guest(0), IPI, 0, &[0b10, 0]);
    assert_eq!(outcome, SbiOutcome::Continue);
    assert_eq!(machine.vm.hart_control[1].posted.load(SeqCst), 2);
    assert_eq!(machine.vm.hart_control[0].posted.load(SeqCst), 0);
    let party = machine.vm.party(PartyId::Hart(1));
    assert_eq!(party.attention.load(SeqCst) & attention::INTERRUPT, attention::INTERRUPT);
    assert_ne!(party.doorbell.seen(), 0);
}

#[test]
fn harts_at_rest_are_not_waited_for_but_find_their_fences_later() {
    let machine = Machine::new(4);
    assert!(machine.run(0));
    // Hart 1 is parked, hart 2 runs but is stopped, hart 3 has no process.
    machine.vm.hart_control[1].hsm.set(hsm::STARTED);
    machine.vm.park(PartyId::Hart(1));
    assert!(machine.run(2));
    machine.vm.hart_control[3].hsm.set(hsm::STARTED);
    let mut hart = guest(0);
    let (outcome, engine) = machine.call(&mut hart, RFENCE, 1, &[0, u64::MAX]);
    assert_eq!(outcome, SbiOutcome::ContinueWithFence { sfence: true, fencei: false });
    assert_eq!((engine.waits, hart.x[10]), (0, 0));
    for target in 1..4 {
        let control = &machine.vm.hart_control[target];
        assert_eq!((control.sfence_asked.get(), control.sfence_done.get()), (1, 0));
        assert_eq!(control.fencei_asked.get(), 0);
    }
    assert_eq!(machine.vm.hart_control[0].sfence_asked.get(), 0, "the own one goes through the outcome");
}

#[test]
fn a_fence_returns_only_when_the_running_hart_has_served_it() {
    let machine = Machine::new(2);
    machine.vm.hart_control[1].hsm.set(hsm::STARTED);
    assert!(machine.run(0) && machine.run(1));
    let served = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let control = &machine.vm.hart_control[1];
            while control.fencei_asked.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            // Not yet: the caller must still be waiting here.
            std::thread::sleep(std::time::Duration::from_millis(5));
            served.store(true, SeqCst);
            machine.serve_fences(1);
        });
        let (outcome, engine) = machine.call(&mut guest(0), RFENCE, 0, &[0b10, 0]);
        assert!(served.load(SeqCst), "the call returned before the fence was served");
        assert_eq!(outcome, SbiOutcome::Continue);
        assert!(engine.waits > 0);
    });
}

#[test]
fn harts_that_fence_each_other_all_get_through() {
    const HARTS: u8 = 3;
    const CALLS: u64 = 300;
    let machine = Machine::new(HARTS.into());
    for hart in 0..HARTS {
        machine.vm.hart_control[usize::from(hart)].hsm.set(hsm::STARTED);
        assert!(machine.run(hart));
    }
    let finished = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for index in 0..HARTS {
            let (machine, finished) = (&machine, &finished);
            scope.spawn(move || {
                let mut hart = guest(index);
                for round in 0..CALLS {
                    let (outcome, _) = machine.call(&mut hart, RFENCE, round % 3, &[0, u64::MAX]);
                    assert!(matches!(outcome, SbiOutcome::ContinueWithFence { .. }), "{outcome:?}");
                    machine.serve_fences(index);
                }
                finished.fetch_add(1, SeqCst);
                machine.vm.park(PartyId::Hart(index));
            });
        }
    });
    assert_eq!(finished.load(SeqCst), HARTS.into());
    for hart in 0..usize::from(HARTS) {
        let control = &machine.vm.hart_control[hart];
        let (sfence, fencei) = (control.sfence_asked.get(), control.fencei_asked.get());
        assert_eq!(sfence + fencei, CALLS * u64::from(HARTS - 1), "none was lost");
    }
}

#[test]
fn a_pause_interrupts_the_wait_and_the_call_repeats() {
    let machine = Machine::new(2);
    machine.vm.hart_control[1].hsm.set(hsm::STARTED);
    assert!(machine.run(0) && machine.run(1));
    let mut hart = guest(0);
    std::thread::scope(|scope| {
        // Hart 1 never serves: it is the pause that ends the wait.
        scope.spawn(|| {
            while machine.vm.hart_control[1].sfence_asked.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            machine.vm.pause(pause::USER);
        });
        let (outcome, _) = machine.call(&mut hart, RFENCE, 1, &[0b10, 0]);
        assert_eq!(outcome, SbiOutcome::Again);
    });
    assert_eq!((hart.pc, hart.x[10]), (RAM, 0b10));
    machine.vm.unpause(pause::USER);
    machine.vm.park(PartyId::Hart(1));
    let (outcome, _) = machine.call(&mut hart, RFENCE, 1, &[0b10, 0]);
    assert_eq!((outcome, hart.pc), (SbiOutcome::Continue, RAM + 4));
}

#[test]
fn a_hart_starts_where_the_winner_of_a_race_says() {
    for _ in 0..50 {
        let machine = Machine::new(3);
        machine.vm.hart_control[1].hsm.set(hsm::STARTED);
        let start = |caller: u8| {
            let mut hart = guest(caller);
            let place = u64::from(caller) * 0x100;
            machine.call(&mut hart, HSM, 0, &[2, RAM + place, place]);
            hart.x[10].cast_signed()
        };
        let results = std::thread::scope(|scope| {
            let other = scope.spawn(|| start(1));
            [start(0), other.join().expect("no panic")]
        });
        let winner = results.iter().position(|r| *r == 0).expect("one wins") as u64;
        assert_eq!(results.iter().filter(|r| **r == -6).count(), 1, "{results:?}");
        assert_ne!(machine.vm.party(PartyId::Hart(2)).attention.get() & attention::HSM, 0);
        assert_eq!(take_start(&machine.vm, 2), Some((RAM + winner * 0x100, winner * 0x100)));
        assert_eq!(take_start(&machine.vm, 2), None);
        assert_eq!(machine.vm.hart_control[2].hsm.get(), hsm::STARTED);
    }
}

#[test]
fn stop_and_start_again() {
    let machine = Machine::new(2);
    let mut hart = guest(1);
    machine.vm.hart_control[1].hsm.set(hsm::STARTED);
    assert_eq!(machine.call(&mut hart, HSM, 1, &[]).0, SbiOutcome::Stopped);
    assert_eq!(machine.vm.hart_control[1].hsm.get(), hsm::STOPPED);
    let mut other = guest(0);
    machine.call(&mut other, HSM, 0, &[1, RAM + 8, 3]);
    assert_eq!(other.x[10], 0);
    let (address, opaque) = take_start(&machine.vm, 1).expect("a start");
    hart.start(address, opaque);
    assert_eq!((hart.pc, hart.x[10], hart.x[11]), (RAM + 8, 1, 3));
}

#[test]
fn suspend_shows_while_it_lasts() {
    let machine = Machine::new(1);
    assert_eq!(machine.call(&mut guest(0), HSM, 3, &[0]).0, SbiOutcome::Wait);
    assert_eq!(machine.vm.hart_control[0].hsm.get(), hsm::SUSPENDED);
    let mut engine = Engine::new(&machine, 0);
    let mut host = SharedHost { vm: &machine.vm, ram: &machine.hart_ram(), me: 0, engine: &mut engine };
    host.resumed();
    assert_eq!(machine.vm.hart_control[0].hsm.get(), hsm::STARTED);
}

#[test]
fn reset_pauses_the_machine_and_says_why() {
    let machine = Machine::new(1);
    assert_eq!(machine.call(&mut guest(0), SRST, 0, &[0, 1]).0, SbiOutcome::Reset);
    assert_eq!(machine.vm.guest_request.get(), request::FAILURE);
    assert_eq!(machine.vm.guest_request_code.get(), 1);
    assert_eq!(machine.vm.pause_mask.get(), pause::GUEST);
    assert_ne!(machine.vm.party(PartyId::Hart(0)).attention.get() & attention::PAUSE, 0);
}

#[test]
fn the_console_reads_and_writes_guest_memory_and_marks_it() {
    let machine = Machine::new(1);
    machine.vm.epoch.set(6);
    machine.ram.write(RAM + 2 * PAGE_BYTES - 2, b"text").expect("RAM");
    let mut hart = guest(0);
    let (_, engine) = machine.call(&mut hart, DBCN, 0, &[4, RAM + 2 * PAGE_BYTES - 2, 0]);
    assert_eq!((hart.x[11], engine.output.as_slice()), (4, b"text".as_slice()));

    let at = RAM + 5 * PAGE_BYTES - 1;
    machine.call(&mut hart, DBCN, 1, &[1, at, 0]);
    assert_eq!(machine.maps.count(6), 0, "nothing is marked while nothing is logged");
    machine.vm.log_active.set(1);
    machine.call(&mut hart, DBCN, 1, &[2, at, 0]);
    let mut bytes = [0; 2];
    machine.ram.read(at, &mut bytes).expect("RAM");
    assert_eq!((hart.x[11], &bytes), (2, b"xy"));
    assert!(machine.maps.is_dirty(6, at) && machine.maps.is_dirty(6, at + 1));
    assert_eq!(machine.maps.count(6), 2);
}

#[test]
fn pages_that_are_not_here_are_not_touched() {
    let machine = Machine::new(1);
    machine.vm.residency_active.set(1);
    machine.maps.set_resident(RAM, true);
    let mut hart = guest(0);
    let (_, engine) = machine.call(&mut hart, DBCN, 0, &[8, RAM + PAGE_BYTES - 4, 0]);
    assert_eq!((hart.x[10], hart.x[11], engine.output.len()), (0, 4, 4), "up to the absent page");
    let (_, engine) = machine.call(&mut hart, DBCN, 1, &[1, RAM + PAGE_BYTES, 0]);
    assert_eq!(hart.x[10].cast_signed(), -1);
    assert_eq!(engine.input, b"xyz", "no input is lost");
}

#[test]
fn party_status_values_are_told_apart() {
    // The excuse for not waiting is exactly "not running".
    let machine = Machine::new(2);
    machine.vm.hart_control[1].hsm.set(hsm::STARTED);
    for state in [status::ABSENT, status::PARKED] {
        machine.vm.party(PartyId::Hart(1)).status.set(state);
        assert_eq!(machine.call(&mut guest(0), RFENCE, 0, &[0b10, 0]).1.waits, 0);
    }
    for state in [hsm::STOPPED, hsm::START_PENDING] {
        machine.vm.party(PartyId::Hart(1)).status.set(status::RUNNING);
        machine.vm.hart_control[1].hsm.set(state);
        assert_eq!(machine.call(&mut guest(0), RFENCE, 0, &[0b10, 0]).1.waits, 0);
    }
}
