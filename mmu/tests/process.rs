//! The program itself: started over each transport, killed under load, replaced.

mod common;

use common::pte::build;
use common::vm::{Ask, TestVm};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use quasar_abi::control::mmu::{Mmu as MmuInterface, MmuCommand, MmuRefusal};
use quasar_abi::control::{CommandSender, Event, EventReceiver, Parent, ProcessKind, Transport};
use quasar_abi::hart_mmu::mmu_status;
use quasar_abi::machine::RAM_BASE;
use quasar_abi::tlb::{access, flag};
use quasar_mmu::walk::pte;
use std::os::fd::AsRawFd;
use std::process::{Child, Command};
use std::time::Duration;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));
const DATA: u64 = RAM_BASE + 0x100_0000;

/// Killed when dropped.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A running program and the supervisor's end of its channel.
struct Mmu {
    child: Guard,
    commands: CommandSender<MmuInterface>,
    events: EventReceiver<MmuInterface>,
}

impl Mmu {
    fn start(transport: Transport) -> Self {
        let (parent, theirs) = Parent::new().expect("channel");
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).expect("fcntl");
        let child = Command::new(env!("CARGO_BIN_EXE_quasar-mmu"))
            .args(["--control-fd", &theirs.as_raw_fd().to_string(), "--transport", &transport.to_string()])
            .spawn()
            .expect("spawn");
        drop(theirs);
        let (hello, commands, events) = parent.greet(PATIENCE).expect("greet").expect("hello in time");
        assert_eq!(hello.kind, ProcessKind::Mmu);
        Self { child: Guard(child), commands, events }
    }

    fn answer(&mut self, command: MmuCommand) -> Event<MmuInterface> {
        let sent = self.commands.send(command).expect("send");
        let event = self.events.recv(PATIENCE).expect("recv").expect("answer in time");
        let (Event::Done { id, .. } | Event::Refused { id, .. }) = event else { panic!("{event:?}") };
        assert_eq!(id, sent);
        event
    }

    fn serve(vm: &TestVm, transport: Transport) -> Self {
        let mut mmu = Self::start(transport);
        let event = mmu.answer(MmuCommand::Start { grants: vm.grants.clone() });
        assert!(matches!(event, Event::Done { .. }), "{event:?}");
        mmu
    }
}

#[test]
fn starts_serves_and_ends() {
    for transport in [Transport::Ipc, Transport::Socket] {
        let vm = TestVm::new(1);
        let mut mmu = Mmu::serve(&vm, transport);
        assert_eq!(vm.ask(0, Ask::machine(DATA, access::READ)).0, mmu_status::OK);
        let again = mmu.answer(MmuCommand::Start { grants: vm.grants.clone() });
        assert!(matches!(again, Event::Refused { refusal: MmuRefusal::Serving, .. }), "{again:?}");
        assert_eq!(vm.ask(0, Ask::machine(DATA, access::READ)).0, mmu_status::OK);
        assert!(matches!(mmu.answer(MmuCommand::Shutdown), Event::Done { .. }));
        assert!(mmu.child.0.wait().expect("wait").success());
        assert!(!vm.mmu_runs());
    }
}

#[test]
fn says_which_segment_is_another() {
    let vm = TestVm::new(1);
    let mut grants = vm.grants.clone();
    grants.ram = vm.grants.maps.clone();
    let mut mmu = Mmu::start(Transport::Socket);
    let Event::Refused { refusal: error, .. } = mmu.answer(MmuCommand::Start { grants }) else {
        panic!("started with maps for RAM")
    };
    assert!(error.to_string().contains(vm.grants.maps.name()), "{error}");
}

#[test]
fn ends_with_its_supervisor() {
    let vm = TestVm::new(1);
    let Mmu { mut child, commands, events } = Mmu::serve(&vm, Transport::Socket);
    drop((commands, events));
    assert!(child.0.wait().expect("wait").success());
}

/// SIGKILL at any moment: requests stay, the next process answers them, and no translation is wrong.
#[test]
fn killed_under_load_and_replaced() {
    let vm = TestVm::new(1);
    let pages = 4096;
    for n in 0..pages {
        vm.map(0x4000_0000 + n * 4096, 0, build(DATA + (n ^ 1) * 4096, pte::V | pte::R | pte::A));
    }
    let mut asked = 0u64;
    for round in 0..5u64 {
        let mut mmu = Mmu::serve(&vm, Transport::Socket);
        std::thread::scope(|scope| {
            let child = &mut mmu.child.0;
            let killer = scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(3 + 4 * round));
                child.kill().expect("kill");
                child.wait().expect("wait");
            });
            loop {
                if !vm.pending(0) {
                    // Scattered, so that entries are replaced all the time.
                    asked += 1;
                    vm.post(0, Ask::read(0x4000_0000 + (asked * 1237 % pages) * 4096));
                }
                let mail = &vm.vm.mmu_mail[0];
                if !mail.mailbox.wait(1000, || !killer.is_finished()) {
                    break;
                }
                check(&vm, asked, pages);
            }
        });
    }
    assert!(vm.pending(0), "the last kill leaves a request");
    let _mmu = Mmu::serve(&vm, Transport::Socket);
    vm.reply(0);
    check(&vm, asked, pages);
    assert!(asked > 5);
    assert_eq!(vm.vm.parties[quasar_abi::party::PartyId::Mmu.slot()].generation.get(), 6);
}

/// The latest answer, and every entry there is, say what the tables say.
fn check(vm: &TestVm, asked: u64, pages: u64) {
    let expected = |va: u64| DATA + (((va - 0x4000_0000) >> 12) ^ 1) * 4096;
    let mail = &vm.vm.mmu_mail[0];
    assert_eq!(mail.status.get(), mmu_status::OK);
    let va = 0x4000_0000 + (asked * 1237 % pages) * 4096;
    assert_eq!(mail.gpa_flags.get() & flag::GPA, expected(va));
    for n in 0..8 {
        let va = 0x4000_0000 + ((asked * 1237 + n * 511) % pages) * 4096;
        if let Some(flags) = vm.cache(0).probe(va, common::vm::SATP, 0) {
            assert_eq!(flags & flag::GPA, expected(va));
        }
    }
}
