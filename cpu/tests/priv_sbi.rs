//! The built-in SBI against a host that writes down what is asked of it (RISC-V SBI 2.0).

use quasar_abi::hart::hsm;
use quasar_abi::vm::request;
use quasar_cpu::hart::{Hart, Privilege};
use quasar_cpu::sbi::{SbiError, SbiHost, SbiOutcome, handle};
use std::collections::VecDeque;

const RAM: u64 = 0x8000_0000;
const RAM_BYTES: usize = 4096;

const TIME: u64 = 0x5449_4d45;
const IPI: u64 = 0x0073_5049;
const RFENCE: u64 = 0x5246_4e43;
const HSM: u64 = 0x0048_534d;
const SRST: u64 = 0x5352_5354;
const DBCN: u64 = 0x4442_434e;

#[derive(Debug)]
struct Fake {
    harts: u8,
    status: Vec<u32>,
    log: Vec<String>,
    ram: Vec<u8>,
    output: Vec<u8>,
    input: VecDeque<u8>,
    gives_up: bool,
    /// Bytes of console output after which the hart shall rest.
    rest_after: usize,
}

impl Fake {
    fn new(harts: u8) -> Self {
        let mut status = vec![hsm::STOPPED; harts.into()];
        status[0] = hsm::STARTED;
        Self {
            harts,
            status,
            log: vec![],
            ram: vec![0; RAM_BYTES],
            output: vec![],
            input: VecDeque::new(),
            gives_up: false,
            rest_after: usize::MAX,
        }
    }

    fn at(&self, gpa: u64) -> usize {
        usize::try_from(gpa - RAM).expect("an address that was checked")
    }
}

impl SbiHost for Fake {
    fn harts(&self) -> u8 {
        self.harts
    }
    fn send_ipi(&mut self, hart: u8) {
        self.log.push(format!("ipi {hart}"));
    }
    fn remote_fence(&mut self, harts: u64, sfence: bool, fencei: bool) -> bool {
        self.log.push(format!("fence {harts:#b} {sfence} {fencei}"));
        !self.gives_up
    }
    fn hart_status(&self, hart: u8) -> u32 {
        self.status[usize::from(hart)]
    }
    fn start_hart(&mut self, hart: u8, address: u64, opaque: u64) -> bool {
        let status = &mut self.status[usize::from(hart)];
        let stopped = *status == hsm::STOPPED;
        if stopped {
            *status = hsm::START_PENDING;
            self.log.push(format!("start {hart} {address:#x} {opaque}"));
        }
        stopped
    }
    fn stopped(&mut self) {
        self.status[0] = hsm::STOPPED;
    }
    fn suspended(&mut self) {
        self.status[0] = hsm::SUSPENDED;
    }
    fn resumed(&mut self) {
        self.status[0] = hsm::STARTED;
    }
    fn reset(&mut self, request: u32, code: u64) {
        self.log.push(format!("reset {request} {code}"));
    }
    fn is_ram(&self, gpa: u64, len: u64) -> bool {
        let offset = gpa.wrapping_sub(RAM);
        offset < RAM_BYTES as u64 && len <= RAM_BYTES as u64 - offset
    }
    fn read_ram(&mut self, gpa: u64, bytes: &mut [u8]) -> bool {
        let at = self.at(gpa);
        bytes.copy_from_slice(&self.ram[at..at + bytes.len()]);
        true
    }
    fn write_ram(&mut self, gpa: u64, bytes: &[u8]) -> bool {
        let at = self.at(gpa);
        self.ram[at..at + bytes.len()].copy_from_slice(bytes);
        true
    }
    fn interrupted(&mut self) -> bool {
        self.output.len() >= self.rest_after
    }
    fn uart_write(&mut self, byte: u8) {
        self.output.push(byte);
    }
    fn uart_read(&mut self) -> Option<u8> {
        self.input.pop_front()
    }
}

fn guest() -> Hart {
    let mut hart = Hart::new(0);
    hart.start(RAM, 0);
    hart
}

/// Makes a call; returns a0 and a1 as signed and unsigned numbers, and what the engine is to do.
fn call(host: &mut Fake, extension: u64, function: u64, arguments: &[u64]) -> (i64, u64, SbiOutcome) {
    let (hart, outcome) = call_from(guest(), host, extension, function, arguments);
    (hart.x[10].cast_signed(), hart.x[11], outcome)
}

