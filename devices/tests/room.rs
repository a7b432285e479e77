//! A host without room for what the guest writes: the VM stands still, then nothing is lost. Needs root, for a file
//! system of its own that is small.

mod kit;

use kit::driver::{BUFFERS, Desc, Driver, NEXT, WRITE, ring};
use kit::program::Program;
use kit::{Bus, Hart, Machine, wait_until};
use quasar_abi::clock::mode;
use quasar_abi::machine::{OnEnospc, VirtioDevice};
use quasar_abi::party::{PartyId, status};
use quasar_abi::vm::{full, pause};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;

const PIECE: u64 = 64 << 10;

/// A file system of 1 MiB, most of it taken by a file that can be removed, and a disk beside it.
struct Small {
    holder: Child,
    directory: tempfile::TempDir,
}

const MAKE: &str = r#"mount -t tmpfs -o size=1M tmpfs "$1"; truncate -s 2M "$1/disk"
head -c 700000 /dev/zero > "$1/other"; echo made; exec cat"#;

impl Small {
    fn make() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", MAKE, "sh"]).arg(directory.path());
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare");
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().expect("output")).read_line(&mut line).expect("a line");
        assert_eq!(line, "made\n", "a small file system needs root");
        Self { holder, directory }
    }

    fn disk(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    /// The same file as it is found from here.
    fn outside(&self, file: &str) -> PathBuf {
        let inside = self.directory.path().join(file);
        Path::new(&format!("/proc/{}/root", self.holder.id()))
            .join(inside.strip_prefix("/").expect("absolute"))
    }

    fn serve(&self, machine: &Machine, on_enospc: OnEnospc) -> Program {
        let pid = self.holder.id().to_string();
        Program::serve_by(&["nsenter", "-t", &pid, "-m", "--"], machine, &[device(&self.disk(), on_enospc)])
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

fn device(path: &Path, on_enospc: OnEnospc) -> VirtioDevice {
    VirtioDevice::Block {
        path: path.to_owned(),
        read_only: false,
        serial: String::new(),
        maps: None,
        on_enospc,
    }
}

fn piece(index: u64) -> Vec<u8> {
    (0..PIECE).map(|n| (n * (2 * index + 3) + n / 256 + index).to_le_bytes()[0] | 1).collect()
}

/// Offers a write of one piece at its place; its status byte is at `BUFFERS + 16`.
fn offer(hart: &mut Hart<'_>, driver: &Driver, index: u64) {
    let ram = &hart.machine().ram;
    let header = [&1_u32.to_le_bytes(), &[0; 4][..], &(index * PIECE / 512).to_le_bytes()].concat();
    ram.write(BUFFERS, &header).expect("header");
    ram.fill(BUFFERS + 16, 0xee, 1).expect("status");
    ram.write(BUFFERS + 0x1000, &piece(index)).expect("data");
    let len = u32::try_from(PIECE).expect("small");
    for (place, (gpa, len, flags)) in
        (0..).zip([(BUFFERS, 16, NEXT), (BUFFERS + 0x1000, len, NEXT), (BUFFERS + 16, 1, WRITE)])
    {
        driver.describe(hart, 0, place, Desc { gpa, len, flags, next: place + 1 });
    }
    driver.offer(hart, 0, 0);
    driver.notify(hart, 0);
}

fn answered(machine: &Machine, count: u64) -> bool {
    u64::from(machine.ram.load16(ring(0, 0).used + 2).expect("index")) == count
}

fn answer(machine: &Machine) -> u8 {
    let mut byte = [0];
    machine.ram.read(BUFFERS + 16, &mut byte).expect("status");
    byte[0]
}

fn is_paused(machine: &Machine) -> bool {
    machine.vm.pause_mask.load(Ordering::SeqCst) & pause::DISK != 0
        && machine.vm.party(PartyId::Devices).status.load(Ordering::SeqCst) == status::PARKED
}

/// Writes pieces until one finds no room; returns which.
fn fill(machine: &Machine, driver: &Driver, from: u64) -> u64 {
    let mut hart = Hart(machine);
    for index in from.. {
        offer(&mut hart, driver, index);
        wait_until("an answer, or a pause", || answered(machine, index + 1) || is_paused(machine));
        if !answered(machine, index + 1) {
            return index;
        }
        assert_eq!(answer(machine), 0);
    }
    unreachable!("the file system has an end")
}

fn assert_content(small: &Small, pieces: u64) {
    let disk = std::fs::File::open(small.outside("disk")).expect("disk");
    for index in 0..pieces {
        let mut found = vec![0; usize::try_from(PIECE).expect("small")];
        disk.read_exact_at(&mut found, index * PIECE).expect("read");
        assert!(found == piece(index), "piece {index}");
    }
}

#[test]
fn the_vm_stands_still_until_there_is_room_and_goes_on_by_itself() {
    for deterministic in [false, true] {
        let small = Small::make();
        let machine = Machine::new(1);
        if deterministic {
            machine.vm.clock.mode.set(mode::INSTRUCTIONS);
            machine.vm.clock.ns_per_instruction.set(10);
        }
        let mut program = small.serve(&machine, OnEnospc::Pause);
        let driver = Driver::start(&mut Hart(&machine), 0, u64::MAX);
        let stopped_at = fill(&machine, &driver, 0);
        assert!(stopped_at > 0);
        assert_eq!(machine.vm.full_disk(0), Some(full::FILE_SYSTEM));
        // A process that takes over tries again, and waits again.
        if !deterministic {
            program.child.0.kill().expect("kill");
            program.child.0.wait().expect("wait");
            machine.vm.party(PartyId::Devices).status.set(status::ABSENT);
            drop(program);
            program = small.serve(&machine, OnEnospc::Pause);
            wait_until("another pause", || is_paused(&machine) && machine.vm.full_disk(0).is_some());
        }
        // A user who lets it go on has it tried again: in vain.
        machine.vm.unpause(pause::DISK);
        wait_until("another pause", || is_paused(&machine));
        assert!(!answered(&machine, stopped_at + 1) && answer(&machine) == 0xee);
        std::fs::remove_file(small.outside("other")).expect("room");
        wait_until("the answer", || answered(&machine, stopped_at + 1));
        assert_eq!((answer(&machine), machine.vm.full_disk(0)), (0, None));
        wait_until("the VM to run", || machine.vm.pause_mask.load(Ordering::SeqCst) == 0);
        let last = fill(&machine, &driver, stopped_at + 1);
        assert!(last > stopped_at + 1);
        assert_content(&small, last);
        // It ends although it waits.
        drop(program.answer(quasar_abi::control::devices::DevicesCommand::Shutdown));
    }
}

#[test]
fn a_guest_that_wants_errors_gets_them() {
    let small = Small::make();
    let machine = Machine::new(1);
    let _program = small.serve(&machine, OnEnospc::Error);
    let driver = Driver::start(&mut Hart(&machine), 0, u64::MAX);
    let mut failed = 0;
    for index in 0..16 {
        offer(&mut Hart(&machine), &driver, index);
        wait_until("an answer", || answered(&machine, index + 1));
        failed += u32::from(answer(&machine));
    }
    assert!((1..16).contains(&failed), "{failed} failed");
    assert_eq!(machine.vm.pause_mask.get(), 0);
}

/// The signal of a file that becomes too long would kill the process; the supervisor starts it with the signal ignored.
#[test]
fn a_limit_on_files_pauses_too() {
    let file = tempfile::NamedTempFile::new().expect("file");
    file.as_file().set_len(2 << 20).expect("size");
    let machine = Machine::new(1);
    let by = ["sh", "-c", "trap '' XFSZ; exec prlimit --fsize=100000:unlimited \"$@\"", "sh"];
    let program = Program::serve_by(&by, &machine, &[device(file.path(), OnEnospc::Pause)]);
    let driver = Driver::start(&mut Hart(&machine), 0, u64::MAX);
    assert_eq!(fill(&machine, &driver, 0), 1);
    assert_eq!(machine.vm.full_disk(0), Some(full::FILE_SIZE));
    let pid = program.child.0.id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status();
    assert!(raised.expect("prlimit").success());
    machine.vm.unpause(pause::DISK);
    wait_until("the answer", || answered(&machine, 2));
    assert_eq!(answer(&machine), 0);
}

/// What a read-only disk refuses, a guest can repeat as often as it likes.
#[test]
fn refused_writes_fill_no_log() {
    let file = tempfile::NamedTempFile::new().expect("file");
    file.as_file().set_len(2 << 20).expect("size");
    let log = tempfile::NamedTempFile::new().expect("log");
    let mut disk = device(file.path(), OnEnospc::Pause);
    if let VirtioDevice::Block { read_only, .. } = &mut disk {
        *read_only = true;
    }
    let machine = Machine::new(1);
    let by = ["sh", "-c", "log=$1; shift; exec \"$@\" 2> \"$log\"", "sh", &log.path().display().to_string()];
    let mut program = Program::serve_by(&by, &machine, &[disk]);
    let driver = Driver::start(&mut Hart(&machine), 0, 0);
    const WRITES: u16 = 42_000;
    for count in 1..=WRITES {
        if count == 1 {
            offer(&mut Hart(&machine), &driver, 0);
        } else {
            driver.offer(&Hart(&machine), 0, 0);
            driver.notify(&mut Hart(&machine), 0);
        }
        wait_until("an answer", || answered(&machine, count.into()));
    }
    assert_eq!(answer(&machine), 1);
    program.answer(quasar_abi::control::devices::DevicesCommand::Shutdown).expect("shutdown");
    program.child.0.wait().expect("wait");
    let said = std::fs::read_to_string(log.path()).expect("log");
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("write: permission denied")).collect();
    assert!(said.len() < 20_000 && lines.len() < 60, "{} bytes: {:?}", said.len(), lines.first());
    let told = lines.iter().filter_map(|line| line.split_once("… ")?.1.split_once(" more like this"));
    let told: usize = told.map(|(count, _)| count.replace(',', "").parse::<usize>().expect("a number")).sum();
    let shown = lines.iter().filter(|line| !line.contains("more like this")).count();
    assert_eq!(told + shown, usize::from(WRITES), "{said}");
}
