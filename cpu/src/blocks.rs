//! Decoded blocks: found by virtual address in a jump cache, by guest-physical address behind it. They are no
//! engine's own: each gets them handed in, so that several can work on the same.
//!
//! Nobody tells this cache about stores. A block belongs to the icache generation in which it was read or
//! last compared with memory; after `fence.i` (a new generation) it is compared before it is used again.

use crate::context::ExecContext;
use crate::isa::{self, Format, Inst, Op};
use crate::mem::{Fault, HartRam};

/// Instructions in a block at most.
const BLOCK_LIMIT: usize = 64;
/// Decoded instructions kept; when there is no room for more, everything is dropped.
const ARENA_LIMIT: usize = 1 << 20;
const JUMP_SLOTS: usize = 1 << 15;
const BLOCK_SLOTS: usize = 1 << 16;

/// Where a block's instructions lie in the arena.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    start: u32,
    len: u32,
}

#[derive(Clone, Copy)]
struct Jump {
    pc: u64,
    key: u64,
    span: Span,
}

#[derive(Clone, Copy)]
struct Block {
    gpa: u64,
    /// The icache generation in which it was last known to be what memory holds.
    generation: u64,
    span: Span,
    raw: Span,
}

const NO_SPAN: Span = Span { start: 0, len: 0 };
/// Keys are never zero, addresses of instructions never odd.
const NO_JUMP: Jump = Jump { pc: 1, key: 0, span: NO_SPAN };
const NO_BLOCK: Block = Block { gpa: 1, generation: 0, span: NO_SPAN, raw: NO_SPAN };

/// The cache of one hart.
pub struct BlockCache {
    jumps: Box<[Jump; JUMP_SLOTS]>,
    blocks: Box<[Block]>,
    instructions: Vec<Inst>,
    /// The blocks' 16-bit units as they were in memory.
    raw: Vec<u16>,
    generation: u64,
}

#[expect(clippy::cast_possible_truncation, reason = "masked to the number of slots")]
#[inline(always)]
const fn jump_slot(pc: u64) -> usize {
    ((pc >> 1) ^ (pc >> 14)) as usize & (JUMP_SLOTS - 1)
}