fn call_from(
    mut hart: Hart,
    host: &mut Fake,
    extension: u64,
    function: u64,
    arguments: &[u64],
) -> (Hart, SbiOutcome) {
    hart.x = std::array::from_fn(|i| if i == 0 { 0 } else { 0x5555_0000 + i as u64 });
    hart.x[10..10 + arguments.len()].copy_from_slice(arguments);
    hart.x[16] = function;
    hart.x[17] = extension;
    let before = hart.clone();
    let outcome = handle(&mut hart, host);
    for i in (0..32).filter(|i| ![10, 11].contains(i)) {
        assert_eq!(hart.x[i], before.x[i], "only a0 and a1 change");
    }
    let returns = outcome != SbiOutcome::Again;
    assert_eq!(hart.pc, before.pc + if returns { 4 } else { 0 });
    assert_eq!(hart.privilege, Privilege::S);
    (hart, outcome)
}

fn error(error: SbiError) -> (i64, u64, SbiOutcome) {
    (error as i64, 0, SbiOutcome::Continue)
}

fn success(value: u64) -> (i64, u64, SbiOutcome) {
    (0, value, SbiOutcome::Continue)
}

#[test]
fn base_tells_version_and_extensions() {
    let mut host = Fake::new(1);
    assert_eq!(call(&mut host, 0x10, 0, &[]), success(0x0200_0000));
    // Numbers up to 15 are in use by others or near it; ours must not look like one of them.
    assert!(call(&mut host, 0x10, 1, &[]).1 > 0xffff);
    assert_eq!(call(&mut host, 0x10, 2, &[]).0, 0);
    for id in [0, 1, 2, 8, 0x10, TIME, IPI, RFENCE, HSM, SRST, DBCN] {
        assert_eq!(call(&mut host, 0x10, 3, &[id]), success(1), "{id:#x}");
    }
    for id in [3, 4, 5, 6, 7, 9, 0x50_4d55, 0x5355_5350, u64::MAX] {
        assert_eq!(call(&mut host, 0x10, 3, &[id]), success(0), "{id:#x}");
        assert_eq!(call(&mut host, id, 0, &[1, 0]), error(SbiError::NotSupported), "{id:#x}");
    }
    for function in 4..=6 {
        assert_eq!(call(&mut host, 0x10, function, &[]), success(0));
    }
}

#[test]
fn functions_beyond_the_last_are_not_supported() {
    let first_unknown = [(0x10, 7), (TIME, 1), (IPI, 1), (RFENCE, 3), (HSM, 4), (SRST, 1), (DBCN, 3)];
    for (extension, first) in first_unknown {
        for function in [first, first + 1, first + 3, u64::MAX] {
            let mut host = Fake::new(2);
            let answer = call(&mut host, extension, function, &[1, 0, 0, 0]);
            assert_eq!(answer, error(SbiError::NotSupported), "{extension:#x} {function}");
            assert!(host.log.is_empty() && host.output.is_empty());
        }
    }
}

#[test]
fn timers_are_set_by_both_calls() {
    for extension in [TIME, 0] {
        let mut host = Fake::new(1);
        let (hart, outcome) = call_from(guest(), &mut host, extension, 0, &[12345, 999]);
        assert_eq!((hart.csr.stimecmp, hart.x[10], outcome), (12345, 0, SbiOutcome::Continue));
        assert_eq!(hart.x[11], if extension == 0 { 999 } else { 0 }, "legacy calls keep a1");
    }
}

#[test]
fn masks_name_harts_from_their_base() {
    // Mask, base, and which of four harts are meant.
    let cases: &[(u64, u64, Option<u64>)] = &[
        (0b0001, 0, Some(0b0001)),
        (0b1010, 0, Some(0b1010)),
        (0b0011, 2, Some(0b1100)),
        (0, 0, Some(0)),
        (0, u64::MAX, Some(0b1111)),
        (0xffff_ffff, u64::MAX, Some(0b1111)),
        (0b1_0000, 0, None),
        (0b0100, 2, None),
        (1, 4, None),
        (1, 64, None),
        (1, 1 << 40, None),
        (1 << 63, 1, None),
        (u64::MAX, 0, None),
    ];
    for &(mask, base, meant) in cases {
        let mut host = Fake::new(4);
        let (hart, _) = call_from(guest(), &mut host, IPI, 0, &[mask, base]);
        let own = hart.csr.mip_sw >> 1 & 1;
        let Some(meant) = meant else {
            assert_eq!(hart.x[10].cast_signed(), SbiError::InvalidParam as i64, "{mask:#x} {base:#x}");
            assert!(host.log.is_empty() && own == 0);
            continue;
        };
        assert_eq!(hart.x[10], 0);
        let others: Vec<_> = (1..4).filter(|h| meant >> h & 1 != 0).map(|h| format!("ipi {h}")).collect();
        assert_eq!((&host.log, own), (&others, meant & 1), "{mask:#x} {base:#x}");

        for (function, sfence, fencei) in [(0, false, true), (1, true, false), (2, true, false)] {
            let mut host = Fake::new(4);
            let answer = call(&mut host, RFENCE, function, &[mask, base, 0x1000, 0x2000, 7]);
            let own = SbiOutcome::ContinueWithFence { sfence, fencei };
            assert_eq!(answer, (0, 0, if meant & 1 != 0 { own } else { SbiOutcome::Continue }));
            let others = meant & !1;
            let asked = (others != 0).then(|| format!("fence {others:#b} {sfence} {fencei}"));
            assert_eq!(host.log, asked.into_iter().collect::<Vec<_>>());
        }
    }
    let mut host = Fake::new(4);
    assert_eq!(call(&mut host, RFENCE, 1, &[1, 4, 0, 0]), error(SbiError::InvalidParam));
}

