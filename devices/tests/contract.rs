//! What every virtio device must do, whatever it is: negotiate, reset, and break without breaking anything else.

mod kit;

use kit::driver::{
    BUFFERS, Desc, Driver, F_EVENT_IDX, F_INDIRECT, INDIRECT, INTERRUPT_ACK, INTERRUPT_STATUS, NEEDS_RESET,
    NEXT, Ring, STATUS, WRITE, encode, ring,
};
use kit::{Bus, Machine, RAM_BYTES, Rig, wait_until};
use quasar_abi::Segment;
use quasar_abi::machine::{OnEnospc, RAM_BASE, VirtioDevice};
use std::sync::Arc;

/// Every kind of device, and what it needs to live.
struct All {
    devices: Vec<VirtioDevice>,
    _file: tempfile::NamedTempFile,
    _port: Arc<Segment>,
}

/// The queue of each device that a driver feeds with buffers it writes to, or reads from.
const FED: [u32; 5] = [0, 1, 1, 0, 1];
/// Virtio ids in the order of `All`.
const IDS: [u32; 5] = [2, 1, 3, 4, 18];

fn all() -> All {
    let file = tempfile::NamedTempFile::new().expect("file");
    file.as_file().set_len(1 << 20).expect("size");
    let port = kit::port();
    let devices = vec![
        VirtioDevice::Block {
            path: file.path().to_owned(),
            read_only: false,
            serial: "s".into(),
            maps: None,
            on_enospc: OnEnospc::default(),
        },
        VirtioDevice::Net { port: port.grant(), mac: [2, 0, 0, 0, 0, 1] },
        VirtioDevice::Console,
        VirtioDevice::Rng,
        VirtioDevice::PowerButton,
    ];
    All { devices, _file: file, _port: port }
}

