//! The page walk as a pure function (RISC-V Privileged 1.13, 12.3.2; Svnapot, Svpbmt, Svadu).

use crate::request::{AccessKind, Mode, Root};
use quasar_abi::tlb::{flag, level_shift};

/// PTE fields (12.3.1, 12.4.1, 12.5.1).
pub mod pte {
    /// Valid.
    pub const V: u64 = 1 << 0;
    /// Readable.
    pub const R: u64 = 1 << 1;
    /// Writable.
    pub const W: u64 = 1 << 2;
    /// Executable.
    pub const X: u64 = 1 << 3;
    /// User.
    pub const U: u64 = 1 << 4;
    /// Global.
    pub const G: u64 = 1 << 5;
    /// Accessed.
    pub const A: u64 = 1 << 6;
    /// Dirty.
    pub const D: u64 = 1 << 7;
    /// Physical page number.
    pub const PPN: u64 = ((1 << 44) - 1) << 10;
    /// Always reserved.
    pub const RESERVED: u64 = 0x7f << 54;
    /// Memory type (Svpbmt); reserved without it.
    pub const PBMT: u64 = 3 << 61;
    /// Contiguous (Svnapot).
    pub const N: u64 = 1 << 63;
}

/// Why a PTE could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PteError {
    /// Not RAM, or PMP denies it: an access fault of the original access's kind.
    Denied,
    /// The page has not arrived yet.
    Absent,
}

/// Where page tables lie.
pub trait PteMemory {
    /// Loads an aligned PTE, atomically.
    ///
    /// # Errors
    /// [`PteError`].
    fn load(&self, gpa: u64) -> Result<u64, PteError>;

    /// Replaces a PTE if it still has the value `old`, atomically; says whether it did.
    ///
    /// # Errors
    /// [`PteError`].
    fn compare_exchange(&self, gpa: u64, old: u64, new: u64) -> Result<bool, PteError>;
}

/// What to translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Where to start.
    pub root: Root,
    /// Virtual address.
    pub va: u64,
    /// What for.
    pub kind: AccessKind,
    /// Effective privilege.
    pub mode: Mode,
    /// mstatus.SUM.
    pub sum: bool,
    /// mstatus.MXR.
    pub mxr: bool,
    /// menvcfg.ADUE.
    pub adue: bool,
    /// menvcfg.PBMTE.
    pub pbmte: bool,
}

/// Why there is no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// Page fault of the access's kind.
    PageFault,
    /// Access fault of the access's kind.
    AccessFault,
    /// A page table has not arrived yet; ask again.
    Absent,
    /// Someone else kept changing the PTE; ask again.
    Contended,
}

impl From<PteError> for WalkError {
    fn from(error: PteError) -> Self {
        match error {
            PteError::Denied => Self::AccessFault,
            PteError::Absent => Self::Absent,
        }
    }
}

/// A translation found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Guest-physical address of the 4 KiB page of the virtual address asked for.
    pub page: u64,
    /// Level of the leaf: 0 is 4 KiB.
    pub level: u32,
    /// R, W, X, U, G, A, D of [`flag`]; G when any PTE on the way has it.
    pub flags: u64,
    /// [`flag::G`] when a PTE above the leaf has it: what its neighbours inherit.
    pub inherited: u64,
    /// Where the leaf PTE lies.
    pub pte_gpa: u64,
    /// Whether the walk set A or D.
    pub updated: bool,
}

/// Walks tried before a PTE under contention is given back for a later try.
const ATTEMPTS: u32 = 64;

