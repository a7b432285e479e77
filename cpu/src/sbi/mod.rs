//! The built-in supervisor binary interface (RISC-V SBI 2.0), so that a kernel needs no firmware.
//!
//! [`handle`] serves one `ecall` of S-mode. What it does to other harts and to the machine goes through
//! [`SbiHost`]; [`host::SharedHost`] is the real one, over the VM's segments.

mod base;
mod console;
pub mod host;
mod hsm;
mod masks;
mod system;

use crate::csr;
use crate::csr::status::SIE;
use crate::hart::{Hart, Privilege};
use crate::trap::cause;

/// What a call leaves the engine to do. Afterwards it looks at interrupts and the timer again in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SbiOutcome {
    /// Go on.
    Continue,
    /// Drop this hart's own translations (`sfence`) or decoded instructions (`fencei`) and go on.
    ContinueWithFence {
        /// As `sfence.vma` without operands.
        sfence: bool,
        /// As `fence.i`.
        fencei: bool,
    },
    /// The `ecall` has not been executed: pc and registers are as before. Take the stop or pause that
    /// interrupted it; it executes again afterwards.
    Again,
    /// Suspended: wait as WFI does, whatever mstatus.TW says, then call [`SbiHost::resumed`] and go on.
    Wait,
    /// Stopped: wait until the HSM word says START_PENDING, then [`Hart::start`].
    Stopped,
    /// The machine stops or restarts: execute nothing until the pause that was asked for has been taken.
    Reset,
}

/// What SBI calls do beyond the calling hart.
pub trait SbiHost {
    /// Number of harts, 64 at most; their ids are 0 to this less 1.
    fn harts(&self) -> u8;
    /// Posts a supervisor software interrupt to another hart.
    fn send_ipi(&mut self, hart: u8);
    /// Has other harts (a bit each) drop translations or decoded instructions. Returns when they have, or
    /// with false when the wait was given up; asking again is harmless.
    fn remote_fence(&mut self, harts: u64, sfence: bool, fencei: bool) -> bool;
    /// HSM state of a hart ([`quasar_abi::hart::hsm`]).
    fn hart_status(&self, hart: u8) -> u32;
    /// Starts a hart; says whether it was stopped.
    fn start_hart(&mut self, hart: u8, address: u64, opaque: u64) -> bool;
    /// Records that the calling hart has stopped.
    fn stopped(&mut self);
    /// Records that the calling hart is suspended.
    fn suspended(&mut self);
    /// Records that the calling hart goes on after [`SbiOutcome::Wait`].
    fn resumed(&mut self);
    /// Asks for poweroff, reboot or a failure's end ([`quasar_abi::vm::request`]).
    fn reset(&mut self, request: u32, code: u64);
    /// Whether `[gpa, gpa + len)` is RAM.
    fn is_ram(&self, gpa: u64, len: u64) -> bool;
    /// Reads guest RAM; says whether it could be read.
    fn read_ram(&mut self, gpa: u64, bytes: &mut [u8]) -> bool;
    /// Writes guest RAM; says whether it could be written.
    fn write_ram(&mut self, gpa: u64, bytes: &[u8]) -> bool;
    /// Whether the hart shall come to rest: a call of many steps ends early then.
    fn interrupted(&mut self) -> bool;
    /// Sends a byte through the UART.
    fn uart_write(&mut self, byte: u8);
    /// Takes a byte from the UART, if one has come.
    fn uart_read(&mut self) -> Option<u8>;
}

/// Error codes (SBI 2.0, table 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum SbiError {
    /// Failed for no better reason.
    Failed = -1,
    /// Not offered.
    NotSupported = -2,
    /// A parameter is out of range.
    InvalidParam = -3,
    /// An address cannot be used.
    InvalidAddress = -5,
    /// Already there: the hart was started before.
    AlreadyAvailable = -6,
}

impl SbiError {
    /// What a0 holds.
    #[must_use]
    pub const fn code(self) -> u64 {
        (self as i64).cast_unsigned()
    }
}

/// How a call ends.
enum Answer {
    /// Success with a value in a1.
    Value(u64),
    /// Success, value 0, and something to do.
    Then(SbiOutcome),
    /// An error.
    Error(SbiError),
    /// A legacy call's result, in a0 alone (SBI 2.0, chapter 5).
    Legacy(u64),
    /// The call does not return to its caller.
    Gone(SbiOutcome),
}

impl From<Result<u64, SbiError>> for Answer {
    fn from(result: Result<u64, SbiError>) -> Self {
        result.map_or_else(Self::Error, Self::Value)
    }
}