#[test]
fn a_fence_that_was_given_up_has_not_been_called() {
    let mut host = Fake::new(2);
    host.gives_up = true;
    let (hart, outcome) = call_from(guest(), &mut host, RFENCE, 1, &[3, 0, 0x77, 0]);
    assert_eq!(outcome, SbiOutcome::Again);
    assert_eq!((hart.x[10], hart.x[11], hart.x[12]), (3, 0, 0x77), "the arguments are still there");
    host.gives_up = false;
    let again = call_from(hart, &mut host, RFENCE, 1, &[3, 0, 0x77, 0]).1;
    assert_eq!(again, SbiOutcome::ContinueWithFence { sfence: true, fencei: false });
}

#[test]
fn harts_start_once() {
    let mut host = Fake::new(2);
    assert_eq!(call(&mut host, HSM, 2, &[0]), success(hsm::STARTED.into()));
    assert_eq!(call(&mut host, HSM, 2, &[1]), success(hsm::STOPPED.into()));
    assert_eq!(call(&mut host, HSM, 2, &[2]), error(SbiError::InvalidParam));
    assert_eq!(call(&mut host, HSM, 2, &[257]), error(SbiError::InvalidParam));
    assert_eq!(call(&mut host, HSM, 0, &[2, RAM, 0]), error(SbiError::InvalidParam));
    for address in [0, RAM - 2, RAM + 4096, RAM + 1, u64::MAX - 1] {
        assert_eq!(
            call(&mut host, HSM, 0, &[1, address, 0]),
            error(SbiError::InvalidAddress),
            "{address:#x}"
        );
    }
    assert_eq!(call(&mut host, HSM, 0, &[0, RAM, 0]), error(SbiError::AlreadyAvailable));
    assert_eq!(call(&mut host, HSM, 0, &[1, RAM + 0x20, 9]), success(0));
    assert_eq!(call(&mut host, HSM, 2, &[1]), success(hsm::START_PENDING.into()));
    assert_eq!(call(&mut host, HSM, 0, &[1, RAM, 0]), error(SbiError::AlreadyAvailable));
    assert_eq!(host.log, ["start 1 0x80000020 9"]);
}

#[test]
fn stop_does_not_return_and_suspend_does() {
    let mut host = Fake::new(1);
    let (hart, outcome) = call_from(guest(), &mut host, HSM, 1, &[4, 5]);
    assert_eq!((outcome, host.status[0]), (SbiOutcome::Stopped, hsm::STOPPED));
    assert_eq!((hart.x[10], hart.x[11]), (4, 5));

    let mut host = Fake::new(1);
    assert_eq!(call(&mut host, HSM, 3, &[0, RAM, 0]), (0, 0, SbiOutcome::Wait));
    assert_eq!(host.status[0], hsm::SUSPENDED);
    for kind in [0x8000_0000, 0x1000_0000, 0x7fff_ffff, 0x9000_0000, 0xffff_ffff] {
        assert_eq!(call(&mut host, HSM, 3, &[kind, RAM, 0]), error(SbiError::NotSupported), "{kind:#x}");
    }
    for kind in [1, 0x0fff_ffff, 0x8000_0001, 0x8fff_ffff] {
        assert_eq!(call(&mut host, HSM, 3, &[kind, RAM, 0]), error(SbiError::InvalidParam), "{kind:#x}");
    }
}

#[test]
fn a_started_hart_is_in_supervisor_mode_with_its_id() {
    let mut hart = Hart::new(3);
    hart.privilege = Privilege::M;
    hart.csr.satp = 8 << 60 | 5;
    hart.csr.mstatus |= 1 << 1;
    hart.waiting = true;
    hart.start(RAM + 0x100, 77);
    assert_eq!((hart.privilege, hart.pc, hart.x[10], hart.x[11]), (Privilege::S, RAM + 0x100, 3, 77));
    assert_eq!((hart.csr.satp, hart.csr.mstatus >> 1 & 1, hart.waiting), (0, 0, false));
    // What firmware would have set up (the supervisor publishes the same for the first hart).
    assert_eq!((hart.csr.medeleg, hart.csr.mideleg), (0xb1ff, 0x222), "all but ecall from S-mode");
    assert_eq!((hart.csr.menvcfg, hart.csr.mcounteren, hart.csr.scounteren), (7 << 61, 7, 7));
    assert_eq!((hart.csr.pmpcfg, hart.csr.pmpaddr[0]), ([0x1f, 0], (1 << 54) - 1));
    assert!(hart.builtin_sbi);
}

