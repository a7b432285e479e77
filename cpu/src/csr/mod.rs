//! Control and status registers (RISC-V Privileged 1.13, chapters 2, 3 and 12; Sstc; Svadu).
//!
//! [`Csrs`] keeps the state, [`read`] and [`write`] say what each register shows and takes, and what of the hart has to
//! be looked at again. The instructions that reach them are the hart's ([`crate::hart::Hart::csr_instruction`]).

pub(crate) mod pmp;
mod read;
pub mod status;
mod write;

use crate::trap::{SEIP, SSIP, STIP};
use quasar_abi::hart::{HartState, PMP_ENTRIES};

/// What registers show that is not the hart's own.
pub trait CsrEnv {
    /// Guest time in ticks.
    fn time(&self) -> u64;
    /// Interrupt lines as mip bits (MEIP, SEIP, MSIP).
    fn lines(&self) -> u64;
    /// The ACLINT's mtimecmp for this hart.
    fn mtimecmp(&self) -> u64;
}

/// What an engine must look at again after a register was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CsrEffects(u8);

impl CsrEffects {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// How addresses translate or who may access what: satp, PMP, mstatus.{SUM,MXR,MPRV,MPP},
    /// menvcfg.{ADUE,PBMTE}.
    pub const TRANSLATION: Self = Self(1);
    /// Which interrupts are pending or enabled.
    pub const INTERRUPTS: Self = Self(2);
    /// When the timer expires.
    pub const TIMER: Self = Self(4);

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::BitOr for CsrEffects {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What CSRRW, CSRRS and CSRRC (and their immediate forms) do to the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsrOp {
    /// Write.
    Write,
    /// Set bits.
    Set,
    /// Clear bits.
    Clear,
}

/// A saved word that its register cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// The register.
    pub field: &'static str,
    /// The word.
    pub value: u64,
}

/// Exceptions that S-mode may be given: all but `ecall` from M-mode and the reserved codes.
pub(crate) const MEDELEG: u64 = 0xb3ff;
/// Interrupts that S-mode may be given.
pub(crate) const MIDELEG: u64 = SSIP | STIP | SEIP;
/// Interrupts there are.
pub(crate) const MIE_MASK: u64 = 0xaaa;
/// menvcfg.FIOM and senvcfg.FIOM: has no effect, since every fence orders device accesses too.
pub(crate) const ENVCFG_FIOM: u64 = 1 << 0;
/// menvcfg.ADUE: the walk sets A and D bits (Svadu).
pub const MENVCFG_ADUE: u64 = 1 << 61;
/// menvcfg.PBMTE: Svpbmt.
pub const MENVCFG_PBMTE: u64 = 1 << 62;
/// menvcfg.STCE: stimecmp drives STIP (Sstc).
pub const MENVCFG_STCE: u64 = 1 << 63;
pub(crate) const MENVCFG: u64 = ENVCFG_FIOM | MENVCFG_ADUE | MENVCFG_PBMTE | MENVCFG_STCE;
/// mcountinhibit.CY and IR; `time` cannot be stopped.
pub(crate) const MCOUNTINHIBIT: u64 = 0b101;
/// mcounteren.CY, TM and IR: the counters that count.
pub(crate) const COUNTERS: u64 = 0b111;
/// mcounteren and scounteren are 32 bits wide.
pub(crate) const COUNTEREN: u64 = 0xffff_ffff;
/// mtvec and stvec: modes 0 and 1.
pub(crate) const TVEC: u64 = !2;
/// mepc and sepc: IALIGN is 16.
pub(crate) const EPC: u64 = !1;

/// The registers' state. Fields hold legal values only; engines read them, the guest writes through
/// [`crate::hart::Hart::csr_access`].
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csrs {
    /// mhartid.
    pub mhartid: u64,
    /// mstatus without UXL, SXL and SD, which [`Csrs::mstatus_view`] adds.
    pub mstatus: u64,
    /// mie.
    pub mie: u64,
    /// The software-written bits of mip: SSIP, STIP (shown while Sstc is off), SEIP.
    pub mip_sw: u64,
    /// medeleg.
    pub medeleg: u64,
    /// mideleg.
    pub mideleg: u64,
    /// mtvec.
    pub mtvec: u64,
    /// mscratch.
    pub mscratch: u64,
    /// mepc.
    pub mepc: u64,
    /// mcause.
    pub mcause: u64,
    /// mtval.
    pub mtval: u64,
    /// mcounteren.
    pub mcounteren: u64,
    /// mcountinhibit.
    pub mcountinhibit: u64,
    /// menvcfg.
    pub menvcfg: u64,
    /// stvec.
    pub stvec: u64,
    /// sscratch.
    pub sscratch: u64,
    /// sepc.
    pub sepc: u64,
    /// scause.
    pub scause: u64,
    /// stval.
    pub stval: u64,
    /// satp; zero whenever its mode is Bare.
    pub satp: u64,
    /// scounteren.
    pub scounteren: u64,
    /// senvcfg.
    pub senvcfg: u64,
    /// stimecmp; all ones when no timer is set.
    pub stimecmp: u64,
    /// What is added to the retired instructions to read minstret; while inhibited, minstret itself.
    pub minstret_offset: u64,
    /// The same for mcycle: a cycle is an instruction.
    pub mcycle_offset: u64,
    /// pmpcfg0 and pmpcfg2.
    pub pmpcfg: [u64; 2],
    /// pmpaddr0 to pmpaddr15.
    pub pmpaddr: [u64; PMP_ENTRIES],
}

impl Csrs {
    /// Registers out of reset.
    #[must_use]
    pub fn new(index: u8) -> Self {
        Self {
            mhartid: index.into(),
            mstatus: 0,
            mie: 0,
            mip_sw: 0,
            medeleg: 0,
            mideleg: 0,
            mtvec: 0,
            mscratch: 0,
            mepc: 0,
            mcause: 0,
            mtval: 0,
            mcounteren: 0,
            mcountinhibit: 0,
            menvcfg: 0,
            stvec: 0,
            sscratch: 0,
            sepc: 0,
            scause: 0,
            stval: 0,
            satp: 0,
            scounteren: 0,
            senvcfg: 0,
            stimecmp: u64::MAX,
            minstret_offset: 0,
            mcycle_offset: 0,
            pmpcfg: [0; 2],
            pmpaddr: [0; PMP_ENTRIES],
        }
    }

