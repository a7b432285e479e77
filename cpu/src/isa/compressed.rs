//! The C extension: 16-bit encodings, each expanded to the operation it abbreviates (Unprivileged ISA, chapter
//! "C", tables "RVC quadrant 0" to "2", RV64 column).
//!
//! Reserved encodings are illegal; HINTs (`rd` = x0, a shift by zero, …) expand to the operation that does
//! nothing. Zcb, Zcmop and their kin aren't implemented.

use super::{Inst, Op};

/// How the operands of a compressed instruction are packed, and what is fixed in the expansion.
#[derive(Clone, Copy)]
enum Pack {
    /// `rd'`, x2, scaled unsigned immediate, not zero.
    Addi4spn,
    /// `rd'`, offset(`rs1'`), word or doubleword.
    LoadW,
    LoadD,
    /// `rs2'`, offset(`rs1'`).
    StoreW,
    StoreD,
    /// `rd`, `rd`, immediate.
    Addi,
    /// As `Addi`, `rd` not x0.
    Addiw,
    /// `rd`, x0, immediate.
    Li,
    /// Upper immediate, not zero; with `rd` = x2 it is `c.addi16sp`.
    Lui,
    /// `rd'`, `rd'`, shift amount.
    Shift,
    /// `rd'`, `rd'`, immediate.
    Andi,
    /// `rd'`, `rd'`, `rs2'`.
    Register,
    /// x0, offset.
    Jump,
    /// `rs1'`, x0, offset.
    Branch,
    /// `rd`, `rd`, shift amount.
    Slli,
    /// `rd`, offset(x2); an integer `rd` isn't x0.
    LoadSpW,
    LoadSpD,
    LoadSpFloat,
    /// `rs2`, offset(x2).
    StoreSpW,
    StoreSpD,
    /// `c.jr` without `rs2`, else `c.mv`.
    JrMv,
    /// `c.ebreak`, `c.jalr` or `c.add`, by which registers are x0.
    JalrAdd,
}

/// One compressed instruction: its fixed bits, what it expands to, and where the operands are.
struct Compressed {
    mask: u32,
    bits: u32,
    op: Op,
    pack: Pack,
}

const fn c(mask: u32, bits: u32, op: Op, pack: Pack) -> Compressed {
    Compressed { mask, bits, op, pack }
}

/// Quadrant and bits 15:13, the major opcode.
const MAJOR: u32 = 0xe003;

/// Which part of [`LIST`] a major opcode owns, indexed by quadrant × 8 + bits 15:13.
const START: [u8; 25] =
    [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11, 20, 21, 22, 23, 24, 25, 26, 27, 29, 30, 31, 32];

static LIST: [Compressed; 32] = [
    c(MAJOR, 0x0000, Op::Addi, Pack::Addi4spn),
    c(MAJOR, 0x2000, Op::Fld, Pack::LoadD),
    c(MAJOR, 0x4000, Op::Lw, Pack::LoadW),
    c(MAJOR, 0x6000, Op::Ld, Pack::LoadD),
    c(MAJOR, 0xa000, Op::Fsd, Pack::StoreD),
    c(MAJOR, 0xc000, Op::Sw, Pack::StoreW),
    c(MAJOR, 0xe000, Op::Sd, Pack::StoreD),
    c(MAJOR, 0x0001, Op::Addi, Pack::Addi),
    c(MAJOR, 0x2001, Op::Addiw, Pack::Addiw),
    c(MAJOR, 0x4001, Op::Addi, Pack::Li),
    c(MAJOR, 0x6001, Op::Lui, Pack::Lui),
    c(0xec03, 0x8001, Op::Srli, Pack::Shift),
    c(0xec03, 0x8401, Op::Srai, Pack::Shift),
    c(0xec03, 0x8801, Op::Andi, Pack::Andi),
    c(0xfc63, 0x8c01, Op::Sub, Pack::Register),
    c(0xfc63, 0x8c21, Op::Xor, Pack::Register),
    c(0xfc63, 0x8c41, Op::Or, Pack::Register),
    c(0xfc63, 0x8c61, Op::And, Pack::Register),
    c(0xfc63, 0x9c01, Op::Subw, Pack::Register),
    c(0xfc63, 0x9c21, Op::Addw, Pack::Register),
    c(MAJOR, 0xa001, Op::Jal, Pack::Jump),
    c(MAJOR, 0xc001, Op::Beq, Pack::Branch),
    c(MAJOR, 0xe001, Op::Bne, Pack::Branch),
    c(MAJOR, 0x0002, Op::Slli, Pack::Slli),
    c(MAJOR, 0x2002, Op::Fld, Pack::LoadSpFloat),
    c(MAJOR, 0x4002, Op::Lw, Pack::LoadSpW),
    c(MAJOR, 0x6002, Op::Ld, Pack::LoadSpD),
    c(0xf003, 0x8002, Op::Add, Pack::JrMv),
    c(0xf003, 0x9002, Op::Add, Pack::JalrAdd),
    c(MAJOR, 0xa002, Op::Fsd, Pack::StoreSpD),
    c(MAJOR, 0xc002, Op::Sw, Pack::StoreSpW),
    c(MAJOR, 0xe002, Op::Sd, Pack::StoreSpD),
];

/// Decodes `half`, whose quadrant isn't 3.
#[inline]
pub(super) fn decode(half: u32) -> Inst {
    let major = ((half & 3) << 3 | half >> 13) as usize;
    LIST[usize::from(START[major])..usize::from(START[major + 1])]
        .iter()
        .find(|entry| half & entry.mask == entry.bits)
        .and_then(|entry| expand(entry, half))
        .unwrap_or(Inst { op: Op::Illegal, len: 2, imm: i64::from(half), ..Inst::NONE })
}

