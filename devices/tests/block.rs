//! The block device, through real rings.

mod kit;

use kit::driver::{
    BUFFERS, Desc, Driver, F_EVENT_IDX, F_INDIRECT, INDIRECT, INTERRUPT_ACK, INTERRUPT_STATUS, NEXT, STATUS,
    WRITE, encode,
};
use kit::{Bus, Machine, Rig, wait_until};
use quasar_abi::machine::{OnEnospc, VirtioDevice};
use quasar_devices::DevicesError;
use std::io::{Seek, SeekFrom, Write};
use tempfile::NamedTempFile;

const F_RO: u64 = 1 << 5;
const F_FLUSH: u64 = 1 << 9;
const SECTORS: u64 = 2048;

fn disk() -> NamedTempFile {
    let file = NamedTempFile::new().expect("file");
    file.as_file().set_len(SECTORS * 512 + 100).expect("size");
    file
}

fn device(file: &NamedTempFile, read_only: bool) -> VirtioDevice {
    VirtioDevice::Block {
        path: file.path().to_owned(),
        read_only,
        serial: "quasar-disk".into(),
        maps: None,
        on_enospc: OnEnospc::default(),
    }
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [kind.to_le_bytes().as_slice(), &[0; 4], &sector.to_le_bytes()].concat()
}

fn status(driver: &Driver, rig: &mut Rig<'_>, kind: u32, sector: u64, data: &[u8]) -> u8 {
    driver.request(rig, 0, &[&header(kind, sector), data], &[1]).0[0]
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from((n * 31 + seed + n / 512) % 251).expect("below 251")).collect()
}

#[test]
fn what_is_written_is_read_and_is_in_the_file() {
    let file = disk();
    let machine = Machine::new(1);
    let mut rig = machine.board(&[device(&file, false)]);
    let driver = Driver::start(&mut rig, 0, u64::MAX);
    assert_eq!(rig.load(0x1000_1100, 4), SECTORS);
    let data = pattern(512 * 700, 1);
    assert_eq!(status(&driver, &mut rig, 1, 5, &data), 0);
    assert_eq!(status(&driver, &mut rig, 4, 0, &[]), 0, "flush");
    let (read, len) = driver.request(&mut rig, 0, &[&header(0, 5)], &[512 * 100, 512 * 600, 1]);
    assert_eq!(len as usize, data.len() + 1);
    assert!(read[..data.len()] == data && read[data.len()] == 0);
    assert!(std::fs::read(file.path()).expect("file")[5 * 512..][..data.len()] == data);
    assert_eq!(rig.register(0, INTERRUPT_STATUS), 1);
}

