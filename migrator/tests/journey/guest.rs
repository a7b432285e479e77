//! A VM without processes: real segments, and a writer in the place of a hart that keeps the rules of the dirty log
//! (or, where a test says so, breaks them).

use quasar_abi::console::ConsoleSegment;
use quasar_abi::control::migrator::{LocalDisk, LocalVm};
use quasar_abi::dirty::{PageMaps, maps_bytes};
use quasar_abi::grants::MigratorGrants;
use quasar_abi::hart::HART_STATE_VERSION;
use quasar_abi::machine::RAM_BASE;
use quasar_abi::party::PartyId;
use quasar_abi::saved::DEVICES_SEGMENT_BYTES;
use quasar_abi::vm::{CONTROL_BYTES, Vm};
use quasar_abi::{GuestRam, Segment, SegmentKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub const RAM: u64 = 32 << 20;
pub const PAGES: u64 = RAM / 4096;
pub const DISK: u64 = 4 << 20;

/// A VM without processes.
pub struct Guest {
    pub local: LocalVm,
    pub vm: Vm,
    pub ram: GuestRam,
    maps: PageMaps,
    disk_maps: PageMaps,
    _directory: tempfile::TempDir,
}

impl Guest {
    pub fn new(test: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("/quasar-test-{}-{test}{n}-{what}", std::process::id());
        let make =
            |what: &str, kind, len| Segment::create(&name(what), kind, len, 1).expect("segment").grant();
        let len = |bytes: u64| usize::try_from(bytes).expect("small");
        let grants = MigratorGrants {
            vm: test.into(),
            control: make("control", SegmentKind::Control, CONTROL_BYTES),
            ram: make("ram", SegmentKind::Ram, len(RAM)),
            maps: make("maps", SegmentKind::Maps, len(maps_bytes(RAM))),
            devices: make("devices", SegmentKind::Devices, DEVICES_SEGMENT_BYTES),
            console: make("console", SegmentKind::Console, size_of::<ConsoleSegment>()),
        };
        let disk_maps = make("disk", SegmentKind::Maps, len(maps_bytes(DISK)));
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("disk.raw");
        std::fs::File::create(&path).and_then(|f| f.set_len(DISK)).expect("disk");
        let local = LocalVm {
            grants,
            description: format!("{{\"name\":\"{test}\"}}"),
            disks: vec![LocalDisk { slot: 2, path, bytes: DISK, maps: disk_maps.clone() }],
        };
        let vm = Vm::attach(&local.grants.control).expect("control");
        vm.ram_bytes.set(RAM);
        vm.harts.set(1);
        vm.hart_state[0].next().version.set(HART_STATE_VERSION);
        vm.hart_state[0].publish();
        vm.clock.start(0, 0);
        let ram = GuestRam::attach(&local.grants.ram, RAM_BASE).expect("ram");
        let maps = PageMaps::attach(&local.grants.maps, RAM_BASE, RAM).expect("maps");
        let disk_maps = PageMaps::attach(&disk_maps, 0, DISK).expect("maps");
        Self { local, vm, ram, maps, disk_maps, _directory: directory }
    }

    pub fn page(&self, index: u64) -> Vec<u8> {
        let mut page = vec![0; 4096];
        self.ram.read(RAM_BASE + index * 4096, &mut page).expect("read");
        page
    }

    pub fn disk(&self) -> Vec<u8> {
        std::fs::read(&self.local.disks[0].path).expect("disk")
    }
}

/// How the writer treats the dirty log.
#[derive(Clone, Copy, PartialEq)]
pub enum Manners {
    /// Marks before it may write on; forgets its grants before it acknowledges an epoch.
    Right,
    /// Acknowledges an epoch and keeps its grants: the classic bug.
    KeepsGrants,
}

/// Runs a writer on hart 0's party until told to stop: each step writes a sequence number over a page of
/// RAM, and now and then a block of the disk. Returns how many steps it made.
pub fn writer(guest: &Guest, manners: Manners, stop: &AtomicBool, pages: u64) -> u64 {
    use std::os::unix::fs::FileExt;
    let me = PartyId::Hart(0);
    let party = guest.vm.party(me);
    let disk = std::fs::OpenOptions::new().write(true).open(&guest.local.disks[0].path).expect("disk");
    let mut granted = vec![false; usize::try_from(PAGES).expect("small")];
    let mut state = 1u64;
    let mut step = guest.vm.hart_state[0].current().retired.get();
    while !guest.vm.try_run(me) {
        std::thread::yield_now();
    }
    let mut epoch = guest.vm.epoch.load(Ordering::SeqCst);
    party.epoch_ack.store(epoch, Ordering::SeqCst);
    while !stop.load(Ordering::Acquire) {
        if party.attention.swap(0, Ordering::SeqCst) != 0 {
            if guest.vm.pause_mask.load(Ordering::SeqCst) != 0 {
                let next = guest.vm.hart_state[0].next();
                next.version.set(HART_STATE_VERSION);
                next.retired.set(step);
                next.pc.set(step ^ 0xffff);
                guest.vm.hart_state[0].publish();
                guest.vm.park(me);
                while !guest.vm.try_run(me) {
                    if stop.load(Ordering::Acquire) {
                        return step;
                    }
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
            let now = guest.vm.epoch.load(Ordering::SeqCst);
            if now != epoch {
                if manners == Manners::Right {
                    granted.fill(false);
                }
                epoch = now;
                party.epoch_ack.store(now, Ordering::SeqCst);
            }
        }
        step += 1;
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = (state >> 33) % pages;
        let gpa = RAM_BASE + index * 4096;
        let grant = &mut granted[usize::try_from(index).expect("small")];
        if !*grant {
            // As the mmu does it: the mark first, the grant second.
            if guest.vm.log_active.load(Ordering::SeqCst) != 0 {
                guest.maps.mark(epoch, gpa, 8);
            }
            *grant = true;
        }
        guest.ram.cell64(gpa + 8 * (step % 512)).expect("RAM").set(step);
        if step.is_multiple_of(64) {
            // As the devices do it: the write first, the mark second, both under one epoch.
            let offset = (state >> 20) % (DISK / 4096) * 4096;
            disk.write_all_at(&step.to_le_bytes(), offset).expect("disk");
            if guest.vm.log_active.load(Ordering::SeqCst) != 0 {
                guest.disk_maps.mark(epoch, offset, 8);
            }
        }
    }
    guest.vm.park(me);
    step
}

/// Ends a writer, also when the test panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs `test` while a writer of the guest runs; stops it afterwards.
pub fn while_writing<R>(guest: &Guest, manners: Manners, pages: u64, test: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| writer(guest, manners, &stop, pages));
        while guest.vm.at_rest() {
            std::thread::yield_now();
        }
        // Something to move before it begins.
        std::thread::sleep(Duration::from_millis(20));
        test()
    })
}

pub fn differences(a: &Guest, b: &Guest) -> Vec<u64> {
    (0..PAGES).filter(|index| a.page(*index) != b.page(*index)).collect()
}
