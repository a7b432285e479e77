//! Traps: exceptions, interrupts and the way back (RISC-V Privileged 1.13, 3.1.6 to 3.1.15, 3.3).

use crate::csr::CsrEnv;
use crate::csr::status::{MIE, MPIE, MPP, MPP_SHIFT, MPRV, SIE, SPIE, SPP, TSR, TVM, TW};
use crate::hart::{Hart, Privilege};

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

/// Interrupts by falling priority (RISC-V Privileged 1.13, 3.1.9).
const PRIORITY: [u64; 6] = [MEIP, MSIP, MTIP, SEIP, SSIP, STIP];

/// Encodings of the instructions that carry no operands.
const WFI: u64 = 0x1050_0073;
const MRET: u64 = 0x3020_0073;
const SRET: u64 = 0x1020_0073;

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

impl Hart {
    /// The exception that `ecall` raises in the current mode.
    #[must_use]
    pub const fn ecall(&self) -> Trap {
        Trap { cause: cause::ECALL_U + self.privilege.bits(), tval: 0 }
    }

    /// Takes an exception raised by the instruction at `pc`: the pc becomes the handler's.
    pub fn take_exception(&mut self, trap: Trap, pc: u64) {
        let delegated = self.privilege <= Privilege::S && self.csr.medeleg >> trap.cause & 1 != 0;
        self.enter(delegated, trap.cause, trap.tval, pc);
    }

    /// The interrupt to take now, as the value of mcause or scause (RISC-V Privileged 1.13, 3.1.9).
    #[must_use]
    pub fn pending_interrupt(&self, mip: u64) -> Option<u64> {
        let pending = mip & self.csr.mie;
        if pending == 0 {
            return None;
        }
        let machine = match self.privilege {
            Privilege::M => self.csr.mstatus & MIE != 0,
            Privilege::S | Privilege::U => true,
        };
        let supervisor = match self.privilege {
            Privilege::M => false,
            Privilege::S => self.csr.mstatus & SIE != 0,
            Privilege::U => true,
        };
        let to_machine = if machine { pending & !self.csr.mideleg } else { 0 };
        let to_supervisor = if supervisor { pending & self.csr.mideleg } else { 0 };
        // What M-mode takes comes before anything that S-mode takes.
        let candidates = if to_machine != 0 { to_machine } else { to_supervisor };
        let bit = PRIORITY.into_iter().find(|bit| candidates & bit != 0)?;
        Some(cause::INTERRUPT | u64::from(bit.trailing_zeros()))
    }

    /// Whether WFI ends: an interrupt is pending and enabled in mie, whatever the global enables and
    /// delegation say (RISC-V Privileged 1.13, 3.3.3).
    #[must_use]
    pub const fn wakes(&self, mip: u64) -> bool {
        self.csr.mie & mip != 0
    }

    /// Takes an interrupt before the instruction at `pc`; `cause` is what [`Hart::pending_interrupt`] said.
    pub fn take_interrupt(&mut self, cause: u64) {
        let delegated = self.privilege <= Privilege::S && self.csr.mideleg >> (cause & 63) & 1 != 0;
        self.waiting = false;
        self.enter(delegated, cause, 0, self.pc);
    }

    fn enter(&mut self, to_supervisor: bool, cause: u64, tval: u64, pc: u64) {
        let from = self.privilege;
        let csr = &mut self.csr;
        let tvec = if to_supervisor {
            csr.sepc = pc;
            csr.scause = cause;
            csr.stval = tval;
            let enabled = csr.mstatus & SIE != 0;
            csr.mstatus &= !(SIE | SPIE | SPP);
            csr.mstatus |= if enabled { SPIE } else { 0 } | if from == Privilege::S { SPP } else { 0 };
            self.privilege = Privilege::S;
            csr.stvec
        } else {
            csr.mepc = pc;
            csr.mcause = cause;
            csr.mtval = tval;
            let enabled = csr.mstatus & MIE != 0;
            csr.mstatus &= !(MIE | MPIE | MPP);
            csr.mstatus |= if enabled { MPIE } else { 0 } | from.bits() << MPP_SHIFT;
            self.privilege = Privilege::M;
            csr.mtvec
        };
        let vectored = tvec & 1 != 0 && cause & cause::INTERRUPT != 0;
        let offset = if vectored { (cause & !cause::INTERRUPT) * 4 } else { 0 };
        self.pc = (tvec & !3).wrapping_add(offset);
    }