#[test]
fn requests_that_cannot_be_done_say_so_and_the_device_goes_on() {
    let file = disk();
    let machine = Machine::new(1);
    let mut rig = machine.board(&[device(&file, false)]);
    let driver = Driver::start(&mut rig, 0, u64::MAX);
    let sector = [0; 512];
    assert_eq!(status(&driver, &mut rig, 1, SECTORS, &sector), 1, "beyond the end");
    assert_eq!(status(&driver, &mut rig, 1, u64::MAX / 512 + 1, &sector), 1, "wrapping");
    assert_eq!(status(&driver, &mut rig, 1, 0, &sector[1..]), 1, "no whole sector");
    assert_eq!(status(&driver, &mut rig, 99, 0, &[]), 2, "no such request");
    assert_eq!(status(&driver, &mut rig, 11, 0, &[0; 15]), 1, "no whole range");
    assert_eq!(status(&driver, &mut rig, 1, SECTORS - 1, &sector), 0, "the last sector");
    let (id, _) = driver.request(&mut rig, 0, &[&header(8, 0)], &[20, 1]);
    assert_eq!(&id, b"quasar-disk\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn a_chain_without_header_or_status_breaks_the_device() {
    for (readable, writable) in [(15, 1), (16, 0)] {
        let file = disk();
        let machine = Machine::new(1);
        let mut rig = machine.board(&[device(&file, false)]);
        let driver = Driver::start(&mut rig, 0, 0);
        driver.describe(&rig, 0, 0, Desc { gpa: BUFFERS, len: readable, flags: NEXT, next: 1 });
        driver.describe(&rig, 0, 1, Desc { gpa: BUFFERS, len: writable, flags: WRITE, next: 0 });
        driver.offer(&rig, 0, 0);
        driver.notify(&mut rig, 0);
        wait_until("broken", || rig.register(0, kit::driver::STATUS) & kit::driver::NEEDS_RESET != 0);
    }
}

#[test]
fn ranges_are_zeroed() {
    let file = disk();
    file.as_file().write_all(&pattern(512 * 64, 3)).expect("fill");
    let machine = Machine::new(1);
    let mut rig = machine.board(&[device(&file, false)]);
    let driver = Driver::start(&mut rig, 0, u64::MAX);
    let range = |sector: u64, sectors: u32, flags: u32| {
        [sector.to_le_bytes().as_slice(), &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    assert_eq!(status(&driver, &mut rig, 11, 0, &range(8, 8, 0)), 0);
    assert_eq!(status(&driver, &mut rig, 13, 0, &[range(20, 1, 0), range(30, 2, 1)].concat()), 0);
    assert_eq!(status(&driver, &mut rig, 11, 0, &range(0, 1, 1)), 2, "discard has no flags");
    assert_eq!(status(&driver, &mut rig, 13, 0, &range(SECTORS, 1, 0)), 1);
    let mut expected = pattern(512 * 64, 3);
    for (sector, sectors) in [(8, 8), (20, 1), (30, 2)] {
        expected[sector * 512..(sector + sectors) * 512].fill(0);
    }
    assert!(std::fs::read(file.path()).expect("file")[..expected.len()] == expected);
    assert_eq!(file.as_file().metadata().expect("metadata").len(), SECTORS * 512 + 100, "the size stays");
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let file = disk();
    let machine = Machine::new(1);
    let mut rig = machine.board(&[device(&file, true)]);
    let driver = Driver::start(&mut rig, 0, u64::MAX);
    assert_ne!(driver.features & F_RO, 0);
    assert_eq!(status(&driver, &mut rig, 1, 0, &[1; 512]), 1);
    assert_eq!(status(&driver, &mut rig, 13, 0, &[0; 16]), 1);
    assert_eq!(std::fs::read(file.path()).expect("file")[..512], [0; 512]);
}

#[test]
fn a_disk_has_one_writer_or_many_readers() {
    let file = disk();
    let (one, two) = (Machine::new(1), Machine::new(1));
    let writer = one.board(&[device(&file, false)]);
    for read_only in [false, true] {
        let refused = two.try_board(&[device(&file, read_only)]).map(drop);
        assert!(matches!(refused, Err(DevicesError::DiskInUse { .. })), "{refused:?}");
    }
    drop(writer);
    let _reader = one.board(&[device(&file, true)]);
    let _another = two.board(&[device(&file, true)]);
}

#[test]
fn indirect_requests_and_event_indices_work_for_many_rounds() {
    let file = disk();
    let machine = Machine::new(1);
    let mut rig = machine.board(&[device(&file, false)]);
    let driver = Driver::start(&mut rig, 0, F_INDIRECT | F_EVENT_IDX | F_FLUSH);
    for round in 0..600u64 {
        let sector = round % SECTORS;
        let data = pattern(512, usize::try_from(round).expect("small"));
        rig.machine.ram.write(BUFFERS, &header(1, sector)).expect("header");
        rig.machine.ram.write(BUFFERS + 0x1000, &data).expect("data");
        let table = [
            encode(Desc { gpa: BUFFERS, len: 16, flags: NEXT, next: 1 }),
            encode(Desc { gpa: BUFFERS + 0x1000, len: 512, flags: NEXT, next: 2 }),
            encode(Desc { gpa: BUFFERS + 0x2000, len: 1, flags: WRITE, next: 0 }),
        ];
        rig.machine.ram.write(BUFFERS + 0x3000, table.as_flattened()).expect("table");
        driver.describe(&rig, 0, 3, Desc { gpa: BUFFERS + 0x3000, len: 48, flags: INDIRECT, next: 0 });
        let before = driver.used_index(&rig, 0);
        driver.offer(&rig, 0, 3);
        driver.notify(&mut rig, 0);
        wait_until("used", || driver.used_index(&rig, 0) != before);
        assert_eq!(driver.used(&rig, 0, before), (3, 1));
    }
    let bytes = std::fs::read(file.path()).expect("file");
    for round in 0..600usize {
        assert!(bytes[round * 512..][..512] == pattern(512, round));
    }
}

#[test]
fn a_restarted_process_finishes_what_the_guest_still_waits_for() {
    let mut file = disk();
    let machine = Machine::new(1);
    let mut rig = machine.board(&[device(&file, false)]);
    let driver = Driver::start(&mut rig, 0, F_EVENT_IDX);
    assert_eq!(status(&driver, &mut rig, 1, 0, &pattern(512, 9)), 0);
    // As after a kill: a request was made available and the process that should see it is gone.
    drop(rig);
    file.seek(SeekFrom::Start(0)).expect("seek");
    driver_request_header(&machine, 0);
    let mut rig = machine.board(&[device(&file, false)]);
    driver.offer(&rig, 0, 0);
    rig.board.cards()[0].notify(u64::MAX);
    wait_until("used", || driver.used_index(&rig, 0) == 2);
    let mut data = [0; 512];
    rig.machine.ram.read(BUFFERS + 0x1000, &mut data).expect("data");
    assert!(data == pattern(512, 9)[..]);
    wait_until("an interrupt", || rig.register(0, INTERRUPT_STATUS) == 1);
    rig.set_register(0, INTERRUPT_ACK, 1);
    drop(rig);
    // As after a kill between the used index and the publication: the request is not done again.
    let before = machine.slots()[8].load().expect("state");
    machine.ram.fill(BUFFERS + 0x1000, 0x55, 512).expect("the guest uses its buffer again");
    machine.ram.store16(kit::driver::ring(0, 0).avail + 2, 3).expect("available");
    machine.ram.store16(kit::driver::ring(0, 0).used + 2, 3).expect("used");
    let mut rig = machine.board(&[device(&file, false)]);
    assert_ne!(machine.slots()[8].load().expect("state"), before);
    rig.board.cards()[0].notify(u64::MAX);
    assert_eq!(rig.register(0, INTERRUPT_STATUS), 1, "the guest is told, once too often rather than never");
    assert_eq!(status(&driver, &mut rig, 4, 0, &[]), 0, "it goes on with the next request");
    assert_eq!(driver.used_index(&rig, 0), 4);
    machine.ram.read(BUFFERS + 0x1000, &mut data).expect("data");
    assert_eq!(data, [0x55; 512]);
}

fn driver_request_header(machine: &Machine, sector: u64) {
    machine.ram.write(BUFFERS, &header(0, sector)).expect("header");
    let descs = [
        encode(Desc { gpa: BUFFERS, len: 16, flags: NEXT, next: 1 }),
        encode(Desc { gpa: BUFFERS + 0x1000, len: 512, flags: NEXT | WRITE, next: 2 }),
        encode(Desc { gpa: BUFFERS + 0x2000, len: 1, flags: WRITE, next: 0 }),
    ];
    machine.ram.write(kit::driver::ring(0, 0).desc, descs.as_flattened()).expect("table");
}

#[test]
fn after_a_reset_the_device_touches_no_buffer_any_more() {
    let file = disk();
    let machine = Machine::new(1);
    let mut rig = machine.board(&[device(&file, false)]);
    let len = 512 * 1024;
    for round in 0..100 {
        let driver = Driver::start(&mut rig, 0, 0);
        machine.ram.fill(kit::driver::ring(0, 0).desc, 0, 0x1_0000).expect("clear");
        machine.ram.write(BUFFERS, &header(0, 0)).expect("header");
        driver.describe(&rig, 0, 0, Desc { gpa: BUFFERS, len: 16, flags: NEXT, next: 1 });
        driver.describe(&rig, 0, 1, Desc { gpa: BUFFERS + 0x1000, len: len + 1, flags: WRITE, next: 0 });
        driver.offer(&rig, 0, 0);
        driver.notify(&mut rig, 0);
        // Now and then early, now and then late in the request.
        (0..round * 100).for_each(|_| std::hint::spin_loop());
        rig.set_register(0, STATUS, 0);
        machine.ram.fill(BUFFERS + 0x1000, 0x55, u64::from(len) + 1).expect("the guest's own use");
        let used = driver.used_index(&rig, 0);
        rig.host.gate.close();
        rig.host.gate.open();
        let mut buffer = vec![0; len as usize + 1];
        machine.ram.read(BUFFERS + 0x1000, &mut buffer).expect("buffer");
        assert!(buffer.iter().all(|byte| *byte == 0x55), "round {round}");
        assert_eq!(driver.used_index(&rig, 0), used);
    }
}
