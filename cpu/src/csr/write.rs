//! What each register takes (WARL), and what the engine must look at again.

use super::status;
use super::{COUNTEREN, ENVCFG_FIOM, EPC, MCOUNTINHIBIT, MEDELEG, MENVCFG, MIDELEG, MIE_MASK, TVEC};
use super::{CsrEffects, Csrs, MENVCFG_ADUE, MENVCFG_PBMTE, MENVCFG_STCE};
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

impl Csrs {
    /// Writes a register that exists and may be written, `retired` instructions after reset, of which the writing one is
    /// none yet. The floating-point ones are the hart's own.
    pub(crate) fn write(&mut self, number: u16, value: u64, retired: u64) -> CsrEffects {
        match number {
            n::SSTATUS => return self.set_mstatus(self.legal_sstatus(value)),
            n::MSTATUS => return self.set_mstatus(self.legal_mstatus(value)),
            n::SIE => {
                self.mie = self.mie & !self.mideleg | value & self.mideleg;
                return CsrEffects::INTERRUPTS;
            }
            n::MIE => {
                self.mie = value & MIE_MASK;
                return CsrEffects::INTERRUPTS;
            }
            n::SIP => return self.write_mip(SSIP & self.mideleg, value),
            n::MIP => {
                let timer = if self.sstc() { 0 } else { STIP };
                return self.write_mip(SSIP | SEIP | timer, value);
            }
            n::MEDELEG => self.medeleg = value & MEDELEG,
            n::MIDELEG => {
                self.mideleg = value & MIDELEG;
                return CsrEffects::INTERRUPTS;
            }
            n::STIMECMP => {
                self.stimecmp = value;
                return CsrEffects::TIMER | CsrEffects::INTERRUPTS;
            }
            n::MENVCFG => return self.write_menvcfg(value & MENVCFG),
            n::SATP => {
                if let Some(legal) = legal_satp(value)
                    && legal != self.satp
                {
                    self.satp = legal;
                    return CsrEffects::TRANSLATION;
                }
            }
            n::PMPCFG0 | n::PMPCFG2 => {
                self.write_pmpcfg(usize::from(number == n::PMPCFG2), value);
                return CsrEffects::TRANSLATION;
            }
            n::PMPADDR0..=n::PMPADDR15 => {
                self.write_pmpaddr(usize::from(number - n::PMPADDR0), value);
                return CsrEffects::TRANSLATION;
            }
            n::MCYCLE => self.write_counters(retired, Some(value), None),
            n::MINSTRET => self.write_counters(retired, None, Some(value)),
            n::MCOUNTINHIBIT => self.write_mcountinhibit(retired, value & MCOUNTINHIBIT),
            n::STVEC => self.stvec = value & TVEC,
            n::MTVEC => self.mtvec = value & TVEC,
            n::SCOUNTEREN => self.scounteren = value & COUNTEREN,
            n::MCOUNTEREN => self.mcounteren = value & COUNTEREN,
            n::SENVCFG => self.senvcfg = value & ENVCFG_FIOM,
            n::SSCRATCH => self.sscratch = value,
            n::MSCRATCH => self.mscratch = value,
            n::SEPC => self.sepc = value & EPC,
            n::MEPC => self.mepc = value & EPC,
            n::SCAUSE => self.scause = value,
            n::MCAUSE => self.mcause = value,
            n::STVAL => self.stval = value,
            n::MTVAL => self.mtval = value,
            // misa, event selectors, unimplemented counters, triggers: fixed.
            _ => {}
        }
        CsrEffects::NONE
    }

    fn set_mstatus(&mut self, next: u64) -> CsrEffects {
        let changed = self.mstatus ^ next;
        self.mstatus = next;
        when(changed & TRANSLATION_STATUS != 0, CsrEffects::TRANSLATION)
            | when(changed & INTERRUPT_STATUS != 0, CsrEffects::INTERRUPTS)
    }

    fn write_mip(&mut self, writable: u64, value: u64) -> CsrEffects {
        self.mip_sw = self.mip_sw & !writable | value & writable;
        CsrEffects::INTERRUPTS
    }

    fn write_menvcfg(&mut self, next: u64) -> CsrEffects {
        let changed = self.menvcfg ^ next;
        self.menvcfg = next;
        when(changed & (MENVCFG_ADUE | MENVCFG_PBMTE) != 0, CsrEffects::TRANSLATION)
            | when(changed & MENVCFG_STCE != 0, CsrEffects::TIMER | CsrEffects::INTERRUPTS)
    }

    /// Writes counters. The written value is what the next instruction reads: the writing instruction's own
    /// increment is lost (RISC-V Privileged 1.13, 3.1.10).
    fn write_counters(&mut self, retired: u64, mcycle: Option<u64>, minstret: Option<u64>) {
        let after = retired.wrapping_add(1);
        if let Some(value) = mcycle {
            self.mcycle_offset = if self.mcountinhibit & 1 != 0 { value } else { value.wrapping_sub(after) };
        }
        if let Some(value) = minstret {
            self.minstret_offset =
                if self.mcountinhibit & 4 != 0 { value } else { value.wrapping_sub(after) };
        }
    }

    /// Stops and restarts counters, from the next instruction on; a stopped counter's word holds its value.
    fn write_mcountinhibit(&mut self, retired: u64, next: u64) {
        let after = retired.wrapping_add(1);
        let (mcycle, minstret) = (self.mcycle(after), self.minstret(after));
        self.mcountinhibit = next;
        self.write_counters(retired, Some(mcycle), Some(minstret));
    }
}
