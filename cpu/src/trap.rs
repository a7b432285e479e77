//! What traps are: causes of exceptions, and interrupts. How a hart takes them is in [`crate::hart`].

/// Exception codes (RISC-V Privileged 1.13, table 14).
pub mod cause {
    /// Instruction address misaligned. Cannot occur: IALIGN is 16.
    pub const FETCH_MISALIGNED: u64 = 0;
    /// Instruction access fault.
    pub const FETCH_ACCESS: u64 = 1;
    /// Illegal instruction.
    pub const ILLEGAL_INSTRUCTION: u64 = 2;
    /// Breakpoint.
    pub const BREAKPOINT: u64 = 3;
    /// Load address misaligned.
    pub const LOAD_MISALIGNED: u64 = 4;
    /// Load access fault.
    pub const LOAD_ACCESS: u64 = 5;
    /// Store or AMO address misaligned.
    pub const STORE_MISALIGNED: u64 = 6;
    /// Store or AMO access fault.
    pub const STORE_ACCESS: u64 = 7;
    /// Environment call from U-mode.
    pub const ECALL_U: u64 = 8;
    /// Environment call from S-mode.
    pub const ECALL_S: u64 = 9;
    /// Environment call from M-mode.
    pub const ECALL_M: u64 = 11;
    /// Instruction page fault.
    pub const FETCH_PAGE: u64 = 12;
    /// Load page fault.
    pub const LOAD_PAGE: u64 = 13;
    /// Store or AMO page fault.
    pub const STORE_PAGE: u64 = 15;
    /// Set in mcause and scause when the trap is an interrupt.
    pub const INTERRUPT: u64 = 1 << 63;
}

/// Supervisor software interrupt, in mip and mie.
pub const SSIP: u64 = 1 << 1;
/// Machine software interrupt.
pub const MSIP: u64 = 1 << 3;
/// Supervisor timer interrupt.
pub const STIP: u64 = 1 << 5;
/// Machine timer interrupt.
pub const MTIP: u64 = 1 << 7;
/// Supervisor external interrupt.
pub const SEIP: u64 = 1 << 9;
/// Machine external interrupt.
pub const MEIP: u64 = 1 << 11;

/// A synchronous exception to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// One of [`cause`].
    pub cause: u64,
    /// What mtval or stval will hold.
    pub tval: u64,
}

impl Trap {
    /// An illegal instruction with its encoding (16 bits for a compressed one).
    #[must_use]
    pub const fn illegal(encoding: u64) -> Self {
        Self { cause: cause::ILLEGAL_INSTRUCTION, tval: encoding }
    }
}