    /// Whether stimecmp drives STIP.
    #[inline]
    #[must_use]
    pub const fn sstc(&self) -> bool {
        self.menvcfg & MENVCFG_STCE != 0
    }

    /// Takes saved registers; see [`crate::hart::Hart::load`].
    pub(crate) fn load(index: u8, state: &HartState) -> Result<Self, Unfit> {
        let illegal = |field, value| Unfit { field, value };
        let within = |field, value: u64, mask: u64| {
            if value & !mask == 0 { Ok(value) } else { Err(illegal(field, value)) }
        };
        let mstatus = state.mstatus.get();
        let satp = state.satp.get();
        let pmpcfg = [state.pmpcfg[0].get(), state.pmpcfg[1].get()];
        let pmpaddr: [u64; PMP_ENTRIES] = std::array::from_fn(|i| state.pmpaddr[i].get());
        for word in pmpcfg {
            if !pmp::is_legal(word) {
                return Err(illegal("pmpcfg", word));
            }
        }
        for word in pmpaddr {
            within("pmpaddr", word, pmp::ADDRESS)?;
        }
        Ok(Self {
            mhartid: index.into(),
            mstatus: Self::saved_mstatus(mstatus).ok_or(illegal("mstatus", mstatus))?,
            mie: within("mie", state.mie.get(), MIE_MASK)?,
            mip_sw: within("mip", state.mip.get(), MIDELEG)?,
            medeleg: within("medeleg", state.medeleg.get(), MEDELEG)?,
            mideleg: within("mideleg", state.mideleg.get(), MIDELEG)?,
            mtvec: within("mtvec", state.mtvec.get(), TVEC)?,
            mscratch: state.mscratch.get(),
            mepc: within("mepc", state.mepc.get(), EPC)?,
            mcause: state.mcause.get(),
            mtval: state.mtval.get(),
            mcounteren: within("mcounteren", state.mcounteren.get(), COUNTEREN)?,
            mcountinhibit: within("mcountinhibit", state.mcountinhibit.get(), MCOUNTINHIBIT)?,
            menvcfg: within("menvcfg", state.menvcfg.get(), MENVCFG)?,
            stvec: within("stvec", state.stvec.get(), TVEC)?,
            sscratch: state.sscratch.get(),
            sepc: within("sepc", state.sepc.get(), EPC)?,
            scause: state.scause.get(),
            stval: state.stval.get(),
            satp: write::legal_satp(satp).filter(|legal| *legal == satp).ok_or(illegal("satp", satp))?,
            scounteren: within("scounteren", state.scounteren.get(), COUNTEREN)?,
            senvcfg: within("senvcfg", state.senvcfg.get(), ENVCFG_FIOM)?,
            stimecmp: state.stimecmp.get(),
            minstret_offset: state.minstret_offset.get(),
            mcycle_offset: state.mcycle_offset.get(),
            pmpcfg,
            pmpaddr,
        })
    }

    /// Writes the registers into `state`; see [`crate::hart::Hart::save`].
    pub(crate) fn save(&self, state: &HartState) {
        state.mstatus.set(self.mstatus_view());
        for (cell, value) in [
            (&state.mie, self.mie),
            (&state.mip, self.mip_sw),
            (&state.medeleg, self.medeleg),
            (&state.mideleg, self.mideleg),
            (&state.mtvec, self.mtvec),
            (&state.mscratch, self.mscratch),
            (&state.mepc, self.mepc),
            (&state.mcause, self.mcause),
            (&state.mtval, self.mtval),
            (&state.mcounteren, self.mcounteren),
            (&state.mcountinhibit, self.mcountinhibit),
            (&state.menvcfg, self.menvcfg),
            (&state.stvec, self.stvec),
            (&state.sscratch, self.sscratch),
            (&state.sepc, self.sepc),
            (&state.scause, self.scause),
            (&state.stval, self.stval),
            (&state.satp, self.satp),
            (&state.scounteren, self.scounteren),
            (&state.senvcfg, self.senvcfg),
            (&state.stimecmp, self.stimecmp),
            (&state.minstret_offset, self.minstret_offset),
            (&state.mcycle_offset, self.mcycle_offset),
        ] {
            cell.set(value);
        }
        for (cell, value) in state.pmpcfg.iter().zip(self.pmpcfg) {
            cell.set(value);
        }
        for (cell, value) in state.pmpaddr.iter().zip(self.pmpaddr) {
            cell.set(value);
        }
    }
}
