//! Whole journeys between two VMs of this process: real segments, a real TCP connection, and a writer in
//! the place of a hart that keeps the rules of the dirty log (or, where a test says so, breaks them).

use quasar_abi::console::ConsoleSegment;
use quasar_abi::control::migrator::{Converge, Limits, LocalDisk, LocalVm, MigrationEvent};
use quasar_abi::dirty::{PageMaps, maps_bytes};
use quasar_abi::hart::HART_STATE_VERSION;
use quasar_abi::machine::{RAM_BASE, VmSegments};
use quasar_abi::party::PartyId;
use quasar_abi::saved::DEVICES_SEGMENT_BYTES;
use quasar_abi::tlb::TLB_SEGMENT_BYTES;
use quasar_abi::vm::{CONTROL_BYTES, Vm, pause};
use quasar_abi::{GuestRam, Segment, SegmentKind};
use quasar_migrator::connection::{Peer, prepare};
use quasar_migrator::source::{Outcome, send};
use quasar_migrator::{destination, resume, suspend};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const RAM: u64 = 32 << 20;
const PAGES: u64 = RAM / 4096;
const DISK: u64 = 4 << 20;

/// A VM without processes.
struct Guest {
    local: LocalVm,
    vm: Vm,
    ram: GuestRam,
    maps: PageMaps,
    disk_maps: PageMaps,
    _segments: Vec<Segment>,
    _directory: tempfile::TempDir,
}

impl Guest {
    fn new(test: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("/quasar-test-{}-{test}{n}-{what}", std::process::id());
        let make = |what: &str, kind, len| Segment::create(&name(what), kind, len, 1).expect("segment");
        let len = |bytes: u64| usize::try_from(bytes).expect("small");
        let segments = vec![
            make("control", SegmentKind::Control, CONTROL_BYTES),
            make("ram", SegmentKind::Ram, len(RAM)),
            make("tlb", SegmentKind::Tlb, TLB_SEGMENT_BYTES),
            make("maps", SegmentKind::Maps, len(maps_bytes(RAM))),
            make("devices", SegmentKind::Devices, DEVICES_SEGMENT_BYTES),
            make("console", SegmentKind::Console, size_of::<ConsoleSegment>()),
            make("disk", SegmentKind::Maps, len(maps_bytes(DISK))),
        ];
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("disk.raw");
        std::fs::File::create(&path).and_then(|f| f.set_len(DISK)).expect("disk");
        let local = LocalVm {
            segments: VmSegments {
                vm: test.into(),
                control: name("control"),
                ram: name("ram"),
                tlb: name("tlb"),
                maps: name("maps"),
                devices: name("devices"),
                console: name("console"),
            },
            description: format!("{{\"name\":\"{test}\"}}"),
            disks: vec![LocalDisk { slot: 2, path, bytes: DISK, map_segment: name("disk") }],
        };
        let vm = Vm::attach(&local.segments.control).expect("control");
        vm.ram_bytes.set(RAM);
        vm.harts.set(1);
        vm.hart_state[0].next().version.set(HART_STATE_VERSION);
        vm.hart_state[0].publish();
        vm.clock.start(0, 0);
        let ram = GuestRam::attach(&local.segments.ram, RAM_BASE).expect("ram");
        let maps = PageMaps::attach(&local.segments.maps, RAM_BASE, RAM).expect("maps");
        let disk_maps = PageMaps::attach(&name("disk"), 0, DISK).expect("maps");
        Self { local, vm, ram, maps, disk_maps, _segments: segments, _directory: directory }
    }

    fn page(&self, index: u64) -> Vec<u8> {
        let mut page = vec![0; 4096];
        self.ram.read(RAM_BASE + index * 4096, &mut page).expect("read");
        page
    }

    fn disk(&self) -> Vec<u8> {
        std::fs::read(&self.local.disks[0].path).expect("disk")
    }
}

/// How the writer treats the dirty log.
#[derive(Clone, Copy, PartialEq)]
enum Manners {
    /// Marks before it may write on; forgets its grants before it acknowledges an epoch.
    Right,
    /// Acknowledges an epoch and keeps its grants: the classic bug.
    KeepsGrants,
}