    /// MRET (RISC-V Privileged 1.13, 3.1.6.1, 3.3.2).
    ///
    /// # Errors
    /// Illegal instruction outside M-mode.
    pub const fn mret(&mut self) -> Result<(), Trap> {
        if !matches!(self.privilege, Privilege::M) {
            return Err(Trap::illegal(MRET));
        }
        let status = self.csr.mstatus;
        // MPP never holds the reserved value 2.
        self.privilege = match status >> MPP_SHIFT & 3 {
            0 => Privilege::U,
            1 => Privilege::S,
            _ => Privilege::M,
        };
        let mut next = status & !(MIE | MPP) | MPIE;
        if status & MPIE != 0 {
            next |= MIE;
        }
        if !matches!(self.privilege, Privilege::M) {
            next &= !MPRV;
        }
        self.csr.mstatus = next;
        self.pc = self.csr.mepc;
        Ok(())
    }

    /// SRET (RISC-V Privileged 1.13, 3.1.6.1, 3.3.2).
    ///
    /// # Errors
    /// Illegal instruction in U-mode, and in S-mode while mstatus.TSR is set.
    pub const fn sret(&mut self) -> Result<(), Trap> {
        let status = self.csr.mstatus;
        let allowed = match self.privilege {
            Privilege::U => false,
            Privilege::S => status & TSR == 0,
            Privilege::M => true,
        };
        if !allowed {
            return Err(Trap::illegal(SRET));
        }
        self.privilege = if status & SPP != 0 { Privilege::S } else { Privilege::U };
        let mut next = status & !(SIE | SPP | MPRV) | SPIE;
        if status & SPIE != 0 {
            next |= SIE;
        }
        self.csr.mstatus = next;
        self.pc = self.csr.sepc;
        Ok(())
    }

    /// Whether WFI may execute (mstatus.TW; in U-mode never, with a time limit of zero:
    /// RISC-V Privileged 1.13, 3.1.6.6).
    ///
    /// # Errors
    /// Illegal instruction.
    pub const fn check_wfi(&self) -> Result<(), Trap> {
        match self.privilege {
            Privilege::M => Ok(()),
            Privilege::S if self.csr.mstatus & TW == 0 => Ok(()),
            Privilege::S | Privilege::U => Err(Trap::illegal(WFI)),
        }
    }

    /// Whether SFENCE.VMA or SINVAL.VMA may execute (mstatus.TVM; RISC-V Privileged 1.13, 3.1.6.6).
    ///
    /// # Errors
    /// Illegal instruction with the given encoding.
    pub const fn check_sfence(&self, encoding: u64) -> Result<(), Trap> {
        match self.privilege {
            Privilege::M => Ok(()),
            Privilege::S if self.csr.mstatus & TVM == 0 => Ok(()),
            Privilege::S | Privilege::U => Err(Trap::illegal(encoding)),
        }
    }

    /// Whether SFENCE.W.INVAL or SFENCE.INVAL.IR may execute: TVM does not matter (Svinval).
    ///
    /// # Errors
    /// Illegal instruction with the given encoding, in U-mode.
    pub const fn check_sfence_order(&self, encoding: u64) -> Result<(), Trap> {
        match self.privilege {
            Privilege::U => Err(Trap::illegal(encoding)),
            Privilege::S | Privilege::M => Ok(()),
        }
    }

    /// mip as it reads now: software bits, device lines and timers (RISC-V Privileged 1.13, 3.1.9; Sstc).
    #[must_use]
    pub fn mip(&self, env: &dyn CsrEnv) -> u64 {
        let time = env.time();
        let mut mip = env.lines() & (MEIP | SEIP | MSIP);
        if time >= env.mtimecmp() {
            mip |= MTIP;
        }
        if self.csr.sstc() {
            mip |= self.csr.mip_sw & !STIP;
            if time >= self.csr.stimecmp {
                mip |= STIP;
            }
        } else {
            mip |= self.csr.mip_sw;
        }
        mip
    }
}
