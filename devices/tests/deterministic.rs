//! Deterministic mode: what devices do, they do while the hart waits for them.

mod kit;

use kit::driver::{Desc, Driver, INTERRUPT_STATUS, NEXT, WRITE};
use kit::{Bus, Machine};
use quasar_abi::clock::mode;
use quasar_abi::machine::{ACLINT, OnEnospc, RTC, VirtioDevice};

const NS_PER_INSTRUCTION: u64 = 10;

fn machine() -> Machine {
    let machine = Machine::new(1);
    machine.vm.clock.mode.set(mode::INSTRUCTIONS);
    machine.vm.clock.ns_per_instruction.set(NS_PER_INSTRUCTION);
    machine.vm.clock.wall_offset_ns.set(0);
    machine.vm.clock.start(0, 0);
    machine
}

/// Whatever the hart has offered is done, and the interrupt is up, when the notification's store is answered.
#[test]
fn a_disk_has_served_every_request_when_the_notification_is_answered() {
    const REQUESTS: u16 = 5;
    let file = tempfile::NamedTempFile::new().expect("file");
    file.as_file().set_len(1 << 20).expect("size");
    let device = VirtioDevice::Block {
        path: file.path().to_owned(),
        read_only: false,
        serial: "quasar-disk".into(),
        maps: None,
        on_enospc: OnEnospc::default(),
    };
    let machine = machine();
    let mut rig = machine.board(&[device]);
    let driver = Driver::start(&mut rig, 0, 0);
    let base = quasar_abi::machine::RAM_BASE + (1 << 20);
    for round in 1..100 {
        for request in 0..REQUESTS {
            let gpa = base + 0x1_0000 * u64::from(request);
            let header =
                [1_u32.to_le_bytes().as_slice(), &[0; 4], &u64::from(request).to_le_bytes()].concat();
            machine.ram.write(gpa, &header).expect("header");
            let head = 3 * request;
            let chain = [(gpa, 16, NEXT), (gpa + 512, 512 * 8, NEXT), (gpa + 16, 1, WRITE)];
            for (index, (gpa, len, flags)) in (head..).zip(chain) {
                driver.describe(&rig, 0, index, Desc { gpa, len, flags, next: index + 1 });
            }
            driver.offer(&rig, 0, head);
        }
        driver.notify(&mut rig, 0);
        assert_eq!(driver.used_index(&rig, 0), round * REQUESTS, "nothing is left for later");
        assert_eq!(rig.register(0, INTERRUPT_STATUS), 1);
        rig.set_register(0, kit::driver::INTERRUPT_ACK, 1);
    }
}

#[test]
fn entropy_is_the_same_at_the_same_instruction() {
    let entropy = |retired| {
        let machine = machine();
        let mut rig = machine.board(&[VirtioDevice::Rng]);
        let driver = Driver::start(&mut rig, 0, u64::MAX);
        machine.vm.clock.retired.set(retired);
        driver.request(&mut rig, 0, &[], &[32, 32]).0
    };
    assert_eq!(entropy(1000), entropy(1000));
    assert_ne!(entropy(1000), entropy(1001));
    let bytes = entropy(7);
    assert!(bytes[..32] != bytes[32..], "not one number repeated");
}

#[test]
fn devices_take_the_time_from_the_request() {
    let machine = machine();
    let mut rig = machine.board(&[]);
    let mtime = ACLINT.base + 0xbff8;
    for retired in [0, 9, 10, 1_000_000] {
        machine.vm.clock.retired.set(retired);
        // The counter that people see lags behind.
        machine.vm.counters[0].instructions.set(retired / 2);
        assert_eq!(rig.load(mtime, 8), retired * NS_PER_INSTRUCTION / 100);
    }
}

/// The alarm fires at the first access after its time, whenever the server happens to look.
#[test]
fn an_alarm_fires_between_two_instructions() {
    let machine = machine();
    let mut rig = machine.board(&[]);
    rig.store(RTC.base + 0x10, 4, 1);
    rig.store(RTC.base + 0x0c, 4, 0);
    rig.store(RTC.base + 0x08, 4, 5000);
    let is_set = |rig: &mut kit::Rig<'_>| rig.load(RTC.base + 0x18, 4) == 1;
    machine.vm.clock.retired.set(499);
    assert!(is_set(&mut rig));
    // Time goes on while the hart waits; the server wakes for something else.
    machine.vm.clock.skip(1000);
    assert_eq!(rig.board.poll(), None, "it does not wait for guest time");
    let saved =
        |machine: &Machine| machine.saved_states().into_iter().find(|s| s.name == "rtc").expect("saved");
    let before = saved(&machine);
    rig.board.poll();
    assert_eq!(saved(&machine), before, "nothing happens by itself");
    assert!(!is_set(&mut rig), "it has fired by the time the access is served");
}