/// Translates one access, setting A and D where the access needs it and `adue` allows it.
///
/// # Errors
/// [`WalkError`].
pub fn walk(memory: &impl PteMemory, walk: &Walk) -> Result<Leaf, WalkError> {
    let va_bits = 12 + 9 * walk.root.levels;
    if !is_canonical(walk.va, va_bits) {
        return Err(WalkError::PageFault);
    }
    let mut updated = false;
    for _ in 0..ATTEMPTS {
        let (value, mut leaf) = descend(memory, walk)?;
        if !permits(walk, leaf.flags) {
            return Err(WalkError::PageFault);
        }
        let wanted = if walk.kind == AccessKind::Write { pte::A | pte::D } else { pte::A };
        if value & wanted == wanted {
            leaf.updated = updated;
            return Ok(leaf);
        }
        if !walk.adue {
            return Err(WalkError::PageFault);
        }
        // On a lost race the walk starts again (12.3.2, step 9); on success it does so too, once, which
        // keeps a single way out and costs a few loads on the rarest path.
        updated |= memory.compare_exchange(leaf.pte_gpa, value, value | wanted)?;
    }
    Err(WalkError::Contended)
}

fn is_canonical(va: u64, va_bits: u32) -> bool {
    let top = va.cast_signed() >> (va_bits - 1);
    top == 0 || top == -1
}

/// Steps 2 to 5 and the alignment of superpages: the leaf PTE's value and what it says.
fn descend(memory: &impl PteMemory, walk: &Walk) -> Result<(u64, Leaf), WalkError> {
    let mut table = walk.root.table;
    let mut inherited = 0;
    for level in (0..walk.root.levels).rev() {
        let index = (walk.va >> level_shift(level)) & 0x1ff;
        let pte_gpa = table + index * 8;
        let value = memory.load(pte_gpa)?;
        if value & pte::V != 0 && value & (pte::R | pte::W | pte::X) == 0 {
            // A pointer: in it A, D, U, PBMT and N are reserved too.
            if value & (pte::RESERVED | pte::PBMT | pte::N | pte::A | pte::D | pte::U) != 0 {
                return Err(WalkError::PageFault);
            }
            inherited |= value & pte::G;
            table = (value & pte::PPN) << 2;
            continue;
        }
        let (page, flags) = decode_leaf(value, walk.va, level, walk.pbmte).ok_or(WalkError::PageFault)?;
        let flags = flags | inherited;
        return Ok((value, Leaf { page, level, flags, inherited, pte_gpa, updated: false }));
    }
    Err(WalkError::PageFault)
}

/// Reads a leaf PTE: the guest-physical address of `va`'s 4 KiB page, and R, W, X, U, G, A, D.
///
/// `None` for anything that is no valid leaf at this level: not valid, a pointer, a reserved bit or
/// encoding, a misaligned superpage.
#[must_use]
pub fn decode_leaf(value: u64, va: u64, level: u32, pbmte: bool) -> Option<(u64, u64)> {
    let writable_only = value & (pte::R | pte::W) == pte::W;
    if value & pte::V == 0 || value & (pte::R | pte::X) == 0 || writable_only || value & pte::RESERVED != 0 {
        return None;
    }
    let pbmt = value & pte::PBMT;
    if pbmt == pte::PBMT || (pbmt != 0 && !pbmte) {
        return None;
    }
    let base = (value & pte::PPN) << 2;
    // Address bits that come from the virtual address: those below the leaf's size, or the 64 KiB of a
    // NAPOT page, whose low PPN bits are the encoding 1000 (Svnapot, table 1).
    let from_va = if value & pte::N != 0 {
        if level != 0 || base & 0xf000 != 0x8000 {
            return None;
        }
        0xf000
    } else {
        let inside = (1 << level_shift(level)) - 0x1000;
        if base & inside != 0 {
            return None;
        }
        inside
    };
    let page = (base & !from_va) | (va & from_va);
    Some((page, value & (flag::R | flag::W | flag::X | flag::U | flag::G | flag::A | flag::D)))
}

/// Step 6: whether the leaf's rights allow the access.
fn permits(walk: &Walk, flags: u64) -> bool {
    let user_page = flags & flag::U != 0;
    let mode_ok = match walk.mode {
        Mode::U => user_page,
        Mode::S => !user_page || (walk.sum && walk.kind != AccessKind::Fetch),
    };
    mode_ok
        && match walk.kind {
            AccessKind::Read => flags & flag::R != 0 || (walk.mxr && flags & flag::X != 0),
            AccessKind::Write => flags & flag::W != 0,
            AccessKind::Fetch => flags & flag::X != 0,
        }
}
