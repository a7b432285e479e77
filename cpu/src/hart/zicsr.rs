//! The CSR instructions (Zicsr): who may access which register, and when an access reads or writes.

use super::{Hart, Privilege};
use crate::csr::{CsrEffects, CsrEnv, CsrOp, status};
use crate::isa::csr as n;
use crate::isa::{self, Inst, Op};
use crate::trap::Trap;

impl Hart {
    /// Executes a decoded CSR instruction whole, but for the advance of pc and `retired`.
    ///
    /// # Errors
    /// Illegal instruction, with its encoding as tval; nothing has changed then.
    pub fn csr_instruction(&mut self, inst: &Inst, env: &dyn CsrEnv) -> Result<CsrEffects, Trap> {
        let encoding = || isa::encode(inst).map_or(0, u64::from);
        let register = self.x[usize::from(inst.rs1 & 31)];
        let immediate = u64::from(inst.rs1);
        let (op, source) = match inst.op {
            Op::Csrrw => (CsrOp::Write, register),
            Op::Csrrs => (CsrOp::Set, register),
            Op::Csrrc => (CsrOp::Clear, register),
            Op::Csrrwi => (CsrOp::Write, immediate),
            Op::Csrrsi => (CsrOp::Set, immediate),
            Op::Csrrci => (CsrOp::Clear, immediate),
            _ => return Err(Trap::illegal(encoding())),
        };
        let number = u16::try_from(inst.imm).map_err(|_| Trap::illegal(encoding()))?;
        self.csr_access(number, op, inst.rd, inst.writes_csr().then_some(source), env)
            .ok_or_else(|| Trap::illegal(encoding()))
    }

    /// The access of a CSR instruction, register and rd; nothing when it is illegal, and nothing has changed then.
    ///
    /// `source` is the value of rs1 or the immediate; none for CSRRS and CSRRC with x0 or a zero immediate,
    /// which do not write.
    pub fn csr_access(
        &mut self,
        number: u16,
        op: CsrOp,
        rd: u8,
        source: Option<u64>,
        env: &dyn CsrEnv,
    ) -> Option<CsrEffects> {
        let read_only = number >> 10 & 3 == 3;
        let privilege = u64::from(number >> 8 & 3);
        if self.privilege.bits() < privilege || read_only && source.is_some() || !self.allows(number) {
            return None;
        }
        let shown = self.read_csr(number, env)?;
        let mut effects = CsrEffects::NONE;
        if let Some(source) = source {
            let base = self.csr.rmw_base(number, shown);
            let value = match op {
                CsrOp::Write => source,
                CsrOp::Set => base | source,
                CsrOp::Clear => base & !source,
            };
            effects = self.write_csr(number, value);
        }
        if rd != 0 {
            self.x[usize::from(rd & 31)] = shown;
        }
        Some(effects)
    }

    /// The register's value, or nothing when there is no such register.
    fn read_csr(&self, number: u16, env: &dyn CsrEnv) -> Option<u64> {
        match number {
            n::FFLAGS => Some(self.fflags.into()),
            n::FRM => Some(self.frm.into()),
            n::FCSR => Some(u64::from(self.frm) << 5 | u64::from(self.fflags)),
            _ => self.csr.read(number, self.retired, env),
        }
    }

    /// Writes a register that exists and may be written.
    fn write_csr(&mut self, number: u16, value: u64) -> CsrEffects {
        if let n::FFLAGS..=n::FCSR = number {
            self.write_fcsr(number, value);
            return CsrEffects::NONE;
        }
        self.csr.write(number, value, self.retired)
    }

    fn write_fcsr(&mut self, number: u16, value: u64) {
        let low5 = (value & 0x1f) as u8;
        match number {
            n::FFLAGS => self.fflags = low5,
            n::FRM => self.frm = low5 & 7,
            _ => {
                self.fflags = low5;
                self.frm = (value >> 5 & 7) as u8;
            }
        }
        self.mark_fp_dirty();
    }

    /// Checks that go beyond the number's own privilege bits.
    fn allows(&self, number: u16) -> bool {
        match number {
            n::FFLAGS..=n::FCSR => self.fp_enabled(),
            n::CYCLE..=n::HPMCOUNTER31 => self.counter_enabled(number - n::CYCLE),
            n::SATP => self.privilege == Privilege::M || self.csr.mstatus & status::TVM == 0,
            n::STIMECMP => {
                self.privilege == Privilege::M
                    || self.csr.sstc() && self.csr.mcounteren >> (n::TIME - n::CYCLE) & 1 != 0
            }
            _ => true,
        }
    }

    /// mcounteren lets S- and U-mode read a counter, scounteren U-mode too (RISC-V Privileged 1.13, 3.1.11, 12.1.5).
    fn counter_enabled(&self, index: u16) -> bool {
        let machine = self.csr.mcounteren >> index & 1 != 0;
        match self.privilege {
            Privilege::M => true,
            Privilege::S => machine,
            Privilege::U => machine && self.csr.scounteren >> index & 1 != 0,
        }
    }
}
