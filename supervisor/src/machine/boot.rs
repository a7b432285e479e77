//! Filling a machine's memory and starting its harts, at power-on and at each reboot.
//!
//! Order: programs are opened and placed, then the ramdisk, then the device tree, which tells where they lie,
//! then the harts. Nothing is written before everything is known to be there and to fit.

use super::Machine;
use super::cmdline;
use super::elf::{self, Program};
use super::error::BootError;
use super::fdt::{self, Description};
use super::formats::{self, Format};
use super::harts::Start;
use super::image::ImageHeader;
use super::segments::ToBoot;
use super::source::Source;
use quasar_abi::GuestRam;
use quasar_abi::clock::mode;
use quasar_abi::machine::RAM_BASE;
use quasar_api::{Boot, MachineConfig};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const MIB: u64 = 1 << 20;
/// The device tree lies at a multiple of this.
const DTB_ALIGN: u64 = 2 * MIB;
/// Below 3 GiB, so that a 32-bit pointer reaches it, as firmware expects.
const DTB_CEILING: u64 = 0xc000_0000;
/// Room kept behind the tree for what firmware adds to it.
const DTB_ROOM: u64 = 64 << 10;
/// `fw_dynamic_info` (fw_dynamic.md among the documents of OpenSBI): "OSBI", version 2.
const FW_DYNAMIC_MAGIC: u64 = 0x4942_534f;
const FW_DYNAMIC_VERSION: u64 = 2;
const FW_DYNAMIC_NEXT_MODE_S: u64 = 1;
/// Longest kernel that is looked through for its version.
const MOST_KERNEL: u64 = 256 << 20;
const RNG_SEED_BYTES: usize = 64;
/// Guest time of an instruction in deterministic mode: a hart of 100 million instructions a second.
const NS_PER_INSTRUCTION: u64 = 10;
/// Where the wall clock starts in deterministic mode: the first second of 2026.
const DETERMINISTIC_START_NS: u64 = 1_767_225_600_000_000_000;

/// What was found in the files and concerns the machine beyond its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booted {
    /// First instruction.
    pub entry: u64,
    /// Address of `begin_signature` and `end_signature` of a bare program.
    pub signature: Option<(u64, u64)>,
}

/// Where a ramdisk of `len` bytes goes: half of RAM, 512 MiB at most, behind the kernel's start, as QEMU
/// does; directly behind the kernel when that is too high. `limit` is the first address it must not reach.
fn place_initrd(kernel: u64, kernel_end: u64, len: u64, memory: u64, limit: u64) -> Option<u64> {
    let usual = (kernel + (memory / 2).min(512 * MIB)).max(kernel_end.next_multiple_of(4096));
    [usual, kernel_end.next_multiple_of(DTB_ALIGN), kernel_end.next_multiple_of(4096)]
        .into_iter()
        .find(|start| start.saturating_add(len) <= limit)
}

/// Where a tree of `len` bytes goes: at the end of RAM below 3 GiB, on a 2 MiB boundary where there is one.
fn place_dtb(end: u64, len: u64, lowest: u64) -> u64 {
    let top = end.min(DTB_CEILING);
    let aligned = top.saturating_sub(len) & !(DTB_ALIGN - 1);
    if aligned >= lowest { aligned } else { top.saturating_sub(len) & !4095 }
}

fn random_seed() -> Vec<u8> {
    let mut seed = vec![0; RNG_SEED_BYTES];
    if quasar_abi::random::fill(&mut seed).is_ok() { seed } else { vec![] }
}

/// A program that has its place.
struct Placed {
    load: Load,
    entry: u64,
    start: u64,
    end: u64,
}

/// What is written at an address.
enum Load {
    Elf(Box<Program>),
    File(u64, Source),
    Bytes(u64, Vec<u8>),
}

impl Load {
    fn write(&self, ram: &GuestRam) -> Result<(), BootError> {
        match self {
            Self::Elf(program) => program.load(ram),
            Self::File(at, source) => {
                source.copy(0, source.bytes, ram, *at)?;
                source.is_whole()
            }
            Self::Bytes(at, bytes) => Ok(ram.write(*at, bytes)?),
        }
    }
}

