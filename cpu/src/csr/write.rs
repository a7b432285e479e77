//! What each register takes (WARL), and what the engine must look at again.

use super::status;
use super::{COUNTEREN, ENVCFG_FIOM, EPC, MCOUNTINHIBIT, MEDELEG, MENVCFG, MIDELEG, MIE_MASK, TVEC};
use super::{CsrEffects, MENVCFG_ADUE, MENVCFG_PBMTE, MENVCFG_STCE};
use crate::hart::Hart;
use crate::isa::csr as n;
use crate::trap::{SEIP, SSIP, STIP};

const TRANSLATION_STATUS: u64 = status::SUM | status::MXR | status::MPRV | status::MPP;
const INTERRUPT_STATUS: u64 = status::SIE | status::MIE;

/// What satp becomes: nothing changes when the mode is not offered; Bare drops the other fields
/// (RISC-V Privileged 1.13, 12.1.11). All 16 ASID bits and 44 page-number bits are kept.
pub(super) const fn legal_satp(value: u64) -> Option<u64> {
    match value >> 60 {
        0 => Some(0),
        8..=10 => Some(value),
        _ => None,
    }
}

const fn when(condition: bool, effect: CsrEffects) -> CsrEffects {
    if condition { effect } else { CsrEffects::NONE }
}

impl Hart {
    /// Writes a register that exists and may be written.
    pub(super) fn write_csr(&mut self, number: u16, value: u64) -> CsrEffects {
        let csr = &mut self.csr;
        match number {
            n::FFLAGS..=n::FCSR => self.write_fcsr(number, value),
            n::SSTATUS => return self.set_mstatus(self.csr.legal_sstatus(value)),
            n::MSTATUS => return self.set_mstatus(self.csr.legal_mstatus(value)),
            n::SIE => {
                csr.mie = csr.mie & !csr.mideleg | value & csr.mideleg;
                return CsrEffects::INTERRUPTS;
            }
            n::MIE => {
                csr.mie = value & MIE_MASK;
                return CsrEffects::INTERRUPTS;
            }
            n::SIP => return self.write_mip(SSIP & self.csr.mideleg, value),
            n::MIP => {
                let timer = if csr.sstc() { 0 } else { STIP };
                return self.write_mip(SSIP | SEIP | timer, value);
            }
            n::MEDELEG => csr.medeleg = value & MEDELEG,
            n::MIDELEG => {
                csr.mideleg = value & MIDELEG;
                return CsrEffects::INTERRUPTS;
            }
            n::STIMECMP => {
                csr.stimecmp = value;
                return CsrEffects::TIMER | CsrEffects::INTERRUPTS;
            }
            n::MENVCFG => return self.write_menvcfg(value & MENVCFG),
            n::SATP => {
                if let Some(legal) = legal_satp(value)
                    && legal != csr.satp
                {
                    csr.satp = legal;
                    return CsrEffects::TRANSLATION;
                }
            }
            n::PMPCFG0 | n::PMPCFG2 => {
                csr.write_pmpcfg(usize::from(number == n::PMPCFG2), value);
                return CsrEffects::TRANSLATION;
            }
            n::PMPADDR0..=n::PMPADDR15 => {
                csr.write_pmpaddr(usize::from(number - n::PMPADDR0), value);
                return CsrEffects::TRANSLATION;
            }
            n::MCYCLE => self.write_counters(Some(value), None),
            n::MINSTRET => self.write_counters(None, Some(value)),
            n::MCOUNTINHIBIT => self.write_mcountinhibit(value & MCOUNTINHIBIT),
            n::STVEC => csr.stvec = value & TVEC,
            n::MTVEC => csr.mtvec = value & TVEC,
            n::SCOUNTEREN => csr.scounteren = value & COUNTEREN,
            n::MCOUNTEREN => csr.mcounteren = value & COUNTEREN,
            n::SENVCFG => csr.senvcfg = value & ENVCFG_FIOM,
            n::SSCRATCH => csr.sscratch = value,
            n::MSCRATCH => csr.mscratch = value,
            n::SEPC => csr.sepc = value & EPC,
            n::MEPC => csr.mepc = value & EPC,
            n::SCAUSE => csr.scause = value,
            n::MCAUSE => csr.mcause = value,
            n::STVAL => csr.stval = value,
            n::MTVAL => csr.mtval = value,
            // misa, event selectors, unimplemented counters, triggers: fixed.
            _ => {}
        }
        CsrEffects::NONE
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

    fn set_mstatus(&mut self, next: u64) -> CsrEffects {
        let changed = self.csr.mstatus ^ next;
        self.csr.mstatus = next;
        when(changed & TRANSLATION_STATUS != 0, CsrEffects::TRANSLATION)
            | when(changed & INTERRUPT_STATUS != 0, CsrEffects::INTERRUPTS)
    }

    fn write_mip(&mut self, writable: u64, value: u64) -> CsrEffects {
        self.csr.mip_sw = self.csr.mip_sw & !writable | value & writable;
        CsrEffects::INTERRUPTS
    }

    fn write_menvcfg(&mut self, next: u64) -> CsrEffects {
        let changed = self.csr.menvcfg ^ next;
        self.csr.menvcfg = next;
        when(changed & (MENVCFG_ADUE | MENVCFG_PBMTE) != 0, CsrEffects::TRANSLATION)
            | when(changed & MENVCFG_STCE != 0, CsrEffects::TIMER | CsrEffects::INTERRUPTS)
    }

    /// Writes counters. The written value is what the next instruction reads: the writing instruction's own
    /// increment is lost (RISC-V Privileged 1.13, 3.1.10).
    fn write_counters(&mut self, mcycle: Option<u64>, minstret: Option<u64>) {
        let after = self.retired.wrapping_add(1);
        let csr = &mut self.csr;
        if let Some(value) = mcycle {
            csr.mcycle_offset = if csr.mcountinhibit & 1 != 0 { value } else { value.wrapping_sub(after) };
        }
        if let Some(value) = minstret {
            csr.minstret_offset = if csr.mcountinhibit & 4 != 0 { value } else { value.wrapping_sub(after) };
        }
    }

    /// Stops and restarts counters, from the next instruction on; a stopped counter's word holds its value.
    fn write_mcountinhibit(&mut self, next: u64) {
        let after = self.retired.wrapping_add(1);
        let csr = &mut self.csr;
        let (mcycle, minstret) = (csr.mcycle(after), csr.minstret(after));
        csr.mcountinhibit = next;
        self.write_counters(Some(mcycle), Some(minstret));
    }
}