/// Runs a writer on hart 0's party until told to stop: each step writes a sequence number over a page of
/// RAM, and now and then a block of the disk. Returns how many steps it made.
fn writer(guest: &Guest, manners: Manners, stop: &AtomicBool, pages: u64) -> u64 {
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

fn limits() -> Limits {
    Limits {
        max_downtime_us: 20_000,
        bandwidth: 0,
        timeout_s: 60,
        converge: Converge::Pause,
        delta_bytes: None,
    }
}

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    (client, listener.accept().expect("accept").0)
}

fn peer(socket: TcpStream, cancelled: &Arc<AtomicBool>) -> Peer {
    prepare(&socket).expect("socket");
    Peer::new(Box::new(socket), cancelled, Duration::from_secs(1))
}

/// Migrates over the given sockets; returns how it ended on both sides, and the source's events.
fn migrate(
    from: &Guest,
    to: &Guest,
    sockets: (TcpStream, TcpStream),
    limits: &Limits,
    cancelled: &Arc<AtomicBool>,
    mut seen: impl FnMut(&MigrationEvent),
) -> (Outcome, anyhow::Result<()>, Vec<MigrationEvent>) {
    to.vm.pause(pause::MIGRATOR);
    let mut events = vec![];
    let (outcome, received) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut peer = peer(sockets.1, &Arc::default());
            destination::receive(&mut peer, |_| Ok(to.local.clone()), &mut |_| {})
        });
        let outcome = send(&from.local, || Ok(peer(sockets.0, cancelled)), limits, cancelled, &mut |event| {
            seen(&event);
            events.push(event);
        });
        (outcome, receiver.join().expect("receiver"))
    });
    (outcome, received, events)
}

/// Runs `test` while a writer of the guest runs; stops it afterwards.
fn while_writing<R>(guest: &Guest, manners: Manners, pages: u64, test: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| writer(guest, manners, &stop, pages));
        while guest.vm.at_rest() {
            std::thread::yield_now();
        }
        // Something to move before it begins.
        std::thread::sleep(Duration::from_millis(20));
        let result = test();
        stop.store(true, Ordering::Release);
        result
    })
}

fn differences(a: &Guest, b: &Guest) -> Vec<u64> {
    (0..PAGES).filter(|index| a.page(*index) != b.page(*index)).collect()
}