/// All that a start writes, with nothing written yet: it is known to be there and to fit.
struct Plan {
    loads: Vec<Load>,
    start: Start,
    booted: Booted,
    bare: Option<Bare>,
}

/// What a bare program's host needs to know.
struct Bare {
    tohost: u64,
    fromhost: u64,
    max_instructions: u64,
}

/// Why a file is no firmware, if that can be seen: a raw binary has no magic of its own.
fn no_firmware(head: &[u8]) -> Option<String> {
    if let Some(format) = formats::of_program(head) {
        return Some(format.to_string());
    }
    if ImageHeader::parse(head).is_ok() {
        return Some("it is a Linux kernel".into());
    }
    // RISC-V Unprivileged, 2.2: sixteen zeroes and sixteen ones are no instruction.
    match head.first_chunk::<2>() {
        Some([0, 0] | [0xff, 0xff]) | None => Some("it does not begin with an instruction".into()),
        Some(_) => None,
    }
}

fn place_firmware(path: &Path) -> Result<Placed, BootError> {
    let source = Source::open("firmware", path)?;
    if elf::is_elf(source.head()) {
        let program = Program::open(source)?;
        let (entry, end) = (program.entry(), program.end());
        return Ok(Placed { load: Load::Elf(Box::new(program)), entry, start: RAM_BASE, end });
    }
    if let Some(why) = no_firmware(source.head()) {
        return Err(BootError::Kind { what: "firmware", path: path.to_owned(), why });
    }
    let end = RAM_BASE.saturating_add(source.bytes);
    Ok(Placed { load: Load::File(RAM_BASE, source), entry: RAM_BASE, start: RAM_BASE, end })
}

fn place_kernel(path: &Path, lowest: u64) -> Result<Placed, BootError> {
    let source = Source::open("kernel", path)?;
    if elf::is_elf(source.head()) {
        let program = Program::open(source)?;
        let (entry, end) = (program.entry(), program.end());
        return Ok(Placed { load: Load::Elf(Box::new(program)), entry, start: entry, end });
    }
    let header = ImageHeader::parse(source.head())
        .map_err(|source| BootError::Image { path: path.to_owned(), source })?;
    let start = header.load_address(lowest);
    let end = start.saturating_add(header.span(source.bytes));
    Ok(Placed { load: Load::File(start, source), entry: start, start, end })
}

/// Says whether the kernel keeps all of its command line, which is to be looked for in all of the file.
fn keeps_line(kernel: &Load, append: &str) -> Result<(), BootError> {
    let source = match kernel {
        Load::Elf(program) => program.source(),
        Load::File(_, source) => source,
        Load::Bytes(..) => return Ok(()),
    };
    if !cmdline::may_be_cut(append) || source.bytes > MOST_KERNEL {
        return Ok(());
    }
    Ok(cmdline::check(&source.read(0, source.bytes)?, append)?)
}

/// Opens a ramdisk. The kernel knows more formats than we do: what cannot be one is refused.
fn open_initrd(path: &Path) -> Result<Source, BootError> {
    let source = Source::open("initial ramdisk", path)?;
    let why = match formats::of_program(source.head()) {
        _ if elf::is_elf(source.head()) => Some("it is an ELF file".to_owned()),
        _ if ImageHeader::parse(source.head()).is_ok() => Some("it is a Linux kernel".to_owned()),
        Some(Format::Compressed("zip" | "7z")) | None => None,
        Some(Format::Compressed(_) | Format::Text) => None,
        Some(format) => Some(format.to_string()),
    };
    why.map_or(Ok(source), |why| Err(BootError::Kind { what: "initial ramdisk", path: path.to_owned(), why }))
}

/// The structure that tells `fw_dynamic` what to start next.
fn dynamic_info(next: u64) -> Vec<u8> {
    let boot_hart = 0;
    [FW_DYNAMIC_MAGIC, FW_DYNAMIC_VERSION, next, FW_DYNAMIC_NEXT_MODE_S, 0, boot_hart]
        .map(u64::to_le_bytes)
        .concat()
}