/// The expansion, or `None` if the operands' values are reserved.
#[inline]
fn expand(entry: &Compressed, half: u32) -> Option<Inst> {
    let (rd, rs2) = (register(half, 7), register(half, 2));
    let (rd_short, rs2_short) = (8 + (rd & 7), 8 + (rs2 & 7));
    let inst = |rd, rs1, rs2, imm| Inst { op: entry.op, len: 2, rd, rs1, rs2, imm, ..Inst::NONE };
    Some(match entry.pack {
        Pack::Addi4spn => inst(
            rs2_short,
            2,
            0,
            nonzero(spread(half, &[(5, 3), (6, 2), (7, 6), (8, 7), (9, 8), (10, 9), (11, 4), (12, 5)]))?,
        ),
        Pack::LoadW => inst(rs2_short, rd_short, 0, offset_w(half)),
        Pack::LoadD => inst(rs2_short, rd_short, 0, offset_d(half)),
        Pack::StoreW => inst(0, rd_short, rs2_short, offset_w(half)),
        Pack::StoreD => inst(0, rd_short, rs2_short, offset_d(half)),
        Pack::Addi => inst(rd, rd, 0, immediate(half)),
        Pack::Addiw if rd == 0 => return None,
        Pack::Addiw => inst(rd, rd, 0, immediate(half)),
        Pack::Li => inst(rd, 0, 0, immediate(half)),
        Pack::Lui if rd == 2 => {
            let imm = signed(spread(half, &[(2, 5), (3, 7), (4, 8), (5, 6), (6, 4), (12, 9)]), 10);
            Inst { op: Op::Addi, ..inst(2, 2, 0, nonzero(imm)?) }
        }
        Pack::Lui => inst(rd, 0, 0, nonzero(immediate(half))? << 12),
        Pack::Shift => inst(rd_short, rd_short, 0, shift(half)),
        Pack::Andi => inst(rd_short, rd_short, 0, immediate(half)),
        Pack::Register => inst(rd_short, rd_short, rs2_short, 0),
        Pack::Jump => inst(
            0,
            0,
            0,
            signed(
                spread(
                    half,
                    &[
                        (2, 5),
                        (3, 1),
                        (4, 2),
                        (5, 3),
                        (6, 7),
                        (7, 6),
                        (8, 10),
                        (9, 8),
                        (10, 9),
                        (11, 4),
                        (12, 11),
                    ],
                ),
                12,
            ),
        ),
        Pack::Branch => inst(
            0,
            rd_short,
            0,
            signed(spread(half, &[(2, 5), (3, 1), (4, 2), (5, 6), (6, 7), (10, 3), (11, 4), (12, 8)]), 9),
        ),
        Pack::Slli => inst(rd, rd, 0, shift(half)),
        Pack::LoadSpW | Pack::LoadSpD if rd == 0 => return None,
        Pack::LoadSpW => inst(rd, 2, 0, spread(half, &[(2, 6), (3, 7), (4, 2), (5, 3), (6, 4), (12, 5)])),
        Pack::LoadSpD | Pack::LoadSpFloat => {
            inst(rd, 2, 0, spread(half, &[(2, 6), (3, 7), (4, 8), (5, 3), (6, 4), (12, 5)]))
        }
        Pack::StoreSpW => inst(0, 2, rs2, spread(half, &[(7, 6), (8, 7), (9, 2), (10, 3), (11, 4), (12, 5)])),
        Pack::StoreSpD => inst(0, 2, rs2, spread(half, &[(7, 6), (8, 7), (9, 8), (10, 3), (11, 4), (12, 5)])),
        Pack::JrMv if rs2 != 0 => inst(rd, 0, rs2, 0),
        Pack::JrMv if rd == 0 => return None,
        Pack::JrMv => Inst { op: Op::Jalr, ..inst(0, rd, 0, 0) },
        Pack::JalrAdd if rs2 != 0 => inst(rd, rd, rs2, 0),
        Pack::JalrAdd if rd == 0 => Inst { op: Op::Ebreak, ..inst(0, 0, 0, 0) },
        Pack::JalrAdd => Inst { op: Op::Jalr, ..inst(1, rd, 0, 0) },
    })
}

const fn register(half: u32, low: u32) -> u8 {
    (half >> low & 31) as u8
}

/// Moves single bits of `half` to their places in an immediate; pairs of (from, to).
#[inline(always)]
fn spread(half: u32, places: &[(u32, u32)]) -> i64 {
    i64::from(places.iter().fold(0, |imm, &(from, to)| imm | (half >> from & 1) << to))
}

/// Sign-extends from `width` bits.
const fn signed(imm: i64, width: u32) -> i64 {
    imm << (64 - width) >> (64 - width)
}

fn nonzero(imm: i64) -> Option<i64> {
    (imm != 0).then_some(imm)
}

fn shift(half: u32) -> i64 {
    i64::from(half >> 2 & 31 | half >> 7 & 32)
}

fn immediate(half: u32) -> i64 {
    signed(shift(half), 6)
}

fn offset_w(half: u32) -> i64 {
    i64::from(half >> 7 & 0x38 | half >> 4 & 4 | half << 1 & 0x40)
}

fn offset_d(half: u32) -> i64 {
    i64::from(half >> 7 & 0x38 | half << 1 & 0xc0)
}
