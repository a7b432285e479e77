//! One hart's architectural state as the engines work on it, and its way into and out of shared memory.

mod traps;
mod zicsr;

use crate::csr::status::FS;
use crate::csr::{Csrs, Unfit};
use quasar_abi::hart::{HART_STATE_VERSION, HartState};
use std::mem::offset_of;

pub use crate::privilege::Privilege;

/// What LR reserved (RISC-V Unprivileged, Zalrsc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Guest-physical address.
    pub gpa: u64,
    /// The value that LR loaded, zero-extended.
    pub value: u64,
    /// Bytes: 4 or 8.
    pub len: u8,
}

/// A hart. Its layout is fixed: generated code may address the fields before `csr` and those of `csr`.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hart {
    /// Address of the next instruction.
    pub pc: u64,
    /// Integer registers; x0 stays zero.
    pub x: [u64; 32],
    /// Floating-point registers, raw NaN-boxed bits.
    pub f: [u64; 32],
    /// Instructions retired. While an instruction executes it does not count itself; the engine keeps it
    /// exact whenever it calls into CSR instructions, traps or the SBI.
    pub retired: u64,
    /// Current mode.
    pub privilege: Privilege,
    /// Accrued floating-point exceptions, 5 bits.
    pub fflags: u8,
    /// Dynamic rounding mode, 3 bits, reserved values included.
    pub frm: u8,
    /// mhartid.
    pub index: u8,
    /// Whether `ecall` from S-mode is served by [`crate::sbi`] instead of trapping to M-mode.
    pub builtin_sbi: bool,
    /// Whether the hart waits in WFI; `pc` is already the next instruction's.
    pub waiting: bool,
    /// Control and status registers.
    pub csr: Csrs,
    /// LR's reservation.
    pub reservation: Option<Reservation>,
}

const _: () = {
    assert!(offset_of!(Hart, pc) == 0);
    assert!(offset_of!(Hart, x) == 8);
    assert!(offset_of!(Hart, f) == 264);
    assert!(offset_of!(Hart, retired) == 520);
    assert!(offset_of!(Hart, privilege) == 528);
    assert!(offset_of!(Hart, fflags) == 529);
    assert!(offset_of!(Hart, frm) == 530);
    assert!(offset_of!(Hart, csr) == 536);
    assert!(offset_of!(Hart, csr.mstatus) == 544);
};

/// A saved state that no hart can be in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Another layout.
    #[error(
        "the hart's saved state has version {found}, this build reads version {HART_STATE_VERSION}; use the \
         quasar-cpu that wrote it"
    )]
    Version {
        /// What was found.
        found: u64,
    },
    /// A word holds what the register cannot.
    #[error("the hart's saved {field} is {value:#x}, which that register cannot hold; the state is damaged")]
    Illegal {
        /// Register.
        field: &'static str,
        /// Its word.
        value: u64,
    },
}

impl From<Unfit> for LoadError {
    fn from(Unfit { field, value }: Unfit) -> Self {
        Self::Illegal { field, value }
    }
}

impl Hart {
    /// A hart out of reset: M-mode, pc 0, no interrupts, no translation (RISC-V Privileged 1.13, 3.4).
    #[must_use]
    pub fn new(index: u8) -> Self {
        Self {
            pc: 0,
            x: [0; 32],
            f: [0; 32],
            privilege: Privilege::M,
            fflags: 0,
            frm: 0,
            retired: 0,
            csr: Csrs::new(index),
            reservation: None,
            index,
            builtin_sbi: false,
            waiting: false,
        }
    }

