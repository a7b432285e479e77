//! A machine without harts: segments, devices, and a driver that builds real rings in guest memory.

#![allow(dead_code, reason = "each test program uses its part")]

pub mod driver;
pub mod program;

use quasar_abi::clock::host_monotonic_ns;
use quasar_abi::console::{Console, ConsoleSegment};
use quasar_abi::dirty::{PageMaps, maps_bytes};
use quasar_abi::frames::PortSegment;
use quasar_abi::grants::DevicesGrants;
use quasar_abi::machine::{RAM_BASE, VIRTIO, VIRTIO_STRIDE, VirtioDevice};
use quasar_abi::party::PartyId;
use quasar_abi::saved::{DEVICE_SLOTS, DEVICES_SEGMENT_BYTES, DeviceSlot, SavedDevice};
use quasar_abi::vm::{CONTROL_BYTES, Vm};
use quasar_abi::{GuestRam, Segment, SegmentKind};
use quasar_devices::DevicesError;
use quasar_devices::access::Tag;
use quasar_devices::board::Board;
use quasar_devices::host::DeviceHost;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const RAM_BYTES: u64 = 4 << 20;
pub const TAG: Tag = Tag { hart: 0, posted: 0 };

/// How long a test waits for what a thread does; passing does not depend on how fast it is.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The segments of a VM; gone when dropped.
pub struct Machine {
    pub grants: DevicesGrants,
    pub vm: Vm,
    pub ram: GuestRam,
    pub maps: PageMaps,
    pub saved: Arc<Segment>,
    pub consoles: Arc<Segment>,
}

fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("/quasar-test-{}-dev{}-{what}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn bytes(count: u64) -> usize {
    usize::try_from(count).expect("small")
}

fn segment(what: &str, kind: SegmentKind, len: usize) -> Arc<Segment> {
    Arc::new(Segment::create(&unique(what), kind, len, 1).expect("create a segment"))
}

impl Machine {
    pub fn new(harts: u32) -> Self {
        let control = segment("control", SegmentKind::Control, CONTROL_BYTES);
        let ram = segment("ram", SegmentKind::Ram, bytes(RAM_BYTES));
        let maps = segment("maps", SegmentKind::Maps, bytes(maps_bytes(RAM_BYTES)));
        let saved = segment("devices", SegmentKind::Devices, DEVICES_SEGMENT_BYTES);
        let consoles = segment("console", SegmentKind::Console, size_of::<ConsoleSegment>());
        let grants = DevicesGrants {
            vm: "test".into(),
            control: control.grant(),
            ram: ram.grant(),
            maps: maps.grant(),
            devices: saved.grant(),
            console: consoles.grant(),
        };
        let vm = Vm::new(control).expect("control block");
        vm.harts.set(harts);
        vm.ram_bytes.set(RAM_BYTES);
        vm.clock.start(0, 0);
        vm.clock.wall_offset_ns.set(host_monotonic_ns());
        let maps = PageMaps::new(maps, RAM_BASE, RAM_BYTES).expect("maps");
        Self { grants, vm, ram: GuestRam::new(ram, RAM_BASE), maps, saved, consoles }
    }

    /// The devices, worked from the test's thread; block and network workers run.
    pub fn board(&self, virtio: &[VirtioDevice]) -> Rig<'_> {
        self.try_board(virtio).expect("the devices")
    }

    pub fn try_board(&self, virtio: &[VirtioDevice]) -> Result<Rig<'_>, DevicesError> {
        let host = DeviceHost::attach(&self.grants)?;
        let board = Board::new(&host, virtio)?;
        host.gate.open();
        Ok(Rig { machine: self, board, host })
    }

    pub fn console(&self, index: usize) -> &Console {
        &self.consoles.view::<ConsoleSegment>(0).expect("consoles").consoles[index]
    }

    pub fn console_text(&self, index: usize) -> String {
        let mut out = vec![0; 1 << 16];
        let (count, _) = self.console(index).read(0, &mut out);
        String::from_utf8_lossy(&out[..count]).into_owned()
    }

    pub fn slots(&self) -> &[DeviceSlot] {
        self.saved.slice(0, DEVICE_SLOTS).expect("slots")
    }

    pub fn saved_states(&self) -> Vec<SavedDevice> {
        self.slots().iter().filter_map(DeviceSlot::load).collect()
    }
}

/// A port segment of the switch's making.
pub fn port() -> Arc<Segment> {
    segment("port", SegmentKind::Port, size_of::<PortSegment>())
}

/// Devices under test.
pub struct Rig<'a> {
    pub machine: &'a Machine,
    pub board: Board,
    pub host: DeviceHost,
}

/// Whatever takes register accesses.
pub trait Bus {
    fn machine(&self) -> &Machine;
    fn load(&mut self, gpa: u64, len: u32) -> u64;
    fn store(&mut self, gpa: u64, len: u32, value: u64);

    fn register(&mut self, slot: u64, offset: u64) -> u32 {
        u32::try_from(self.load(VIRTIO.base + slot * VIRTIO_STRIDE + offset, 4)).expect("32 bits")
    }

    fn set_register(&mut self, slot: u64, offset: u64, value: u32) {
        self.store(VIRTIO.base + slot * VIRTIO_STRIDE + offset, 4, value.into());
    }
}

impl Bus for Rig<'_> {
    fn machine(&self) -> &Machine {
        self.machine
    }

    fn load(&mut self, gpa: u64, len: u32) -> u64 {
        self.board.access(gpa, len, None, TAG).unwrap_or_else(|| panic!("nothing answers at {gpa:#x}"))
    }

    fn store(&mut self, gpa: u64, len: u32, value: u64) {
        assert!(self.board.access(gpa, len, Some(value), TAG).is_some(), "nothing answers at {gpa:#x}");
    }
}

/// A hart, as far as devices see one: asks over its mailbox and waits as long as it takes.
pub struct Hart<'a>(pub &'a Machine);

impl Hart<'_> {
    fn ask(&self, gpa: u64, len: u32, store: Option<u64>) -> u64 {
        let mail = &self.0.vm.mmio_mail[0];
        mail.gpa.set(gpa);
        mail.len.set(len);
        mail.store.set(u32::from(store.is_some()));
        mail.value.set(store.unwrap_or(0));
        mail.mailbox.post();
        self.0.vm.party(PartyId::Devices).doorbell.ring();
        wait_until("an answer", || mail.mailbox.wait(1000, || false));
        assert_eq!(mail.status.get(), 0, "nothing answers at {gpa:#x}");
        mail.value.get()
    }
}

impl Bus for Hart<'_> {
    fn machine(&self) -> &Machine {
        self.0
    }

    fn load(&mut self, gpa: u64, len: u32) -> u64 {
        self.ask(gpa, len, None)
    }

    fn store(&mut self, gpa: u64, len: u32, value: u64) {
        self.ask(gpa, len, Some(value));
    }
}
