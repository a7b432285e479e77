//! A case's instructions while they are made: pieces whose jumps go to pieces, then laid out as bytes.

use crate::layout::CODE_BYTES;
use quasar_cpu::isa::{Inst, Op, encode};

/// The environment call that ends every case.
pub const END: u32 = 0x0000_0073;

/// What a jump may leap over as a whole; `skip` is how many pieces one leaps over itself.
#[derive(Clone, Debug)]
pub enum Piece {
    /// 32-bit encodings.
    Words(Vec<u32>),
    /// A 16-bit encoding.
    Half(u16),
    /// `jal rd` or a branch.
    Jump {
        /// Which.
        op: Op,
        /// Of `jal`.
        rd: u8,
        /// Of a branch.
        rs1: u8,
        /// Of a branch.
        rs2: u8,
        /// Pieces.
        skip: usize,
    },
    /// `c.j`, or `c.beqz` or `c.bnez` of a register from x8 to x15.
    ShortJump {
        /// The encoding without operands.
        base: u16,
        /// Of a branch.
        register: Option<u8>,
        /// Pieces.
        skip: usize,
    },
    /// The address of a later piece by `auipc rd` and `addi rd`, and what is done with it.
    Through {
        /// Gets the address.
        rd: u8,
        /// Pieces.
        skip: usize,
        /// 32-bit encodings that follow.
        then: Vec<u32>,
    },
}

impl Piece {
    /// One 32-bit encoding.
    #[must_use]
    pub fn word(word: u32) -> Self {
        Self::Words(vec![word])
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Half(_) | Self::ShortJump { .. } => 2,
            Self::Jump { .. } => 4,
            Self::Words(words) => 4 * words.len(),
            Self::Through { then, .. } => 8 + 4 * then.len(),
        }
    }

    /// Adds the encodings, when the target lies `offset` bytes ahead.
    fn emit(&self, offset: usize, code: &mut Vec<u8>) {
        let ahead = i64::try_from(offset).expect("a case is short");
        let inst = |op, rd, rs1, rs2, imm| {
            let inst = Inst { op, rd, rs1, rs2, rs3: 0, rm: 0, len: 4, imm };
            encode(&inst).unwrap_or_else(|| panic!("no encoding: {inst:?}"))
        };
        let words = match self {
            Self::Words(words) => words.clone(),
            Self::Jump { op, rd, rs1, rs2, .. } => vec![inst(*op, *rd, *rs1, *rs2, ahead)],
            Self::Through { rd, then, .. } => {
                let mut words = vec![inst(Op::Auipc, *rd, 0, 0, 0), inst(Op::Addi, *rd, *rd, 0, ahead)];
                words.extend(then);
                words
            }
            Self::Half(half) => return code.extend(half.to_le_bytes()),
            Self::ShortJump { base, register: None, .. } => {
                // Unprivileged ISA, "C", format CJ: offset[11|4|9:8|10|6|7|3:1|5] from bit 12 down.
                let runs = [
                    (11, 1, 12),
                    (4, 1, 11),
                    (8, 2, 9),
                    (10, 1, 8),
                    (6, 1, 7),
                    (7, 1, 6),
                    (1, 3, 3),
                    (5, 1, 2),
                ];
                return code.extend((base | scatter(offset, &runs)).to_le_bytes());
            }
            Self::ShortJump { base, register: Some(register), .. } => {
                // Format CB: offset[8|4:3] from bit 12 down, offset[7:6|2:1|5] from bit 6 down.
                let runs = [(8, 1, 12), (3, 2, 10), (6, 2, 5), (1, 2, 3), (5, 1, 2)];
                let register = (u16::from(*register) & 7) << 7;
                return code.extend((base | register | scatter(offset, &runs)).to_le_bytes());
            }
        };
        code.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    const fn skip(&self) -> Option<usize> {
        match self {
            Self::Words(_) | Self::Half(_) => None,
            Self::Jump { skip, .. } | Self::ShortJump { skip, .. } | Self::Through { skip, .. } => {
                Some(*skip)
            }
        }
    }
}

/// Runs of an offset's bits: lowest bit, how many, lowest bit in the encoding.
fn scatter(offset: usize, runs: &[(u32, u32, u32)]) -> u16 {
    let offset = u16::try_from(offset).expect("a case is short");
    runs.iter().fold(0, |bits, &(from, width, to)| bits | (offset >> from & ((1 << width) - 1)) << to)
}

/// Lays pieces out, and the end behind them.
#[must_use]
pub fn lay_out(pieces: &[Piece]) -> Vec<u8> {
    let mut starts = vec![0];
    for piece in pieces {
        starts.push(starts[starts.len() - 1] + piece.bytes());
    }
    let mut code = vec![];
    for (at, piece) in pieces.iter().enumerate() {
        let target = piece.skip().map_or(0, |skip| starts[(at + 1 + skip).min(pieces.len())] - starts[at]);
        piece.emit(target, &mut code);
    }
    code.extend(END.to_le_bytes());
    assert!(code.len() <= CODE_BYTES, "a case is too long: {pieces:?}");
    code
}
