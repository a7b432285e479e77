//! From bits to [`Inst`] and back, by the instruction list.

use super::op::LIST;
use super::{Inst, Op, compressed};

/// One bucket for each value of opcode bits 6:2 and funct3.
const BUCKETS: usize = 256;
/// The bits that choose the bucket, and the two that say "32-bit encoding".
const BUCKET_MASK: u32 = 0x707f;

/// For each bucket the list entries that may match, in list order, as indices into [`LIST`].
struct Index {
    start: [u16; BUCKETS + 1],
    entries: [u16; ENTRIES],
}

/// An entry that doesn't fix funct3 is in eight buckets.
const ENTRIES: usize = {
    let (mut total, mut at) = (0, 0);
    while at < LIST.len() {
        total += if LIST[at].pattern.mask & 0x7000 == 0 { 8 } else { 1 };
        at += 1;
    }
    total
};

static INDEX: Index = Index::build();

impl Index {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "there are far fewer than 65536 entries and 256 buckets"
    )]
    const fn build() -> Self {
        let mut index = Self { start: [0; BUCKETS + 1], entries: [0; ENTRIES] };
        let (mut bucket, mut filled) = (0, 0);
        while bucket < BUCKETS {
            let word = (bucket as u32 & 0x1f) << 2 | 3 | (bucket as u32 >> 5) << 12;
            let mut at = 0;
            while at < LIST.len() {
                let pattern = LIST[at].pattern;
                if (word ^ pattern.bits) & pattern.mask & BUCKET_MASK == 0 {
                    index.entries[filled] = at as u16;
                    filled += 1;
                }
                at += 1;
            }
            bucket += 1;
            index.start[bucket] = filled as u16;
        }
        assert!(filled == ENTRIES, "an entry fixes a part of funct3 only");
        index
    }

    #[inline]
    fn candidates(&self, word: u32) -> &[u16] {
        let bucket = (word >> 2 & 0x1f | word >> 7 & 0xe0) as usize;
        &self.entries[usize::from(self.start[bucket])..usize::from(self.start[bucket + 1])]
    }
}

/// Decodes one instruction. When the low two bits of `word` aren't both set the low half is a compressed
/// instruction (`len` 2), expanded to its base operation; the upper half is ignored then.
///
/// What isn't implemented, or is reserved, gives [`Op::Illegal`] with the encoding in `imm` (for `mtval`).
#[inline]
#[must_use]
pub fn decode(word: u32) -> Inst {
    if word & 3 == 3 { decode_full(word) } else { compressed::decode(word & 0xffff) }
}

fn decode_full(word: u32) -> Inst {
    for &at in INDEX.candidates(word) {
        let def = &LIST[usize::from(at)];
        if def.pattern.matches(word) {
            let mut inst = Inst { op: def.op, len: 4, ..Inst::NONE };
            def.format.shape().extract(word, &mut inst);
            return inst;
        }
    }
    Inst { op: Op::Illegal, len: 4, imm: i64::from(word), ..Inst::NONE }
}

/// The 32-bit encoding of `inst`, whatever its `len`. `None` for [`Op::Illegal`], and for operands that the
/// encoding can't hold (a register above 31, an immediate out of range or odd, a field the operation lacks).
#[must_use]
pub fn encode(inst: &Inst) -> Option<u32> {
    let def = inst.op.def()?;
    let word = def.pattern.bits | def.format.shape().insert(inst);
    (decode_full(word) == Inst { len: 4, ..*inst }).then_some(word)
}