/// Extension ids.
mod eid {
    pub const LEGACY_SET_TIMER: u64 = 0;
    pub const LEGACY_PUTCHAR: u64 = 1;
    pub const LEGACY_GETCHAR: u64 = 2;
    pub const LEGACY_SHUTDOWN: u64 = 8;
    pub const BASE: u64 = 0x10;
    pub const TIME: u64 = 0x5449_4d45;
    pub const IPI: u64 = 0x73_5049;
    pub const RFENCE: u64 = 0x5246_4e43;
    pub const HSM: u64 = 0x48_534d;
    pub const SRST: u64 = 0x5352_5354;
    pub const DBCN: u64 = 0x4442_434e;
    /// What `sbi_probe_extension` finds.
    pub const ALL: [u64; 11] = [
        LEGACY_SET_TIMER,
        LEGACY_PUTCHAR,
        LEGACY_GETCHAR,
        LEGACY_SHUTDOWN,
        BASE,
        TIME,
        IPI,
        RFENCE,
        HSM,
        SRST,
        DBCN,
    ];
}

/// Serves the `ecall` at `hart.pc`, made in S-mode: arguments in a0 to a5, function in a6, extension in a7;
/// error in a0, value in a1 (SBI 2.0, chapter 3). The pc moves on unless the outcome says otherwise.
pub fn handle(hart: &mut Hart, host: &mut dyn SbiHost) -> SbiOutcome {
    let [a0, a1, a2]: [u64; 3] = [hart.x[10], hart.x[11], hart.x[12]];
    let (function, extension) = (hart.x[16], hart.x[17]);
    let answer = match extension {
        eid::LEGACY_SET_TIMER => {
            hart.csr.stimecmp = a0;
            Answer::Legacy(0)
        }
        eid::LEGACY_PUTCHAR => console::putchar(host, a0),
        eid::LEGACY_GETCHAR => console::getchar(host),
        eid::LEGACY_SHUTDOWN => system::shutdown(host),
        eid::BASE => base::call(function, a0).into(),
        eid::TIME if function == 0 => {
            hart.csr.stimecmp = a0;
            Answer::Value(0)
        }
        eid::IPI if function == 0 => masks::send_ipi(hart, host, a0, a1),
        eid::RFENCE => masks::remote_fence(hart.index, host, function, a0, a1),
        eid::HSM => hsm::call(host, function, a0, a1, a2),
        eid::SRST if function == 0 => system::reset(host, a0, a1),
        eid::DBCN => console::call(host, function, a0, a1, a2),
        _ => Answer::Error(SbiError::NotSupported),
    };
    finish(hart, answer)
}

fn finish(hart: &mut Hart, answer: Answer) -> SbiOutcome {
    let (result, outcome) = match answer {
        Answer::Then(SbiOutcome::Again) => return SbiOutcome::Again,
        Answer::Value(value) => (Some((0, value)), SbiOutcome::Continue),
        Answer::Then(outcome) => (Some((0, 0)), outcome),
        Answer::Error(error) => (Some((error.code(), 0)), SbiOutcome::Continue),
        Answer::Legacy(value) => (Some((value, hart.x[11])), SbiOutcome::Continue),
        Answer::Gone(outcome) => (None, outcome),
    };
    if let Some((a0, a1)) = result {
        hart.x[10] = a0;
        hart.x[11] = a1;
    }
    // There is no compressed ecall.
    hart.pc = hart.pc.wrapping_add(4);
    outcome
}

/// One entry that allows everything: all addresses by NAPOT, readable, writable, executable, not locked.
const PMP_ALL: u64 = 0x1f;

impl Hart {
    /// Enters S-mode as a boot or `sbi_hart_start` does: hart id in a0, `opaque` in a1, no translation,
    /// interrupts off (SBI 2.0, table 9.2).
    pub fn start(&mut self, address: u64, opaque: u64) {
        self.set_up_for_supervisor();
        self.privilege = Privilege::S;
        self.pc = address & !1;
        self.x[10] = self.index.into();
        self.x[11] = opaque;
        self.csr.satp = 0;
        self.csr.mstatus &= !SIE;
        self.reservation = None;
        self.waiting = false;
    }

    /// Does what firmware would have done before S-mode: whatever S-mode can handle is delegated to it,
    /// except its own `ecall`; it and U-mode may read the counters and use stimecmp; PMP allows everything. A first
    /// state that the supervisor publishes says the same.
    pub fn set_up_for_supervisor(&mut self) {
        let csr = &mut self.csr;
        csr.medeleg = csr::MEDELEG & !(1 << cause::ECALL_S);
        csr.mideleg = csr::MIDELEG;
        csr.mcounteren = csr::COUNTERS;
        // Linux reads the time from U-mode (its vDSO) and leaves scounteren as firmware set it.
        csr.scounteren = csr::COUNTERS;
        csr.menvcfg = csr::MENVCFG & !csr::ENVCFG_FIOM;
        csr.pmpcfg = [PMP_ALL, 0];
        csr.pmpaddr[0] = csr::pmp::ADDRESS;
        self.builtin_sbi = true;
    }
}
