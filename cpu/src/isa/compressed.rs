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

const LIST: &[Compressed] = &[
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

/// The part of [`LIST`] that a major opcode owns starts at `START[quadrant * 8 + bits 15:13]`, and ends where
/// the next one starts.
#[expect(clippy::cast_possible_truncation, reason = "the list is shorter than 256")]
static START: [u8; 25] = {
    let (mut start, mut major, mut at) = ([0; 25], 0, 0);
    while major < 24 {
        while at < LIST.len() && major_opcode(LIST[at].bits) == major {
            at += 1;
        }
        major += 1;
        start[major] = at as u8;
    }
    assert!(at == LIST.len(), "the list isn't sorted by major opcode");
    start
};

const fn major_opcode(half: u32) -> usize {
    ((half & 3) << 3 | half >> 13) as usize
}

/// Decodes `half`, whose quadrant isn't 3.
#[inline]
pub(super) fn decode(half: u32) -> Inst {
    let major = major_opcode(half);
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
        Pack::Addi4spn => inst(rs2_short, 2, 0, nonzero(gather(half, ADDI4SPN))?),
        Pack::LoadW => inst(rs2_short, rd_short, 0, gather(half, OFFSET_W)),
        Pack::LoadD => inst(rs2_short, rd_short, 0, gather(half, OFFSET_D)),
        Pack::StoreW => inst(0, rd_short, rs2_short, gather(half, OFFSET_W)),
        Pack::StoreD => inst(0, rd_short, rs2_short, gather(half, OFFSET_D)),
        Pack::Addi => inst(rd, rd, 0, signed(gather(half, IMMEDIATE), 6)),
        Pack::Addiw if rd == 0 => return None,
        Pack::Addiw => inst(rd, rd, 0, signed(gather(half, IMMEDIATE), 6)),
        Pack::Li => inst(rd, 0, 0, signed(gather(half, IMMEDIATE), 6)),
        Pack::Lui if rd == 2 => {
            let imm = nonzero(signed(gather(half, ADDI16SP), 10))?;
            Inst { op: Op::Addi, ..inst(2, 2, 0, imm) }
        }
        Pack::Lui => inst(rd, 0, 0, nonzero(signed(gather(half, IMMEDIATE), 6))? << 12),
        Pack::Shift => inst(rd_short, rd_short, 0, gather(half, IMMEDIATE)),
        Pack::Andi => inst(rd_short, rd_short, 0, signed(gather(half, IMMEDIATE), 6)),
        Pack::Register => inst(rd_short, rd_short, rs2_short, 0),
        Pack::Jump => inst(0, 0, 0, signed(gather(half, JUMP), 12)),
        Pack::Branch => inst(0, rd_short, 0, signed(gather(half, BRANCH), 9)),
        Pack::Slli => inst(rd, rd, 0, gather(half, IMMEDIATE)),
        Pack::LoadSpW | Pack::LoadSpD if rd == 0 => return None,
        Pack::LoadSpW => inst(rd, 2, 0, gather(half, LOAD_SP_W)),
        Pack::LoadSpD | Pack::LoadSpFloat => inst(rd, 2, 0, gather(half, LOAD_SP_D)),
        Pack::StoreSpW => inst(0, 2, rs2, gather(half, STORE_SP_W)),
        Pack::StoreSpD => inst(0, 2, rs2, gather(half, STORE_SP_D)),
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

/// A run of bits of an immediate: lowest bit in the encoding, how many, lowest bit in the immediate.
type Run = (u32, u32, u32);

const ADDI4SPN: &[Run] = &[(6, 1, 2), (5, 1, 3), (11, 2, 4), (7, 4, 6)];
const ADDI16SP: &[Run] = &[(6, 1, 4), (2, 1, 5), (5, 1, 6), (3, 2, 7), (12, 1, 9)];
const IMMEDIATE: &[Run] = &[(2, 5, 0), (12, 1, 5)];
const OFFSET_W: &[Run] = &[(6, 1, 2), (10, 3, 3), (5, 1, 6)];
const OFFSET_D: &[Run] = &[(10, 3, 3), (5, 2, 6)];
const LOAD_SP_W: &[Run] = &[(4, 3, 2), (12, 1, 5), (2, 2, 6)];
const LOAD_SP_D: &[Run] = &[(5, 2, 3), (12, 1, 5), (2, 3, 6)];
const STORE_SP_W: &[Run] = &[(9, 4, 2), (7, 2, 6)];
const STORE_SP_D: &[Run] = &[(10, 3, 3), (7, 3, 6)];
const JUMP: &[Run] =
    &[(3, 3, 1), (11, 1, 4), (2, 1, 5), (7, 1, 6), (6, 1, 7), (9, 2, 8), (8, 1, 10), (12, 1, 11)];
const BRANCH: &[Run] = &[(3, 2, 1), (10, 2, 3), (2, 1, 5), (5, 2, 6), (12, 1, 8)];

/// Collects an immediate; inlined, so that the constant runs become a few shifts.
#[inline(always)]
fn gather(half: u32, runs: &[Run]) -> i64 {
    i64::from(runs.iter().fold(0, |imm, &(from, width, to)| imm | (half >> from & ((1 << width) - 1)) << to))
}

/// Sign-extends from `width` bits.
const fn signed(imm: i64, width: u32) -> i64 {
    imm << (64 - width) >> (64 - width)
}

/// Zero is reserved in some places.
fn nonzero(imm: i64) -> Option<i64> {
    (imm != 0).then_some(imm)
}