#[test]
fn a_writing_guest_arrives_whole() {
    let (from, to) = (Guest::new("whole"), Guest::new("whole"));
    from.ram.write(RAM_BASE + 5000, b"old").expect("RAM");
    let (outcome, received, events) = while_writing(&from, Manners::Right, PAGES / 2, || {
        migrate(&from, &to, connected(), &limits(), &Arc::default(), |_| {})
    });
    received.expect("received");
    let Outcome::Completed(MigrationEvent::Completed { rounds, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(rounds >= 2);
    assert_eq!(differences(&from, &to), Vec::<u64>::new());
    assert!(from.disk() == to.disk(), "the disks differ");
    let step = |guest: &Guest| guest.vm.hart_state[0].current().retired.get();
    assert!(step(&from) > 0 && step(&from) == step(&to));
    assert_eq!(to.vm.pause_mask.load(Ordering::SeqCst), 0, "the destination runs");
    assert_ne!(from.vm.pause_mask.load(Ordering::SeqCst), 0, "the source never runs again");
    assert!(to.vm.clock.ticks(0) + 10_000_000 >= from.vm.clock.ticks(0), "time went on");
    assert!(events.iter().any(|e| matches!(e, MigrationEvent::HandingOver)));
}

#[test]
fn ten_journeys_in_a_row_lose_nothing() {
    let guests = [Guest::new("hops"), Guest::new("hops"), Guest::new("hops")];
    for hop in 0..10 {
        let (from, to) = (&guests[hop % 3], &guests[(hop + 1) % 3]);
        // What is left of an earlier stay is dropped, as the supervisor drops it.
        to.ram.fill(RAM_BASE, 0, RAM).expect("RAM");
        let (outcome, received, _) = while_writing(from, Manners::Right, 300, || {
            migrate(from, to, connected(), &limits(), &Arc::default(), |_| {})
        });
        received.expect("received");
        assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
        assert_eq!(differences(from, to), Vec::<u64>::new(), "hop {hop}");
        from.vm.unpause(pause::MIGRATOR);
        from.vm.log_active.store(0, Ordering::SeqCst);
    }
}

#[test]
fn a_writer_that_keeps_its_grants_over_an_epoch_loses_writes_and_this_test_sees_it() {
    let lost = (0..20).any(|_| {
        let (from, to) = (Guest::new("classic"), Guest::new("classic"));
        let slow = Limits { bandwidth: 4 << 20, ..limits() };
        let (outcome, ..) = while_writing(&from, Manners::KeepsGrants, 64, || {
            migrate(&from, &to, connected(), &slow, &Arc::default(), |_| {})
        });
        matches!(outcome, Outcome::Completed(_)) && !differences(&from, &to).is_empty()
    });
    assert!(lost, "the broken order went unnoticed twenty times: the other tests prove nothing");
}

#[test]
fn a_cancelled_journey_leaves_the_guest_running_and_the_next_one_succeeds() {
    let (from, to) = (Guest::new("cancel"), Guest::new("cancel"));
    while_writing(&from, Manners::Right, PAGES / 2, || {
        for phase in ["negotiate", "rounds", "pause"] {
            let cancelled = Arc::new(AtomicBool::new(false));
            let (outcome, received, _) = migrate(&from, &to, connected(), &limits(), &cancelled, |event| {
                if *event == MigrationEvent::Phase(phase.into()) {
                    cancelled.store(true, Ordering::Release);
                }
            });
            assert!(matches!(outcome, Outcome::StaysHere(_)), "{phase}: {outcome:?}");
            assert!(received.is_err(), "{phase}");
            assert_eq!(from.vm.pause_mask.load(Ordering::SeqCst), 0, "{phase}");
            assert_eq!(from.vm.log_active.load(Ordering::SeqCst), 0, "{phase}");
            assert_ne!(to.vm.pause_mask.load(Ordering::SeqCst), 0, "{phase}: nothing runs there");
        }
        to.ram.fill(RAM_BASE, 0, RAM).expect("RAM");
        let (outcome, ..) = migrate(&from, &to, connected(), &limits(), &Arc::default(), |_| {});
        assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
    });
    assert_eq!(differences(&from, &to), Vec::<u64>::new());
}

/// A connection that is cut, or damaged, after so many bytes from source to destination.
fn troubled(after: usize, damage: bool) -> (TcpStream, TcpStream) {
    let (client, mut near) = connected();
    let (mut far, server) = connected();
    let (mut back_in, mut back_out) = (far.try_clone().expect("clone"), near.try_clone().expect("clone"));
    std::thread::spawn(move || std::io::copy(&mut back_in, &mut back_out));
    std::thread::spawn(move || {
        let (mut passed, mut chunk) = (0, vec![0; 65536]);
        while let Ok(n @ 1..) = near.read(&mut chunk) {
            if passed + n > after {
                if damage && passed <= after {
                    chunk[after - passed] ^= 0x40;
                } else if !damage {
                    let _ = far.write_all(&chunk[..after - passed]);
                    let _ = near.shutdown(std::net::Shutdown::Both);
                    let _ = far.shutdown(std::net::Shutdown::Both);
                    return;
                }
            }
            passed += n;
            if far.write_all(&chunk[..n]).is_err() {
                break;
            }
        }
        let _ = far.shutdown(std::net::Shutdown::Write);
    });
    (client, server)
}

#[test]
fn a_cut_or_damaged_connection_anywhere_leaves_exactly_one_whole_guest() {
    let from = Guest::new("trouble");
    while_writing(&from, Manners::Right, 200, || {
        for (number, after) in [0, 10, 30, 100, 300, 1000, 5_000, 40_000, 90_000].into_iter().enumerate() {
            for damage in [false, true] {
                let to = Guest::new("trouble");
                let (outcome, received, _) =
                    migrate(&from, &to, troubled(after, damage), &limits(), &Arc::default(), |_| {});
                match outcome {
                    Outcome::StaysHere(_) => {
                        assert!(received.is_err(), "case {number}: both sides have the guest");
                        assert_eq!(from.vm.pause_mask.load(Ordering::SeqCst), 0, "case {number}");
                        assert_ne!(to.vm.pause_mask.load(Ordering::SeqCst), 0, "case {number}");
                    }
                    // The stream was over before the trouble came.
                    Outcome::Completed(_) => {
                        received.expect("received");
                        from.vm.unpause(pause::MIGRATOR);
                    }
                    Outcome::Unclear(error) => panic!("case {number}: {error:#}"),
                }
            }
        }
    });
}

#[test]
fn a_refusal_reaches_the_user_with_its_reason() {
    let (from, sockets) = (Guest::new("refuse"), connected());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = peer(sockets.1, &Arc::default());
            let refuse = |_: &_| Err(anyhow::anyhow!("no room: 3 GiB of memory are free, 8 are needed"));
            assert!(destination::receive(&mut peer, refuse, &mut |_| {}).is_err());
        });
        let cancelled = Arc::default();
        let outcome =
            send(&from.local, || Ok(peer(sockets.0, &cancelled)), &limits(), &cancelled, &mut |_| {});
        let Outcome::StaysHere(error) = outcome else { panic!("{outcome:?}") };
        assert!(format!("{error:#}").contains("3 GiB of memory are free"), "{error:#}");
    });
}

