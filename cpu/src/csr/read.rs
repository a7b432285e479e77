//! What each register shows.

use super::{CsrEnv, Csrs};
use crate::isa::csr as n;
use crate::trap::{MEIP, MSIP, MTIP, SEIP, STIP};

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

    /// The register's value when so many instructions have retired, or nothing when there is no such register. The
    /// floating-point ones are the hart's own.
    pub(crate) fn read(&self, number: u16, retired: u64, env: &dyn CsrEnv) -> Option<u64> {
        Some(match number {
            n::CYCLE | n::MCYCLE => self.mcycle(retired),
            n::TIME => env.time(),
            n::INSTRET | n::MINSTRET => self.minstret(retired),
            n::HPMCOUNTER3..=n::HPMCOUNTER31 => 0,

            n::SSTATUS => self.sstatus_view(),
            n::SIE => self.mie & self.mideleg,
            n::STVEC => self.stvec,
            n::SCOUNTEREN => self.scounteren,
            n::SENVCFG => self.senvcfg,
            n::SSCRATCH => self.sscratch,
            n::SEPC => self.sepc,
            n::SCAUSE => self.scause,
            n::STVAL => self.stval,
            n::SIP => self.mip(env) & self.mideleg,
            n::STIMECMP => self.stimecmp,
            n::SATP => self.satp,

            n::MVENDORID | n::MARCHID | n::MIMPID | n::MCONFIGPTR => 0,
            n::MHARTID => self.mhartid,
            n::MSTATUS => self.mstatus_view(),
            n::MISA => MISA,
            n::MEDELEG => self.medeleg,
            n::MIDELEG => self.mideleg,
            n::MIE => self.mie,
            n::MTVEC => self.mtvec,
            n::MCOUNTEREN => self.mcounteren,
            n::MENVCFG => self.menvcfg,
            n::MCOUNTINHIBIT => self.mcountinhibit,
            n::MHPMEVENT3..=n::MHPMEVENT31 | n::MHPMCOUNTER3..=n::MHPMCOUNTER31 => 0,
            n::MSCRATCH => self.mscratch,
            n::MEPC => self.mepc,
            n::MCAUSE => self.mcause,
            n::MTVAL => self.mtval,
            n::MIP => self.mip(env),
            n::PMPCFG0 => self.pmpcfg[0],
            n::PMPCFG2 => self.pmpcfg[1],
            n::PMPADDR0..=n::PMPADDR15 => self.pmpaddr[usize::from(number - n::PMPADDR0)],
            // One trigger slot of type 0: there is no trigger (RISC-V Debug, 5.7.1).
            n::TSELECT | n::TDATA1 | n::TDATA2 | n::TDATA3 => 0,
            _ => return None,
        })
    }

    /// The value that CSRRS and CSRRC start from: what is shown, except that SEIP counts as what software
    /// wrote, without the interrupt controller's line (RISC-V Privileged 1.13, 3.1.9).
    pub(crate) const fn rmw_base(&self, number: u16, shown: u64) -> u64 {
        match number {
            n::MIP => shown & !SEIP | self.mip_sw & SEIP,
            _ => shown,
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
        if self.sstc() {
            mip |= self.mip_sw & !STIP;
            if time >= self.stimecmp {
                mip |= STIP;
            }
        } else {
            mip |= self.mip_sw;
        }
        mip
    }
}
