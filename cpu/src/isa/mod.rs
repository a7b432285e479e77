//! The instruction set: RV64GC with Zicsr, Zifencei, Zba, Zbb, Zbs, Zicond, Svinval and the privileged
//! instructions. One list (`list.rs`) generates operations, decoder, encoder and disassembler.

mod compressed;
pub mod csr;
mod decode;
mod disassemble;
mod encoding;
mod format;
mod list;
mod op;

pub use decode::{decode, encode};
pub use disassemble::disassemble;
pub use encoding::Pattern;
pub use format::{Format, Imm, Mode, Reg, Shape};
pub(crate) use list::for_each_instruction;
pub use op::{Def, Extension, LIST, Op};

/// A decoded instruction. Fields that the operation doesn't use are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inst {
    /// What to do.
    pub op: Op,
    /// Destination register, integer or floating-point.
    pub rd: u8,
    /// First source register; the immediate of `csrrwi`, `csrrsi`, `csrrci`.
    pub rs1: u8,
    /// Second source register.
    pub rs2: u8,
    /// Third source register, of the fused multiply-adds only.
    pub rs3: u8,
    /// Rounding mode of floating-point operations that have one (0 to 7 as encoded: 7 dynamic, 5 and 6 reserved,
    /// for the engine to refuse); of atomics bit 1 is aq, bit 0 rl.
    pub rm: u8,
    /// Length in bytes: 2 or 4.
    pub len: u8,
    /// The immediate, complete and sign-extended: branch and jump offsets in bytes, upper immediates in place,
    /// shift amounts, the CSR number, fm/pred/succ of a fence (4 bits each), the encoding of `Illegal`.
    pub imm: i64,
}

const _: () = assert!(size_of::<Inst>() == 16 && align_of::<Inst>() == 8);

impl Inst {
    /// All fields zero; a start for builders.
    const NONE: Self = Self { op: Op::Illegal, rd: 0, rs1: 0, rs2: 0, rs3: 0, rm: 0, len: 0, imm: 0 };

    /// `imm` of the fence that is the `pause` hint (Zihintpause).
    pub const PAUSE: i64 = 0x010;
    /// `imm` of `fence.tso`.
    pub const FENCE_TSO: i64 = 0x833;

    /// As [`Op::ends_block`], except that CSR accesses that can't write (`csrrs`, `csrrc` and their immediate
    /// forms with an rs1 field of zero) don't end a block.
    #[must_use]
    pub const fn ends_block(&self) -> bool {
        self.op.ends_block() && (!self.op.is_csr() || self.writes_csr())
    }

    /// Whether this is a CSR access that writes, whatever the value (Unprivileged ISA, Zicsr, table "Conditions
    /// determining whether a CSR instruction reads or writes").
    #[must_use]
    pub const fn writes_csr(&self) -> bool {
        match self.op {
            Op::Csrrw | Op::Csrrwi => true,
            Op::Csrrs | Op::Csrrc | Op::Csrrsi | Op::Csrrci => self.rs1 != 0,
            _ => false,
        }
    }
}