#[test]
fn strangers_are_shown_the_door() {
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\nxxxxxxxxxxxxxxxx"[..], &[0; 64], &[0xff; 200]] {
        let (mut client, server) = connected();
        client.write_all(garbage).expect("write");
        let mut peer = peer(server, &Arc::default());
        let unasked = |_: &_| -> anyhow::Result<LocalVm> { panic!("asked to prepare for a stranger") };
        assert!(destination::receive(&mut peer, unasked, &mut |_| {}).is_err());
    }
}

#[test]
fn a_suspended_guest_resumes_and_a_damaged_file_is_refused() {
    let (from, to) = (Guest::new("file"), Guest::new("file"));
    let directory = tempfile::tempdir().expect("directory");
    let file: PathBuf = directory.path().join("vm.quasar");
    let written = while_writing(&from, Manners::Right, PAGES / 4, || {
        suspend::suspend(&from.local, &file, &Arc::default()).expect("suspend")
    });
    assert!(written.file_bytes < written.raw_bytes / 4, "{written:?}");
    let inspection = resume::inspect(&file).expect("inspect");
    assert_eq!((inspection.ram_bytes, inspection.harts, &inspection.hash), (RAM, 1, &written.hash));
    assert!(inspection.state.iter().any(|(name, ..)| name == "hart0"));

    to.vm.pause(pause::MIGRATOR);
    let bytes = std::fs::read(&file).expect("file");
    let damaged = directory.path().join("damaged.quasar");
    let untouched = Mutex::new(0);
    for at in (0..bytes.len()).step_by(bytes.len() / 40) {
        let mut copy = bytes.clone();
        copy[at] ^= 1;
        std::fs::write(&damaged, copy).expect("write");
        let error = resume::resume(&damaged, |_| Ok(to.local.clone())).expect_err("damage");
        assert!(format!("{error:#}").contains("damaged.quasar"), "{error:#}");
        assert!(resume::inspect(&damaged).is_err());
        assert_ne!(to.vm.pause_mask.load(Ordering::SeqCst), 0);
        *untouched.lock().expect("lock") += 1;
    }
    std::fs::write(&damaged, &bytes[..bytes.len() - 1]).expect("write");
    assert!(resume::inspect(&damaged).is_err(), "truncated");

    to.ram.fill(RAM_BASE, 0, RAM).expect("RAM");
    resume::resume(&file, |_| Ok(to.local.clone())).expect("resume");
    assert_eq!(differences(&from, &to), Vec::<u64>::new());
    assert_eq!(to.vm.pause_mask.load(Ordering::SeqCst), 0);
}
