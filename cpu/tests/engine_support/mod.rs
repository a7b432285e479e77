//! A VM in this process: segments, an mmu thread, harts' threads; and programs assembled by hand.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod asm;
pub mod paging;

use quasar_abi::dirty::{PageMaps, maps_bytes};
use quasar_abi::hart::{HART_STATE_VERSION, HartState};
use quasar_abi::machine::RAM_BASE;
use quasar_abi::party::{PartyId, attention};
use quasar_abi::tlb::TLB_SEGMENT_BYTES;
use quasar_abi::vm::{CONTROL_BYTES, Vm, pause, request};
use quasar_abi::{GuestRam, Segment, SegmentKind};
use quasar_cpu::engine::{DEFAULT, by_name};
use quasar_cpu::run::HartRunner;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where `tohost` is: the last page of the first MiB.
pub const TOHOST: u64 = RAM_BASE + 0xf_f000;
const RAM_BYTES: u64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `done`; a test that waits too long fails instead of hanging.
pub fn until(mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain");
        std::thread::yield_now();
    }
}

/// The VM.
pub struct Machine {
    pub vm: Vm,
    pub ram: GuestRam,
    pub maps: PageMaps,
    tlb: Arc<Segment>,
    stop: Arc<AtomicBool>,
    mmu: Option<JoinHandle<()>>,
    harts: Vec<JoinHandle<()>>,
    /// What executes the harts.
    pub engine: &'static str,
}

impl Machine {
    /// A VM whose harts stand in M-mode at the start of RAM, paused.
    pub fn new(harts: u8) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix =
            format!("/quasar-test-cpu-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let make = |what: &str, kind, len: u64| {
            let len = usize::try_from(len).expect("fits");
            Segment::create(&format!("{prefix}-{what}"), kind, len, 1).expect("create")
        };
        let vm = Vm::new(Arc::new(make("control", SegmentKind::Control, CONTROL_BYTES as u64))).expect("vm");
        let ram = GuestRam::new(Arc::new(make("ram", SegmentKind::Ram, RAM_BYTES)), RAM_BASE);
        let maps = make("maps", SegmentKind::Maps, maps_bytes(RAM_BYTES));
        let maps = PageMaps::new(Arc::new(maps), RAM_BASE, RAM_BYTES).expect("maps");
        let tlb = make("tlb", SegmentKind::Tlb, TLB_SEGMENT_BYTES as u64);
        vm.ram_bytes.set(RAM_BYTES);
        vm.harts.set(harts.into());
        vm.tohost.set(TOHOST);
        vm.clock.start(0, 0);
        vm.pause(pause::USER);
        for hart in 0..harts {
            let state = vm.hart_state[usize::from(hart)].current();
            state.version.set(HART_STATE_VERSION);
            state.pc.set(RAM_BASE);
            state.privilege.set(3);
            state.x[10].set(hart.into());
            state.stimecmp.set(u64::MAX);
            vm.hart_control[usize::from(hart)].mtimecmp.set(u64::MAX);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let of_mmu = Segment::attach(&tlb.grant(), SegmentKind::Tlb).expect("attach");
        let server =
            quasar_mmu::Server::new(vm.clone(), ram.clone(), maps.clone(), of_mmu).expect("mmu server");
        let told = Arc::clone(&stop);
        let mmu = std::thread::spawn(move || server.run(&told));
        Self { vm, ram, maps, tlb: Arc::new(tlb), stop, mmu: Some(mmu), harts: vec![], engine: DEFAULT }
    }

    /// A VM with one hart and a program at the start of RAM.
    pub fn with(program: &[u32]) -> Self {
        let machine = Self::new(1);
        machine.put(RAM_BASE, program);
        machine
    }

    /// Writes code.
    pub fn put(&self, gpa: u64, code: &[u32]) {
        let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.ram.write(gpa, &bytes).expect("in RAM");
    }

    /// Starts the harts' threads; they wait for [`Machine::resume`].
    pub fn start(&mut self) {
        for hart in self.harts.len()..usize::try_from(self.vm.harts.get()).expect("few") {
            let runner = HartRunner::new(
                self.vm.clone(),
                self.ram.clone(),
                self.maps.clone(),
                Arc::clone(&self.tlb),
                u8::try_from(hart).expect("few"),
            )
            .expect("hart")
            .with_engine(by_name(self.engine).expect("an engine"));
            self.harts.push(std::thread::spawn(move || runner.run().expect("a legal state")));
        }
    }

    /// Lifts the pause.
    pub fn resume(&self) {
        self.vm.unpause(pause::USER);
    }

    /// Pauses and waits until every hart is parked.
    pub fn pause(&self) {
        self.vm.pause(pause::USER);
        self.vm.wait_at_rest(PATIENCE).expect("parked");
    }

    /// Hart `hart`'s published state.
    pub fn state(&self, hart: usize) -> &HartState {
        self.vm.hart_state[hart].current()
    }

    /// Runs until the program ends by HTIF, the limit is reached or the guest asks for something else;
    /// returns the request and its code.
    pub fn run(&mut self) -> (u32, u64) {
        self.start();
        self.resume();
        self.wait_paused();
        (self.vm.guest_request.load(Ordering::Acquire), self.vm.guest_request_code.get())
    }

    /// Waits until somebody has paused the VM and every hart is parked.
    pub fn wait_paused(&self) {
        let start = std::time::Instant::now();
        while self.vm.pause_mask.load(Ordering::SeqCst) == 0 {
            assert!(start.elapsed() < PATIENCE, "the program does not end; pc {:#x}", self.state(0).pc.get());
            std::thread::sleep(Duration::from_micros(200));
        }
        self.vm.wait_at_rest(PATIENCE).expect("parked");
    }

    /// Runs a program that ends by writing a value's double plus 1 to tohost; returns the value (47 bits).
    pub fn result(program: &[u32]) -> u64 {
        let mut machine = Self::with(program);
        let (asked, code) = machine.run();
        assert_eq!(asked, request::HTIF_EXIT);
        code >> 1
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for (hart, thread) in self.harts.drain(..).enumerate() {
            self.vm.party(PartyId::Hart(u8::try_from(hart).expect("few"))).call(attention::STOP);
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a hart's thread panicked");
        }
        self.stop.store(true, Ordering::Relaxed);
        self.vm.party(PartyId::Mmu).doorbell.ring();
        if let Some(mmu) = self.mmu.take() {
            assert!(mmu.join().is_ok() || std::thread::panicking(), "the mmu's thread panicked");
        }
    }
}