    /// Takes a saved state of the hart `index`. The words are untrusted: what no register can hold is refused.
    ///
    /// # Errors
    /// [`LoadError`] names the first such word.
    pub fn load(index: u8, state: &HartState) -> Result<Self, LoadError> {
        let illegal = |field, value| LoadError::Illegal { field, value };
        let within = |field, value: u64, mask: u64| {
            if value & !mask == 0 { Ok(value) } else { Err(illegal(field, value)) }
        };
        let found = state.version.get();
        if found != HART_STATE_VERSION {
            return Err(LoadError::Version { found });
        }
        let privilege = state.privilege.get();
        let fcsr = within("fcsr", state.fcsr.get(), 0xff)?;
        let reserved = state.reservation.get();
        let mut hart = Self {
            pc: within("pc", state.pc.get(), !1)?,
            x: std::array::from_fn(|i| state.x[i].get()),
            f: std::array::from_fn(|i| state.f[i].get()),
            privilege: Privilege::from_bits(privilege).ok_or(illegal("privilege", privilege))?,
            fflags: (fcsr & 0x1f) as u8,
            frm: (fcsr >> 5 & 7) as u8,
            retired: state.retired.get(),
            csr: Csrs::load(index, state)?,
            reservation: unpack_reservation(reserved, state.reserved_value.get())
                .map_err(|value| illegal("reservation", value))?,
            index,
            builtin_sbi: within("builtin_sbi", state.builtin_sbi.get(), 1)? != 0,
            waiting: within("waiting", state.waiting.get(), 1)? != 0,
        };
        within("x0", hart.x[0], 0)?;
        hart.x[0] = 0;
        for cell in &state.spare {
            within("spare", cell.get(), 0)?;
        }
        Ok(hart)
    }

    /// Writes the state into `state`, to be published afterwards.
    pub fn save(&self, state: &HartState) {
        state.version.set(HART_STATE_VERSION);
        state.pc.set(self.pc);
        for (cell, value) in state.x.iter().zip(self.x) {
            cell.set(value);
        }
        for (cell, value) in state.f.iter().zip(self.f) {
            cell.set(value);
        }
        state.privilege.set(self.privilege.bits());
        state.fcsr.set(u64::from(self.frm) << 5 | u64::from(self.fflags));
        state.retired.set(self.retired);
        self.csr.save(state);
        state.waiting.set(self.waiting.into());
        state.builtin_sbi.set(self.builtin_sbi.into());
        state.reservation.set(self.reservation.map_or(0, pack_reservation));
        state.reserved_value.set(self.reservation.map_or(0, |r| r.value));
        for cell in &state.spare {
            cell.set(0);
        }
    }

    /// Takes interrupts posted by other harts (mip bits; only SSIP can be posted).
    pub fn post(&mut self, bits: u64) {
        self.csr.mip_sw |= bits & crate::trap::SSIP;
    }

    /// Whether floating-point instructions may execute (mstatus.FS is not Off).
    #[inline]
    #[must_use]
    pub const fn fp_enabled(&self) -> bool {
        self.csr.mstatus & FS != 0
    }

    /// Marks floating-point state dirty; after each instruction that changed f registers or fcsr.
    #[inline]
    pub const fn mark_fp_dirty(&mut self) {
        self.csr.mstatus |= FS;
    }

    /// The mode whose rights loads and stores have (mstatus.MPRV; RISC-V Privileged 1.13, 3.1.6.3).
    #[inline]
    #[must_use]
    pub fn data_privilege(&self) -> Privilege {
        self.csr.data_privilege(self.privilege)
    }
}

/// The address plus 1, plus 2 when eight bytes are reserved: LR's addresses are multiples of 4.
fn pack_reservation(reservation: Reservation) -> u64 {
    reservation.gpa | 1 | if reservation.len == 8 { 2 } else { 0 }
}

fn unpack_reservation(word: u64, value: u64) -> Result<Option<Reservation>, u64> {
    if word == 0 {
        return if value == 0 { Ok(None) } else { Err(value) };
    }
    let len = if word & 2 != 0 { 8 } else { 4 };
    let gpa = word & !3;
    if word & 1 == 0 || !gpa.is_multiple_of(u64::from(len)) || (len == 4 && value >> 32 != 0) {
        return Err(word);
    }
    Ok(Some(Reservation { gpa, value, len }))
}
