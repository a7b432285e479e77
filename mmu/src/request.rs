//! A hart's request, checked at the door: what comes out of a mailbox is anything at all.

use quasar_abi::hart_mmu::MmuMailbox;
use quasar_abi::ram::PAGE_BYTES;
use quasar_abi::tlb::{access, flag, space};

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// Load, LR.
    Read,
    /// Store, SC, AMO.
    Write,
    /// Instruction fetch.
    Fetch,
}

impl AccessKind {
    /// The PMP permission that the access needs, as an entry's flag.
    #[must_use]
    pub const fn pmp_flag(self) -> u64 {
        match self {
            Self::Read => flag::PMP_R,
            Self::Write => flag::PMP_W,
            Self::Fetch => flag::PMP_X,
        }
    }
}

/// Effective privilege of a translated access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// User.
    U,
    /// Supervisor.
    S,
}

/// Where a page walk starts (RISC-V Privileged 1.13, 12.1.11 and 12.3 to 12.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// Levels of the tree: 3 (Sv39), 4 (Sv48), 5 (Sv57).
    pub levels: u32,
    /// Guest-physical address of the root table.
    pub table: u64,
}

impl Root {
    /// The root that a satp value names; Bare and reserved modes have none.
    #[must_use]
    pub const fn of_satp(satp: u64) -> Option<Self> {
        let levels = match satp >> 60 {
            8 => 3,
            9 => 4,
            10 => 5,
            _ => return None,
        };
        Some(Self { levels, table: (satp & 0x0fff_ffff_ffff) << 12 })
    }
}

/// How an access is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// Through page tables.
    Paged {
        /// Where they start.
        root: Root,
        /// Effective privilege.
        mode: Mode,
        /// mstatus.SUM.
        sum: bool,
        /// mstatus.MXR.
        mxr: bool,
        /// menvcfg.ADUE: A and D are set by the machine and don't fault (Svadu).
        adue: bool,
        /// menvcfg.PBMTE: the PBMT field of PTEs is not reserved (Svpbmt).
        pbmte: bool,
    },
    /// Not at all.
    Identity {
        /// M-mode's PMP rules, not those of S and U.
        machine: bool,
    },
}

/// A request whose fields all mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// First virtual address.
    pub va: u64,
    /// Bytes, 1 up to what remains of the page.
    pub len: u64,
    /// What for.
    pub kind: AccessKind,
    /// satp or a value of [`space`].
    pub space: u64,
    /// How to translate.
    pub translation: Translation,
}

/// A request that no hart makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Unknown access.
    #[error("access kind {0} is none of read (0), write (1), fetch (2)")]
    Access(u64),
    /// The privilege does not go with the address space.
    #[error(
        "privilege {privilege} with address space {space:#x}: M goes with MACHINE alone, U and S with a satp"
    )]
    Space {
        /// Privilege asked for.
        privilege: u64,
        /// Space asked for.
        space: u64,
    },
}

const MSTATUS_SUM: u64 = 1 << 18;
const MSTATUS_MXR: u64 = 1 << 19;
const MENVCFG_ADUE: u64 = 1 << 61;
const MENVCFG_PBMTE: u64 = 1 << 62;

impl TryFrom<&MmuMailbox> for Request {
    type Error = BadRequest;

    /// Reads every word once.
    fn try_from(mail: &MmuMailbox) -> Result<Self, BadRequest> {
        let kind = match mail.access.get() {
            access::READ => AccessKind::Read,
            access::WRITE => AccessKind::Write,
            access::FETCH => AccessKind::Fetch,
            other => return Err(BadRequest::Access(other)),
        };
        let (asked, privilege) = (mail.space.get(), mail.privilege.get());
        let (mstatus, menvcfg) = (mail.mstatus.get(), mail.menvcfg.get());
        let bad = BadRequest::Space { privilege, space: asked };
        let mode = match privilege {
            0 => Some(Mode::U),
            1 => Some(Mode::S),
            3 => None,
            _ => return Err(bad),
        };
        let translation = match (mode, asked) {
            (None, space::MACHINE) => Translation::Identity { machine: true },
            (Some(_), space::BARE) => Translation::Identity { machine: false },
            (Some(mode), satp) => Translation::Paged {
                root: Root::of_satp(satp).ok_or(bad)?,
                mode,
                sum: mstatus & MSTATUS_SUM != 0,
                mxr: mstatus & MSTATUS_MXR != 0,
                adue: menvcfg & MENVCFG_ADUE != 0,
                pbmte: menvcfg & MENVCFG_PBMTE != 0,
            },
            (None, _) => return Err(bad),
        };
        let va = mail.va.get();
        let len = mail.len.get().clamp(1, PAGE_BYTES - va % PAGE_BYTES);
        Ok(Self { va, len, kind, space: asked, translation })
    }
}