/// Loads what a machine starts and sets its harts up. `virtio` is how many slots hold a device. Only while no process of
/// the machine runs but those that are parked or idle.
///
/// # Errors
/// [`BootError`].
pub fn boot(config: &MachineConfig, machine: &ToBoot, virtio: usize) -> Result<Booted, BootError> {
    let plan = Planner(config).plan(virtio)?;
    for load in &plan.loads {
        load.write(&machine.ram)?;
    }
    if let Some(bare) = &plan.bare {
        machine.vm.tohost.set(bare.tohost);
        machine.vm.fromhost.set(bare.fromhost);
        machine.vm.instruction_limit.set(bare.max_instructions);
    }
    start_harts(machine, plan.start);
    Ok(plan.booted)
}

/// Says whether [`boot`] would find all it needs, and room for it.
///
/// # Errors
/// [`BootError`].
pub fn examine(config: &MachineConfig, virtio: usize) -> Result<(), BootError> {
    Planner(config).plan(virtio).map(drop)
}

/// What goes where in a machine.
struct Planner<'a>(&'a MachineConfig);

impl Planner<'_> {
    fn fits(&self, what: &'static str, at: u64, end: u64) -> Result<(), BootError> {
        if at >= RAM_BASE && end >= at && end <= self.0.ram_end() {
            return Ok(());
        }
        Err(BootError::Memory { what, at, need: end.saturating_sub(at), end: self.0.ram_end() })
    }

    fn plan(&self, virtio: usize) -> Result<Plan, BootError> {
        match &self.0.boot {
            Boot::Kernel { kernel, initrd, append, firmware } => {
                self.plan_kernel(virtio, kernel, initrd.as_deref(), append, firmware.as_deref())
            }
            Boot::Bare { elf, max_instructions } => self.plan_bare(virtio, elf, *max_instructions),
        }
    }

    fn description(&self, virtio: usize, bootargs: &str, initrd: Option<(u64, u64)>) -> Description {
        Description {
            harts: self.0.harts,
            memory: self.0.memory,
            virtio,
            bootargs: bootargs.to_owned(),
            initrd,
            rng_seed: if self.0.icount { vec![0x51; RNG_SEED_BYTES] } else { random_seed() },
        }
    }

    fn plan_kernel(
        &self,
        virtio: usize,
        kernel: &Path,
        initrd: Option<&Path>,
        append: &str,
        firmware: Option<&Path>,
    ) -> Result<Plan, BootError> {
        let firmware = firmware.map(place_firmware).transpose()?;
        if let Some(firmware) = &firmware {
            self.fits("firmware", firmware.start, firmware.end)?;
        }
        let kernel = place_kernel(kernel, firmware.as_ref().map_or(RAM_BASE, |f| f.end))?;
        self.fits("kernel", kernel.start, kernel.end)?;
        keeps_line(&kernel.load, append)?;
        for load in firmware.iter().map(|f| &f.load).chain([&kernel.load]) {
            if let Load::Elf(program) = load {
                program.fits(RAM_BASE, self.0.memory)?;
            }
        }

        // The tree's length does not depend on the ramdisk's address: made twice, it has a place before it.
        let provisional = fdt::build(&self.description(virtio, append, initrd.map(|_| (0, 0))))?;
        let room = (provisional.len() as u64 + DTB_ROOM).next_multiple_of(4096);
        let dtb = place_dtb(self.0.ram_end(), room, kernel.end);
        self.fits("device tree", dtb.max(kernel.end), dtb.max(kernel.end) + room)?;
        let mut loads = vec![];
        let mut ramdisk = None;
        if let Some(source) = initrd.map(open_initrd).transpose()? {
            let need = source.bytes;
            // A tree below 3 GiB is below the ramdisk's usual place when RAM is large.
            let limit = if self.0.ram_end() <= DTB_CEILING { dtb } else { DTB_CEILING.min(dtb) };
            let at = place_initrd(kernel.start, kernel.end, need, self.0.memory, limit)
                .ok_or(BootError::Memory { what: "initial ramdisk", at: kernel.end, need, end: limit })?;
            super::unpack::has_room(self.0.memory, kernel.end.saturating_sub(kernel.start), &source, append)?;
            ramdisk = Some((at, at + need));
            loads.push(Load::File(at, source));
        }
        loads.push(kernel.load);
        let tree = fdt::build(&self.description(virtio, append, ramdisk))?;
        loads.push(Load::Bytes(dtb, tree));
        let start = match firmware {
            Some(firmware) => {
                let info = dtb + room - 4096;
                loads.extend([firmware.load, Load::Bytes(info, dynamic_info(kernel.entry))]);
                Start::Machine { entry: firmware.entry, dtb, a2: info }
            }
            None => Start::Supervisor { entry: kernel.entry, dtb },
        };
        let booted = Booted { entry: kernel.entry, signature: None };
        Ok(Plan { loads, start, booted, bare: None })
    }

    fn plan_bare(&self, virtio: usize, path: &Path, max_instructions: u64) -> Result<Plan, BootError> {
        let program = Program::open_bare(Source::open("program", path)?)?;
        program.fits(RAM_BASE, self.0.memory)?;
        let tree = fdt::build(&self.description(virtio, "", None))?;
        let dtb = place_dtb(self.0.ram_end(), tree.len() as u64, program.end());
        let symbol = |name| program.symbol(name);
        let bare = Bare {
            tohost: symbol("tohost").unwrap_or(0),
            fromhost: symbol("fromhost").unwrap_or(0),
            max_instructions,
        };
        let entry = program.entry();
        let booted = Booted { entry, signature: symbol("begin_signature").zip(symbol("end_signature")) };
        let mut loads = vec![];
        if dtb >= RAM_BASE {
            loads.push(Load::Bytes(dtb, tree));
        }
        loads.push(Load::Elf(Box::new(program)));
        let start = Start::Machine { entry, dtb, a2: 0 };
        Ok(Plan { loads, start, booted, bare: Some(bare) })
    }
}

