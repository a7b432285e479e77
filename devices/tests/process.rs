//! The program itself: started over both transports, and killed under a driver that notices any loss.

mod kit;

use kit::driver::{Driver, F_EVENT_IDX, INTERRUPT_ACK, INTERRUPT_STATUS};
use kit::program::Program;
use kit::{Bus, Hart, Machine, wait_until};
use quasar_abi::control::Transport;
use quasar_abi::control::devices::{DevicesCommand, DevicesReply};
use quasar_abi::machine::{IRQ_VIRTIO, OnEnospc, PLIC, VirtioDevice};
use quasar_abi::party::{PartyId, status};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::NamedTempFile;

fn disk() -> (NamedTempFile, VirtioDevice) {
    let file = NamedTempFile::new().expect("file");
    file.as_file().set_len(1 << 20).expect("size");
    let device = VirtioDevice::Block {
        path: file.path().to_owned(),
        read_only: false,
        serial: String::new(),
        maps: None,
        on_enospc: OnEnospc::default(),
    };
    (file, device)
}

#[test]
fn commands_are_answered_over_both_transports() {
    for transport in [Transport::Ipc, Transport::Socket] {
        let machine = Machine::new(1);
        let mut program = Program::start(transport);
        assert!(program.answer(DevicesCommand::Stats).is_err(), "nothing to count yet");
        let missing = VirtioDevice::Block {
            path: "/nonexistent/disk".into(),
            read_only: true,
            serial: String::new(),
            maps: None,
            on_enospc: OnEnospc::default(),
        };
        let start = |virtio| DevicesCommand::Start { grants: machine.grants.clone(), virtio };
        let error = program.answer(start(vec![missing])).expect_err("no such disk");
        assert!(error.contains("/nonexistent/disk"), "{error}");
        assert_eq!(program.answer(start(vec![VirtioDevice::PowerButton])), Ok(DevicesReply::Done));
        assert!(program.answer(start(vec![])).is_err(), "once only");
        assert!(program.answer(DevicesCommand::PowerButton).expect_err("nobody").contains("driver"));
        let Ok(DevicesReply::Stats(stats)) = program.answer(DevicesCommand::Stats) else {
            panic!("no stats")
        };
        assert_eq!(stats.virtio[0].name, "virtio0.input");
        assert_eq!(program.answer(DevicesCommand::Reset), Ok(DevicesReply::Done));
        assert_eq!(program.answer(DevicesCommand::Shutdown), Ok(DevicesReply::Done));
        assert!(program.child.0.wait().expect("wait").success());
        assert_eq!(machine.vm.party(PartyId::Devices).status.get(), status::ABSENT);
    }
}

#[test]
fn a_program_whose_supervisor_is_gone_ends() {
    let machine = Machine::new(1);
    let Program { mut child, commands, events } = Program::serve(&machine, &[]);
    drop((commands, events));
    assert!(child.0.wait().expect("wait").success());
    assert_eq!(machine.vm.party(PartyId::Devices).status.get(), status::ABSENT);
}

#[test]
fn killed_again_and_again_the_devices_lose_nothing() {
    let (_file, device) = disk();
    let machine = Machine::new(1);
    let virtio = [device];
    let mut program = Program::serve(&machine, &virtio);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut kills = 0u64;
            while !done.load(Ordering::SeqCst) {
                // From at once to well into the work, so that each step is hit sooner or later.
                std::thread::sleep(Duration::from_micros(kills % 7 * 900));
                program.child.0.kill().expect("kill");
                program.child.0.wait().expect("wait");
                program = Program::serve(&machine, &virtio);
                kills += 1;
            }
            kills
        });
        let worked = scope.spawn(|| work(&machine)).join();
        done.store(true, Ordering::SeqCst);
        let kills = killer.join().expect("the killer");
        worked.expect("the driver");
        assert!(kills > 0, "nobody was killed");
    });
}

/// Writes and reads back, and takes each interrupt exactly as a kernel does.
fn work(machine: &Machine) {
    let mut hart = Hart(machine);
    let lines = &machine.vm.hart_control[0].lines;
    hart.store(PLIC.base + 4 * u64::from(IRQ_VIRTIO), 4, 1);
    hart.store(PLIC.base + 0x2080, 4, 1 << IRQ_VIRTIO);
    let driver = Driver::start(&mut hart, 0, F_EVENT_IDX);
    let mut requests = 0u16;
    let mut request = |hart: &mut Hart<'_>, readable: &[&[u8]], writable: &[u32]| {
        let event = kit::driver::ring(0, 0).avail + 4 + 2 * u64::from(driver.size);
        machine.ram.store16(event, requests).expect("used_event");
        let (written, _) = driver.request(hart, 0, readable, writable);
        requests = requests.wrapping_add(1);
        assert_eq!(driver.used_index(hart, 0), requests, "each request is used once");
        wait_until("an interrupt", || lines.load(Ordering::SeqCst) & 1 << 9 != 0);
        assert_eq!(hart.load(PLIC.base + 0x20_1004, 4), u64::from(IRQ_VIRTIO));
        assert_eq!(hart.register(0, INTERRUPT_STATUS), 1);
        hart.set_register(0, INTERRUPT_ACK, 1);
        hart.store(PLIC.base + 0x20_1004, 4, IRQ_VIRTIO.into());
        written
    };
    for round in 0..150u64 {
        let header = |kind: u32| [&kind.to_le_bytes(), &[0; 4][..], &(round % 100).to_le_bytes()].concat();
        let data: Vec<u8> = (0..4096u64).map(|n| (n ^ (round * 7)).to_le_bytes()[0]).collect();
        assert_eq!(request(&mut hart, &[&header(1), &data], &[1]), [0]);
        let read = request(&mut hart, &[&header(0)], &[4096, 1]);
        assert!(read[..4096] == data && read[4096] == 0, "round {round}");
    }
}