#[test]
fn resets_ask_the_supervisor() {
    let asked = [
        (0, 0, request::POWEROFF),
        (0, 1, request::FAILURE),
        (1, 0, request::REBOOT),
        (2, 0, request::REBOOT),
        (1, 1, request::REBOOT),
    ];
    for (kind, reason, what) in asked {
        let mut host = Fake::new(1);
        assert_eq!(call(&mut host, SRST, 0, &[kind, reason]).2, SbiOutcome::Reset);
        assert_eq!(host.log, [format!("reset {what} {reason}")]);
    }
    for (kind, reason) in [(3, 0), (0xf000_0000, 0), (0, 2), (0, 0xe000_0000)] {
        let mut host = Fake::new(1);
        assert_eq!(call(&mut host, SRST, 0, &[kind, reason]), error(SbiError::InvalidParam));
        assert!(host.log.is_empty());
    }
    let mut host = Fake::new(1);
    assert_eq!(call(&mut host, 8, 0, &[]).2, SbiOutcome::Reset);
    assert_eq!(host.log, ["reset 1 0"]);
}

#[test]
fn the_debug_console_writes_from_and_reads_into_memory() {
    let mut host = Fake::new(1);
    host.ram[16..21].copy_from_slice(b"hello");
    assert_eq!(call(&mut host, DBCN, 0, &[5, RAM + 16, 0]), success(5));
    assert_eq!(call(&mut host, DBCN, 2, &[0x1234_5621]), success(0));
    assert_eq!(host.output, b"hello!");

    host.input.extend(b"abc");
    assert_eq!(call(&mut host, DBCN, 1, &[2, RAM + 100, 0]), success(2));
    assert_eq!(call(&mut host, DBCN, 1, &[10, RAM + 102, 0]), success(1));
    assert_eq!(call(&mut host, DBCN, 1, &[10, RAM + 103, 0]), success(0));
    assert_eq!(&host.ram[100..104], b"abc\0");

    for function in [0, 1] {
        for (len, low, high) in
            [(1, 0, 0), (1, RAM, 1), (2, RAM + 4095, 0), (u64::MAX, RAM, 0), (1, RAM + 4096, 0)]
        {
            let answer = call(&mut host, DBCN, function, &[len, low, high]);
            assert_eq!(answer, error(SbiError::InvalidParam), "{function} {len:#x} {low:#x} {high}");
        }
        assert_eq!(call(&mut host, DBCN, function, &[0, RAM, 0]), success(0));
    }
    assert_eq!(host.output, b"hello!");
}

#[test]
fn a_long_text_is_written_by_several_calls() {
    let mut host = Fake::new(1);
    for (i, byte) in host.ram.iter_mut().enumerate() {
        *byte = i.to_le_bytes()[0] ^ i.to_le_bytes()[1];
    }
    let (mut from, end) = (RAM, RAM + RAM_BYTES as u64);
    while from < end {
        let (error, written, _) = call(&mut host, DBCN, 0, &[end - from, from, 0]);
        assert_eq!(error, 0);
        assert!(written > 0 && written <= end - from);
        from += written;
    }
    assert_eq!(host.output, host.ram);
}

#[test]
fn a_rest_ends_a_write_early_and_no_byte_is_lost() {
    let mut host = Fake::new(1);
    host.ram[..6].copy_from_slice(b"moment");
    host.rest_after = 4;
    assert_eq!(call(&mut host, DBCN, 0, &[6, RAM, 0]), success(4));
    let (hart, outcome) = call_from(guest(), &mut host, DBCN, 0, &[2, RAM + 4, 0]);
    assert_eq!((outcome, hart.x[10], hart.x[11]), (SbiOutcome::Again, 2, RAM + 4));
    host.rest_after = usize::MAX;
    assert_eq!(call(&mut host, DBCN, 0, &[2, RAM + 4, 0]), success(2));
    assert_eq!(host.output, b"moment");
}

#[test]
fn the_legacy_console_answers_in_a0_alone() {
    let mut host = Fake::new(1);
    assert_eq!(call(&mut host, 1, 0, &[0x141, 88]), (0, 88, SbiOutcome::Continue));
    assert_eq!(host.output, b"A");
    host.input.push_back(0xff);
    assert_eq!(call(&mut host, 2, 0, &[0, 88]), (0xff, 88, SbiOutcome::Continue));
    assert_eq!(call(&mut host, 2, 0, &[0, 88]), (-1, 88, SbiOutcome::Continue));
}
