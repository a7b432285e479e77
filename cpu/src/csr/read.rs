//! What each register shows.

use super::{CsrEnv, Csrs};
use crate::hart::Hart;
use crate::isa::csr as n;
use crate::trap::SEIP;

/// RV64 with extensions A B C D F I M, S-mode and U-mode; cannot be changed.
pub const MISA: u64 = 2 << 62 | extensions(b"abcdfimsu");

const fn extensions(letters: &[u8]) -> u64 {
    let mut bits = 0;
    let mut i = 0;
    while i < letters.len() {
        bits |= 1 << (letters[i] - b'a');
        i += 1;
    }
    bits
}

impl Csrs {
    /// mcycle: a retired instruction counts as a cycle.
    #[must_use]
    pub const fn mcycle(&self, retired: u64) -> u64 {
        if self.mcountinhibit & 1 != 0 {
            self.mcycle_offset
        } else {
            retired.wrapping_add(self.mcycle_offset)
        }
    }

    /// minstret.
    #[must_use]
    pub const fn minstret(&self, retired: u64) -> u64 {
        if self.mcountinhibit & 4 != 0 {
            self.minstret_offset
        } else {
            retired.wrapping_add(self.minstret_offset)
        }
    }
}

impl Hart {
    /// The register's value, or nothing when there is no such register.
    pub(super) fn read_csr(&self, number: u16, env: &dyn CsrEnv) -> Option<u64> {
        let csr = &self.csr;
        Some(match number {
            n::FFLAGS => self.fflags.into(),
            n::FRM => self.frm.into(),
            n::FCSR => u64::from(self.frm) << 5 | u64::from(self.fflags),
            n::CYCLE | n::MCYCLE => csr.mcycle(self.retired),
            n::TIME => env.time(),
            n::INSTRET | n::MINSTRET => csr.minstret(self.retired),
            n::HPMCOUNTER3..=n::HPMCOUNTER31 => 0,

            n::SSTATUS => csr.sstatus_view(),
            n::SIE => csr.mie & csr.mideleg,
            n::STVEC => csr.stvec,
            n::SCOUNTEREN => csr.scounteren,
            n::SENVCFG => csr.senvcfg,
            n::SSCRATCH => csr.sscratch,
            n::SEPC => csr.sepc,
            n::SCAUSE => csr.scause,
            n::STVAL => csr.stval,
            n::SIP => self.mip(env) & csr.mideleg,
            n::STIMECMP => csr.stimecmp,
            n::SATP => csr.satp,

            n::MVENDORID | n::MARCHID | n::MIMPID | n::MCONFIGPTR => 0,
            n::MHARTID => csr.mhartid,
            n::MSTATUS => csr.mstatus_view(),
            n::MISA => MISA,
            n::MEDELEG => csr.medeleg,
            n::MIDELEG => csr.mideleg,
            n::MIE => csr.mie,
            n::MTVEC => csr.mtvec,
            n::MCOUNTEREN => csr.mcounteren,
            n::MENVCFG => csr.menvcfg,
            n::MCOUNTINHIBIT => csr.mcountinhibit,
            n::MHPMEVENT3..=n::MHPMEVENT31 | n::MHPMCOUNTER3..=n::MHPMCOUNTER31 => 0,
            n::MSCRATCH => csr.mscratch,
            n::MEPC => csr.mepc,
            n::MCAUSE => csr.mcause,
            n::MTVAL => csr.mtval,
            n::MIP => self.mip(env),
            n::PMPCFG0 => csr.pmpcfg[0],
            n::PMPCFG2 => csr.pmpcfg[1],
            n::PMPADDR0..=n::PMPADDR15 => csr.pmpaddr[usize::from(number - n::PMPADDR0)],
            // One trigger slot of type 0: there is no trigger (RISC-V Debug, 5.7.1).
            n::TSELECT | n::TDATA1 | n::TDATA2 | n::TDATA3 => 0,
            _ => return None,
        })
    }

    /// The value that CSRRS and CSRRC start from: what is shown, except that SEIP counts as what software
    /// wrote, without the interrupt controller's line (RISC-V Privileged 1.13, 3.1.9).
    pub(super) const fn rmw_base(&self, number: u16, shown: u64) -> u64 {
        match number {
            n::MIP => shown & !SEIP | self.csr.mip_sw & SEIP,
            _ => shown,
        }
    }
}
