//! A hart takes exceptions and interrupts, and comes back (RISC-V Privileged 1.13, 3.1.6 to 3.1.15, 3.3).

use super::{Hart, Privilege};
use crate::csr::CsrEnv;
use crate::csr::status::{MIE, MPIE, MPP, MPP_SHIFT, MPRV, SIE, SPIE, SPP, TSR, TVM, TW};
use crate::trap::{MEIP, MSIP, MTIP, SEIP, SSIP, STIP, Trap, cause};

/// Interrupts by falling priority (RISC-V Privileged 1.13, 3.1.9).
const PRIORITY: [u64; 6] = [MEIP, MSIP, MTIP, SEIP, SSIP, STIP];

/// Encodings of the instructions that carry no operands.
const WFI: u64 = 0x1050_0073;
const MRET: u64 = 0x3020_0073;
const SRET: u64 = 0x1020_0073;

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

    /// mip as it reads now: see [`crate::csr::Csrs::mip`].
    #[must_use]
    pub fn mip(&self, env: &dyn CsrEnv) -> u64 {
        self.csr.mip(env)
    }
}