fn for_each_device(mut test: impl FnMut(&mut Rig<'_>, u64)) {
    let all = all();
    for slot in 0..all.devices.len() as u64 {
        let machine = Machine::new(1);
        let mut rig = machine.board(&all.devices);
        test(&mut rig, slot);
    }
}

#[test]
fn the_transport_says_what_it_is_and_resets() {
    for_each_device(|rig, slot| {
        let index = usize::try_from(slot).expect("small");
        assert_eq!(rig.register(slot, 0), 0x7472_6976);
        assert_eq!(rig.register(slot, 4), 2);
        assert_eq!(rig.register(slot, 8), IDS[index]);
        let fresh = rig.machine.slots()[8 + index].load();
        Driver::start(rig, slot, u64::MAX);
        assert_ne!(rig.machine.slots()[8 + index].load(), fresh);
        rig.set_register(slot, STATUS, 0);
        assert_eq!(rig.register(slot, STATUS), 0);
        assert_eq!(rig.register(slot, 0x44), 0, "the queue is not in use");
        assert_eq!(
            rig.machine.slots()[8 + index].load(),
            fresh.map(|mut fresh| {
                // What differs is which access was answered last, and that is all.
                fresh.bytes[..16]
                    .copy_from_slice(&rig.machine.slots()[8 + index].load().expect("saved").bytes[..16]);
                fresh
            })
        );
    });
}

#[test]
fn features_that_were_not_offered_are_refused() {
    for_each_device(|rig, slot| {
        rig.set_register(slot, STATUS, 3);
        rig.set_register(slot, 0x24, 1);
        rig.set_register(slot, 0x20, 0x8000_0001);
        rig.set_register(slot, STATUS, 11);
        assert_eq!(rig.register(slot, STATUS), 3);
        rig.set_register(slot, STATUS, 15);
        assert_eq!(rig.register(slot, STATUS), 3, "no driver without agreed features");
    });
}

#[test]
fn odd_accesses_are_not_answered() {
    for_each_device(|rig, slot| {
        let base = 0x1000_1000 + slot * 0x1000;
        for (offset, len) in [(0, 1), (0, 8), (2, 2), (0x71, 4), (0xfff, 2), (0x102, 4)] {
            assert_eq!(rig.board.access(base + offset, len, None, kit::TAG), None, "{offset:#x} {len}");
            assert_eq!(rig.board.access(base + offset, len, Some(0), kit::TAG), None, "{offset:#x} {len}");
        }
    });
}

/// A hostile act on a started device: the device needs a reset, and works again after it.
fn breaks(what: &str, act: impl Fn(&Driver, &mut Rig<'_>, u32)) {
    for_each_device(|rig, slot| {
        let queue = FED[usize::try_from(slot).expect("small")];
        let driver = Driver::start(rig, slot, F_INDIRECT | F_EVENT_IDX);
        let others: Vec<_> = (0..5).filter(|other| *other != slot).collect();
        act(&driver, rig, queue);
        driver.notify(rig, queue);
        wait_until(what, || rig.register(slot, STATUS) & NEEDS_RESET != 0);
        assert_eq!(rig.register(slot, INTERRUPT_STATUS) & 2, 2, "{what}: the driver is told");
        rig.set_register(slot, INTERRUPT_ACK, 3);
        assert_eq!(rig.register(slot, INTERRUPT_STATUS), 0);
        let used = driver.used_index(rig, queue.into());
        driver.notify(rig, queue);
        assert_eq!(driver.used_index(rig, queue.into()), used, "{what}: the queue rests");
        for other in others {
            assert_eq!(rig.register(other, STATUS), 0, "{what}: others do not notice");
        }
        let base = ring(slot, queue.into()).desc;
        rig.machine.ram.fill(base, 0, 0x1_0000).expect("clear");
        Driver::start(rig, slot, 0);
    });
}

fn one(gpa: u64, len: u32, flags: u16, next: u16) -> Desc {
    Desc { gpa, len, flags, next }
}

fn offer_one(desc: Desc) -> impl Fn(&Driver, &mut Rig<'_>, u32) {
    move |driver, rig, queue| {
        driver.describe(rig, queue.into(), 0, desc);
        driver.offer(rig, queue.into(), 0);
    }
}

#[test]
fn a_chain_that_loops_breaks_the_device() {
    breaks("loop", offer_one(one(BUFFERS, 16, NEXT | WRITE, 0)));
}

#[test]
fn descriptors_beyond_the_table_break_the_device() {
    breaks("next beyond", offer_one(one(BUFFERS, 16, NEXT | WRITE, 16)));
    breaks("head beyond", |driver, rig, queue| driver.offer(rig, queue.into(), 0xffff));
}

#[test]
fn buffers_outside_ram_break_the_device() {
    for (gpa, len) in [(0, 16), (RAM_BASE + RAM_BYTES - 8, 16), (u64::MAX - 4, 16), (RAM_BASE, u32::MAX)] {
        breaks("outside", offer_one(one(gpa, len, WRITE, 0)));
    }
}

#[test]
fn an_index_that_jumps_breaks_the_device() {
    breaks("jump", |driver, rig, queue| {
        rig.machine.ram.store16(ring(driver.slot, queue.into()).avail + 2, 17).expect("index");
    });
}

#[test]
fn readable_after_writable_breaks_the_device() {
    breaks("order", |driver, rig, queue| {
        driver.describe(rig, queue.into(), 0, one(BUFFERS, 16, NEXT | WRITE, 1));
        driver.describe(rig, queue.into(), 1, one(BUFFERS, 16, 0, 0));
        driver.offer(rig, queue.into(), 0);
    });
}

#[test]
fn bad_indirect_tables_break_the_device() {
    breaks("empty", offer_one(one(BUFFERS, 0, INDIRECT, 0)));
    breaks("ragged", offer_one(one(BUFFERS, 24, INDIRECT, 0)));
    breaks("huge", offer_one(one(BUFFERS, 16 * 1025, INDIRECT, 0)));
    breaks("outside", offer_one(one(RAM_BASE + RAM_BYTES, 16, INDIRECT, 0)));
    breaks("with next", offer_one(one(BUFFERS, 16, INDIRECT | NEXT, 1)));
    breaks("nested", |driver, rig, queue| {
        let nested = encode(one(BUFFERS, 16, INDIRECT, 0));
        rig.machine.ram.write(BUFFERS, &nested).expect("table");
        driver.describe(rig, queue.into(), 0, one(BUFFERS, 16, INDIRECT, 0));
        driver.offer(rig, queue.into(), 0);
    });
    breaks("loop inside", |driver, rig, queue| {
        let loops = encode(one(BUFFERS, 16, NEXT | WRITE, 0));
        rig.machine.ram.write(BUFFERS, &loops).expect("table");
        driver.describe(rig, queue.into(), 0, one(BUFFERS, 16, INDIRECT, 0));
        driver.offer(rig, queue.into(), 0);
    });
}

#[test]
fn an_indirect_table_that_was_not_agreed_upon_breaks_the_device() {
    for_each_device(|rig, slot| {
        let queue = FED[usize::try_from(slot).expect("small")];
        let driver = Driver::start(rig, slot, 0);
        offer_one(one(BUFFERS, 16, INDIRECT, 0))(&driver, rig, queue);
        driver.notify(rig, queue);
        wait_until("broken", || rig.register(slot, STATUS) & NEEDS_RESET != 0);
    });
}

#[test]
fn rings_outside_ram_or_misaligned_are_refused_when_taken_into_use() {
    let good = ring(0, 0);
    let bad = [
        Ring { desc: RAM_BASE + RAM_BYTES, ..good },
        Ring { desc: u64::MAX - 15, ..good },
        Ring { avail: 0x1000, ..good },
        Ring { used: RAM_BASE + RAM_BYTES - 16, ..good },
        Ring { desc: good.desc + 8, ..good },
        Ring { avail: good.avail + 1, ..good },
        Ring { used: good.used + 2, ..good },
    ];
    for_each_device(|rig, slot| {
        for ring in bad {
            let driver = Driver::negotiate(rig, slot, 0);
            driver.place(rig, 0, ring);
            assert_eq!(rig.register(slot, 0x44), 0, "not in use");
            assert_eq!(rig.register(slot, STATUS) & NEEDS_RESET, NEEDS_RESET);
        }
        Driver::start(rig, slot, 0);
    });
}

#[test]
fn sizes_that_are_no_queue_sizes_are_refused() {
    for_each_device(|rig, slot| {
        for size in [0, 3, 512, 0x1_0000] {
            Driver::negotiate(rig, slot, 0);
            rig.set_register(slot, 0x38, size);
            rig.set_register(slot, 0x44, 1);
            assert_eq!(rig.register(slot, 0x44), 0);
        }
    });
}
