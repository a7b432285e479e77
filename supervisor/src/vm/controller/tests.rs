use super::*;
use crate::children::standin::{self, BROKEN, SILENT};
use crate::vm::VmHandle;
use quasar_abi::control::ProcessKind;
use quasar_api::{Boot, VmStatus};

const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    vm: VmHandle,
    log: std::path::PathBuf,
    _programs: tempfile::TempDir,
}

/// A VM whose programs are this script, and whose memory comes from elsewhere: no kernel is loaded.
fn scene(name: &str, script: &str) -> Scene {
    let kinds = [ProcessKind::Mmu, ProcessKind::Cpu, ProcessKind::Devices];
    let (programs, launcher) = standin::launcher(script, &kinds);
    let boot = Boot::Bare { elf: "/nonexistent".into(), max_instructions: 0 };
    let config = MachineConfig { memory: 1 << 20, harts: 1, boot, icount: false, engine: None };
    let machine = Machine::create(&format!("controller-{name}"), &config).expect("machine");
    let setup = Setup {
        config,
        machine: Arc::new(machine),
        virtio: vec![],
        launcher,
        log: Arc::new(standin::log(&programs)),
        board: Arc::default(),
        arriving: true,
        loader: Loader::Here,
    };
    let vm = VmHandle::start(setup).expect("threads");
    Scene { vm, log: programs.path().join("log"), _programs: programs }
}

impl Scene {
    fn at(&self, wanted: Phase) -> VmStatus {
        let status = self.vm.board.wait(PATIENCE, |phase| phase == wanted);
        assert_eq!(status.phase, wanted, "{status:?}");
        status
    }
}

#[test]
fn one_whose_programs_die_at_the_start_has_failed_with_the_reason_and_can_be_ended() {
    let scene = scene("broken", BROKEN);
    let reason = scene.at(Phase::Failed).reason.expect("a reason");
    assert!(reason.contains("ended with exit status 3"), "{reason}");
    let log = std::fs::read_to_string(&scene.log).expect("log");
    assert!(log.contains("broken by design") && log.contains("supervisor: "), "{log}");
    let refused = scene.vm.ask_and_wait(Request::Pause).expect_err("it has failed");
    assert!(!refused.is_empty());
    scene.vm.ask_and_wait(Request::Stop).expect("it ends");
    scene.at(Phase::Stopped);
    assert!(scene.vm.ask_and_wait(Request::Resume).expect_err("it has ended").contains("stopped"));
    scene.vm.release();
    assert!(scene.vm.machine().is_none(), "its memory is let go");
}

#[test]
fn one_that_is_starting_is_asked_for_nothing_but_its_end() {
    let scene = scene("silent", SILENT);
    let processes = || scene.vm.board.get().processes.len();
    while processes() < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    for request in [Request::Pause, Request::PowerButton] {
        let words = format!("{request:?}");
        assert!(scene.vm.ask_and_wait(request).is_err(), "{words} was taken");
    }
    assert_eq!(scene.vm.board.phase(), Phase::Starting);
    scene.vm.stop_and_release();
    assert_eq!((scene.vm.board.phase(), processes()), (Phase::Stopped, 0));
}
