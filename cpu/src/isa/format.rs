//! Where an instruction's operands are in its 32 bits, and what they mean.

use super::Inst;

/// How an instruction's operands are laid out and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// No operands.
    Nullary,
    /// `rd, rs1, rs2`
    R,
    /// `rd, rs1`
    Unary,
    /// `rd, rs1, imm`
    I,
    /// `rd, rs1, shamt`, 0 to 63
    Shift6,
    /// `rd, rs1, shamt`, 0 to 31
    Shift5,
    /// `rd, imm(rs1)`, a load
    Load,
    /// `rd, imm(rs1)`, the indirect jump
    Jalr,
    /// `rs2, imm(rs1)`
    Store,
    /// `rs1, rs2, target`
    Branch,
    /// `rd, upper`
    U,
    /// `rd, target`
    J,
    /// `pred, succ`; the rd and rs1 fields are reserved and ignored
    Fence,
    /// nothing; the rd, rs1 and immediate fields are reserved and ignored
    FenceI,
    /// `rs1, rs2`: address and address space
    Vma,
    /// `rd, csr, rs1`
    Csr,
    /// `rd, csr, zimm`
    CsrImm,
    /// `rd, (rs1)`
    LoadReserved,
    /// `rd, rs2, (rs1)`
    Atomic,
    /// `fd, imm(rs1)`
    FloatLoad,
    /// `fs2, imm(rs1)`
    FloatStore,
    /// `fd, fs1, fs2, fs3, rm`
    FloatFma,
    /// `fd, fs1, fs2, rm`
    FloatArith,
    /// `fd, fs1, fs2`
    FloatBinary,
    /// `fd, fs1, rm`
    FloatUnary,
    /// `rd, fs1, fs2`
    FloatCompare,
    /// `rd, fs1, rm`
    FloatToInt,
    /// `fd, rs1, rm`
    IntToFloat,
    /// `rd, fs1`
    FloatMoveToInt,
    /// `fd, rs1`
    IntMoveToFloat,
}

/// What a register field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reg {
    /// The field isn't an operand; it is zero in [`Inst`].
    None,
    /// An integer register.
    X,
    /// A floating-point register.
    F,
    /// A 5-bit unsigned immediate (`csrrwi` and kin).
    Immediate,
}

/// How the immediate is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imm {
    /// There is none; it is zero in [`Inst`].
    None,
    /// 12 bits, signed.
    I,
    /// 12 bits, signed, split around the source registers.
    S,
    /// A branch offset: 13 bits, signed, even.
    B,
    /// The upper 20 of 32 bits, signed, already in place.
    U,
    /// A jump offset: 21 bits, signed, even.
    J,
    /// A shift amount of 6 bits.
    Shift6,
    /// A shift amount of 5 bits.
    Shift5,
    /// 12 bits, unsigned: a CSR number, or fm, pred and succ of a fence.
    Unsigned,
}

/// What [`Inst::rm`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Zero.
    None,
    /// The rounding mode field, reserved values included.
    Rounding,
    /// Bit 1 aq, bit 0 rl.
    Ordering,
}

/// The operands of a format, field by field: what a register allocator or a visitor wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The destination.
    pub rd: Reg,
    /// The first source.
    pub rs1: Reg,
    /// The second source.
    pub rs2: Reg,
    /// The third source.
    pub rs3: Reg,
    /// The immediate.
    pub imm: Imm,
    /// The rounding mode or memory ordering.
    pub mode: Mode,
}

impl Shape {
    const fn new(rd: Reg, rs1: Reg, rs2: Reg, imm: Imm) -> Self {
        Self { rd, rs1, rs2, rs3: Reg::None, imm, mode: Mode::None }
    }

    const fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    const fn rs3(self, rs3: Reg) -> Self {
        Self { rs3, ..self }
    }
}

impl Format {
    /// The operands.
    #[must_use]
    pub const fn shape(self) -> Shape {
        use Reg::{F, Immediate, None, X};
        match self {
            Self::Nullary | Self::FenceI => Shape::new(None, None, None, Imm::None),
            Self::R => Shape::new(X, X, X, Imm::None),
            Self::Unary => Shape::new(X, X, None, Imm::None),
            Self::I | Self::Load | Self::Jalr => Shape::new(X, X, None, Imm::I),
            Self::Shift6 => Shape::new(X, X, None, Imm::Shift6),
            Self::Shift5 => Shape::new(X, X, None, Imm::Shift5),
            Self::Store => Shape::new(None, X, X, Imm::S),
            Self::Branch => Shape::new(None, X, X, Imm::B),
            Self::U => Shape::new(X, None, None, Imm::U),
            Self::J => Shape::new(X, None, None, Imm::J),
            Self::Fence => Shape::new(None, None, None, Imm::Unsigned),
            Self::Vma => Shape::new(None, X, X, Imm::None),
            Self::Csr => Shape::new(X, X, None, Imm::Unsigned),
            Self::CsrImm => Shape::new(X, Immediate, None, Imm::Unsigned),
            Self::LoadReserved => Shape::new(X, X, None, Imm::None).mode(Mode::Ordering),
            Self::Atomic => Shape::new(X, X, X, Imm::None).mode(Mode::Ordering),
            Self::FloatLoad => Shape::new(F, X, None, Imm::I),
            Self::FloatStore => Shape::new(None, X, F, Imm::S),
            Self::FloatFma => Shape::new(F, F, F, Imm::None).rs3(F).mode(Mode::Rounding),
            Self::FloatArith => Shape::new(F, F, F, Imm::None).mode(Mode::Rounding),
            Self::FloatBinary => Shape::new(F, F, F, Imm::None),
            Self::FloatUnary => Shape::new(F, F, None, Imm::None).mode(Mode::Rounding),
            Self::FloatCompare => Shape::new(X, F, F, Imm::None),
            Self::FloatToInt => Shape::new(X, F, None, Imm::None).mode(Mode::Rounding),
            Self::IntToFloat => Shape::new(F, X, None, Imm::None).mode(Mode::Rounding),
            Self::FloatMoveToInt => Shape::new(X, F, None, Imm::None),
            Self::IntMoveToFloat => Shape::new(F, X, None, Imm::None),
        }
    }