const fn block_slot(gpa: u64) -> usize {
    ((gpa >> 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize & (BLOCK_SLOTS - 1)
}

/// A pure operation into x0 becomes the canonical nop, so that no engine has to look at rd.
fn normalised(inst: Inst) -> Inst {
    let pure = inst.op.def().is_some_and(|def| {
        matches!(
            def.format,
            Format::R | Format::Unary | Format::I | Format::Shift6 | Format::Shift5 | Format::U
        )
    });
    if pure && inst.rd == 0 { Inst { op: Op::Addi, rs1: 0, imm: 0, ..inst } } else { inst }
}

impl Default for BlockCache {
    fn default() -> Self {
        Self {
            jumps: Box::new([NO_JUMP; JUMP_SLOTS]),
            blocks: vec![NO_BLOCK; BLOCK_SLOTS].into(),
            instructions: Vec::new(),
            raw: Vec::new(),
            generation: 0,
        }
    }
}

impl BlockCache {
    /// A block's instructions. A span is good until the next [`BlockCache::find`].
    #[inline(always)]
    #[must_use]
    pub fn instructions(&self, span: Span) -> &[Inst] {
        &self.instructions[span.start as usize..][..span.len as usize]
    }

    /// The block at the hart's pc.
    ///
    /// # Errors
    /// [`Fault`] when the instruction cannot be fetched.
    #[inline(always)]
    pub fn find(&mut self, context: &mut ExecContext) -> Result<Span, Fault> {
        let (pc, key) = (context.hart.pc, context.memory.fetch_key());
        let jump = &self.jumps[jump_slot(pc)];
        if jump.pc == pc && jump.key == key { Ok(jump.span) } else { self.find_slow(context, pc) }
    }

    #[cold]
    #[inline(never)]
    fn find_slow(&mut self, context: &mut ExecContext, pc: u64) -> Result<Span, Fault> {
        let gpa = context.memory.fetch_gpa(pc)?;
        // fence.i changes the fetch key too, so that every block comes by here before it runs again.
        self.generation = context.memory.instruction_generation();
        if !context.memory.may_execute_page(pc) {
            return self.single(context, pc, gpa);
        }
        let block = self.blocks[block_slot(gpa)];
        let span = if block.gpa == gpa && self.still_holds(context.memory.ram(), block) {
            self.blocks[block_slot(gpa)].generation = self.generation;
            block.span
        } else {
            self.decode(context, pc, gpa)?
        };
        self.jumps[jump_slot(pc)] = Jump { pc, key: context.memory.fetch_key(), span };
        Ok(span)
    }

    fn still_holds(&self, ram: &HartRam, block: Block) -> bool {
        let units = &self.raw[block.raw.start as usize..][..block.raw.len as usize];
        block.generation == self.generation
            || (block.gpa..).step_by(2).zip(units).all(|(gpa, unit)| ram.load16(gpa) == Ok(*unit))
    }

    fn decode(&mut self, context: &mut ExecContext, pc: u64, gpa: u64) -> Result<Span, Fault> {
        if self.instructions.len() + BLOCK_LIMIT > ARENA_LIMIT {
            self.wipe();
        }
        let (start, raw_start) = (self.instructions.len(), self.raw.len());
        let page_end = (gpa | 0xfff) + 1;
        let mut at = gpa;
        while at < page_end && self.instructions.len() - start < BLOCK_LIMIT {
            let low = unit(context, at);
            let inst = if low & 3 != 3 {
                self.raw.push(low);
                isa::decode(low.into())
            } else if at + 2 < page_end {
                let high = unit(context, at + 2);
                self.raw.extend([low, high]);
                isa::decode(u32::from(low) | u32::from(high) << 16)
            } else if at == gpa {
                return self.single(context, pc, gpa);
            } else {
                break;
            };
            at += u64::from(inst.len);
            self.instructions.push(normalised(inst));
            if inst.op.ends_block() {
                break;
            }
        }
        context.counters().blocks_decoded.bump(1);
        let span = span_from(start, self.instructions.len());
        let raw = span_from(raw_start, self.raw.len());
        self.blocks[block_slot(gpa)] = Block { gpa, generation: self.generation, span, raw };
        Ok(span)
    }

    /// A block of one instruction that is not found by its guest-physical address again: it lies across two
    /// pages and depends on both translations (the jump cache's key changes with either), or in a page of
    /// which PMP allows a part, so that each of its halves is asked for.
    fn single(&mut self, context: &mut ExecContext, pc: u64, gpa: u64) -> Result<Span, Fault> {
        if self.instructions.len() + BLOCK_LIMIT > ARENA_LIMIT {
            self.wipe();
        }
        let low = unit(context, gpa);
        let high = if low & 3 == 3 {
            let second = context.memory.fetch_gpa(pc.wrapping_add(2))?;
            unit(context, second)
        } else {
            0
        };
        let start = self.instructions.len();
        self.instructions.push(normalised(isa::decode(u32::from(low) | u32::from(high) << 16)));
        context.counters().blocks_decoded.bump(1);
        Ok(span_from(start, self.instructions.len()))
    }

    fn wipe(&mut self) {
        self.jumps.fill(NO_JUMP);
        self.blocks.fill(NO_BLOCK);
        self.instructions.clear();
        self.raw.clear();
    }
}

fn unit(context: &ExecContext, gpa: u64) -> u16 {
    // The page was translated to RAM; a halfword inside it is RAM too.
    context.memory.ram().load16(gpa).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, reason = "the arena's limit is far below")]
const fn span_from(start: usize, end: usize) -> Span {
    Span { start: start as u32, len: (end - start) as u32 }
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockCache").field("instructions", &self.instructions.len()).finish_non_exhaustive()
    }
}