/// Sets the harts up and drops every cached translation.
fn start_harts(machine: &ToBoot, start: Start) {
    start.apply(&machine.vm);
    for tlb in machine.tlbs() {
        tlb.flush_all();
    }
    for word in &machine.vm.notifications {
        word.set(0);
    }
}

/// Starts the guest's clock at zero and ties it to the wall clock, or in deterministic mode to a fixed date. A
/// deterministic mode that was chosen before stays.
pub fn start_clock(machine: &Machine, icount: bool) {
    let clock = &machine.vm.clock;
    if icount {
        if !clock.is_deterministic() {
            clock.mode.set(mode::PACED);
        }
        clock.ns_per_instruction.set(NS_PER_INSTRUCTION);
        clock.start(0, 0);
        clock.wall_offset_ns.set(DETERMINISTIC_START_NS);
        return;
    }
    clock.start(0, 0);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    clock.wall_offset_ns.set(u64::try_from(wall).unwrap_or(u64::MAX));
}

/// Puts the harts of a machine whose state comes from elsewhere into a valid one until then.
pub fn start_empty(machine: &Machine) {
    start_harts(&machine.to_boot(), Start::Machine { entry: RAM_BASE, dtb: 0, a2: 0 });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::image;
    use quasar_abi::hart::hsm;
    use std::path::PathBuf;

    fn config(memory: u64, boot: Boot) -> MachineConfig {
        MachineConfig { memory, harts: 2, boot, icount: false, engine: None }
    }

    fn file(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("write");
        path
    }

    #[test]
    fn the_ramdisk_lies_where_qemu_puts_it_or_closer() {
        let kernel = 0x8020_0000;
        let end = 0x8206_b000;
        let place = |len, memory| place_initrd(kernel, end, len, memory, RAM_BASE + memory - 2 * MIB);
        assert_eq!(place(23 * MIB, 512 * MIB), Some(0x9020_0000));
        assert_eq!(place(23 * MIB, 4096 * MIB), Some(0xa020_0000));
        assert_eq!(place(23 * MIB, 96 * MIB), Some(0x8320_0000));
        assert_eq!(place(60 * MIB, 96 * MIB), Some(0x8220_0000));
        assert_eq!(place(100 * MIB, 96 * MIB), None);
    }

    #[test]
    fn the_tree_lies_at_the_end_below_3_gib() {
        assert_eq!(place_dtb(RAM_BASE + 512 * MIB, 70_000, RAM_BASE), RAM_BASE + 510 * MIB);
        assert_eq!(place_dtb(RAM_BASE + 8192 * MIB, 70_000, RAM_BASE), DTB_CEILING - 2 * MIB);
        assert_eq!(place_dtb(RAM_BASE + MIB, 5000, RAM_BASE + 8192), RAM_BASE + MIB - 8192);
    }

    #[test]
    fn a_kernel_with_a_ramdisk_starts_in_s_mode_and_with_firmware_in_m_mode() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut bytes = image::header(0x20_0000, 0x10_0000, 0);
        bytes.extend_from_slice(b"KERNEL");
        let kernel = file(&dir, "Image", &bytes);
        let initrd = Some(file(&dir, "initrd", b"RAMDISK"));
        let boot = |firmware| Boot::Kernel {
            kernel: kernel.clone(),
            initrd: initrd.clone(),
            append: "quiet".into(),
            firmware,
        };
        let plain = config(16 * MIB, boot(None));
        let machine = Machine::create("boot-test", &plain).expect("machine");
        assert_eq!(super::boot(&plain, &machine.to_boot(), 1).expect("boot").entry, 0x8020_0000);
        let state = machine.vm.hart_state[0].current();
        assert_eq!((state.pc.get(), state.privilege.get()), (0x8020_0000, 1));
        let mut text = [0; 6];
        machine.ram.read(0x8020_0040, &mut text).expect("read");
        assert_eq!(&text, b"KERNEL");
        let mut text = [0; 7];
        machine.ram.read(0x80a0_0000, &mut text).expect("read");
        assert_eq!(&text, b"RAMDISK");
        let dtb = state.x[11].get();
        let mut magic = [0; 4];
        machine.ram.read(dtb, &mut magic).expect("read");
        assert_eq!(magic, 0xd00d_feed_u32.to_be_bytes());
        assert_eq!(machine.vm.hart_control[1].hsm.get(), hsm::STOPPED);

        let firmware = file(&dir, "fw_dynamic.bin", &[0x13; 100]);
        super::boot(&config(16 * MIB, boot(Some(firmware))), &machine.to_boot(), 1).expect("boot");
        let state = machine.vm.hart_state[1].current();
        assert_eq!((state.pc.get(), state.privilege.get(), state.x[10].get()), (RAM_BASE, 3, 1));
        let info = state.x[12].get();
        let word = |i: u64| machine.ram.cell64(info + 8 * i).expect("cell").get();
        assert_eq!([word(0), word(1), word(2), word(3)], [0x4942_534f, 2, 0x8020_0000, 1]);
        assert_eq!(machine.vm.hart_control[1].hsm.get(), hsm::STARTED);
    }

    #[test]
    fn what_does_not_fit_or_is_missing_is_said() {
        let dir = tempfile::tempdir().expect("tempdir");
        let kernel = file(&dir, "Image", &image::header(0x20_0000, 1 << 30, 0));
        let boot = |kernel| Boot::Kernel { kernel, initrd: None, append: String::new(), firmware: None };
        let large = config(16 * MIB, boot(kernel));
        let machine = Machine::create("boot-fit", &large).expect("machine");
        assert!(matches!(
            super::boot(&large, &machine.to_boot(), 0),
            Err(BootError::Memory { what: "kernel", .. })
        ));
        let missing = config(16 * MIB, boot(dir.path().join("none")));
        let error = super::boot(&missing, &machine.to_boot(), 0).expect_err("missing").to_string();
        assert!(error.contains("cannot read the kernel") && error.contains("none"), "{error}");
    }

    #[test]
    fn a_bare_program_starts_every_hart_in_m_mode() {
        let dir = tempfile::tempdir().expect("tempdir");
        let program = elf::synthetic(RAM_BASE, RAM_BASE, &[0x6f, 0, 0, 0], 4);
        let bare = Boot::Bare { elf: file(&dir, "a.elf", &program), max_instructions: 9 };
        let bare = config(2 * MIB, bare);
        let machine = Machine::create("boot-bare", &bare).expect("machine");
        let booted = super::boot(&bare, &machine.to_boot(), 0).expect("boot");
        assert_eq!(booted, Booted { entry: RAM_BASE, signature: None });
        assert_eq!(machine.vm.instruction_limit.get(), 9);
        let state = machine.vm.hart_state[1].current();
        assert_eq!((state.pc.get(), state.privilege.get(), state.x[10].get()), (RAM_BASE, 3, 1));
    }
}