    /// Whether the next instruction may be another one than the one behind it, or decoded, translated or allowed
    /// otherwise than now ([`super::Op::ends_block`]).
    #[must_use]
    pub const fn ends_block(self) -> bool {
        match self {
            Self::Nullary
            | Self::Jalr
            | Self::Branch
            | Self::J
            | Self::FenceI
            | Self::Vma
            | Self::Csr
            | Self::CsrImm => true,
            Self::R
            | Self::Unary
            | Self::I
            | Self::Shift6
            | Self::Shift5
            | Self::Load
            | Self::Store
            | Self::U
            | Self::Fence
            | Self::LoadReserved
            | Self::Atomic
            | Self::FloatLoad
            | Self::FloatStore
            | Self::FloatFma
            | Self::FloatArith
            | Self::FloatBinary
            | Self::FloatUnary
            | Self::FloatCompare
            | Self::FloatToInt
            | Self::IntToFloat
            | Self::FloatMoveToInt
            | Self::IntMoveToFloat => false,
        }
    }

    /// Bits that are neither fixed nor operands: reserved, and ignored as the specification tells base
    /// implementations to (Unprivileged ISA, "Memory Ordering Instructions" and "Zifencei").
    #[must_use]
    pub const fn ignored_bits(self) -> u32 {
        match self {
            Self::Fence => 0x000f_8f80,
            Self::FenceI => 0xffff_8f80,
            _ => 0,
        }
    }
}

impl Shape {
    /// Takes the operands out of `word` into `inst`.
    #[inline]
    pub(super) fn extract(self, word: u32, inst: &mut Inst) {
        let take = |reg, low: u32| if matches!(reg, Reg::None) { 0 } else { field(word, low, 5) };
        inst.rd = take(self.rd, 7);
        inst.rs1 = take(self.rs1, 15);
        inst.rs2 = take(self.rs2, 20);
        inst.rs3 = take(self.rs3, 27);
        inst.rm = match self.mode {
            Mode::None => 0,
            Mode::Rounding => field(word, 12, 3),
            Mode::Ordering => field(word, 25, 2),
        };
        inst.imm = self.imm.extract(word);
    }

    /// Puts the operands of `inst` into a word of zeros. Values that don't fit are cut: the caller compares.
    pub(super) fn insert(self, inst: &Inst) -> u32 {
        let put = |reg, value: u8, low: u32| match reg {
            Reg::None => 0,
            _ => (u32::from(value) & 31) << low,
        };
        let mode = match self.mode {
            Mode::None => 0,
            Mode::Rounding => (u32::from(inst.rm) & 7) << 12,
            Mode::Ordering => (u32::from(inst.rm) & 3) << 25,
        };
        put(self.rd, inst.rd, 7)
            | put(self.rs1, inst.rs1, 15)
            | put(self.rs2, inst.rs2, 20)
            | put(self.rs3, inst.rs3, 27)
            | mode
            | self.imm.insert(inst.imm)
    }
}

impl Imm {
    #[inline]
    fn extract(self, word: u32) -> i64 {
        // Every signed immediate has its sign in bit 31, so an arithmetic shift of the word extends it.
        let signed = word.cast_signed();
        let bits = |low: u32, width: u32, to: u32| ((word >> low & ((1 << width) - 1)) << to).cast_signed();
        i64::from(match self {
            Self::None => 0,
            Self::I => signed >> 20,
            Self::S => signed >> 25 << 5 | bits(7, 5, 0),
            Self::B => signed >> 31 << 12 | bits(7, 1, 11) | bits(25, 6, 5) | bits(8, 4, 1),
            Self::U => signed >> 12 << 12,
            Self::J => signed >> 31 << 20 | bits(12, 8, 12) | bits(20, 1, 11) | bits(21, 10, 1),
            Self::Shift6 => bits(20, 6, 0),
            Self::Shift5 => bits(20, 5, 0),
            Self::Unsigned => bits(20, 12, 0),
        })
    }

    #[expect(clippy::cast_possible_truncation, reason = "only the immediate's low 32 bits can be encoded")]
    const fn insert(self, imm: i64) -> u32 {
        let value = imm.cast_unsigned() as u32;
        const fn bits(value: u32, low: u32, width: u32, to: u32) -> u32 {
            (value >> low & ((1 << width) - 1)) << to
        }
        match self {
            Self::None => 0,
            Self::I | Self::Unsigned => bits(value, 0, 12, 20),
            Self::S => bits(value, 0, 5, 7) | bits(value, 5, 7, 25),
            Self::B => {
                bits(value, 11, 1, 7) | bits(value, 1, 4, 8) | bits(value, 5, 6, 25) | bits(value, 12, 1, 31)
            }
            Self::U => value & 0xffff_f000,
            Self::J => {
                bits(value, 12, 8, 12)
                    | bits(value, 11, 1, 20)
                    | bits(value, 1, 10, 21)
                    | bits(value, 20, 1, 31)
            }
            Self::Shift6 => bits(value, 0, 6, 20),
            Self::Shift5 => bits(value, 0, 5, 20),
        }
    }
}

/// A field of at most eight bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the mask leaves at most eight bits")]
fn field(word: u32, low: u32, width: u32) -> u8 {
    (word >> low & ((1 << width) - 1)) as u8
}
