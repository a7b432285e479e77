//! One block's execution: the integer instructions here, the rest by group.

use super::context::ExecContext;
use super::{amo, bits, float, int};
use crate::isa::{Inst, Op};
use crate::mem::{Fault, Width};
use std::sync::atomic::{Ordering, fence};

/// How a block ended.
#[derive(Debug)]
pub(super) enum Flow {
    /// Done; the hart's pc and retired instructions are right.
    Next,
    /// The instruction at this address is [`super::system`]'s. pc and retired are the block's start's.
    System(u64, Inst),
    /// The instruction at this address did not complete. pc and retired are the block's start's.
    Fault(u64),
}

#[inline(always)]
const fn at(register: u8) -> usize {
    (register & 31) as usize
}

#[inline(always)]
fn load<W: Width>(context: &mut ExecContext, inst: &Inst, extend: impl Fn(u64) -> u64) -> Result<(), Fault> {
    let va = context.hart.x[at(inst.rs1)].wrapping_add(inst.imm as u64);
    let value = context.memory.load::<W>(va)?;
    context.hart.x[at(inst.rd)] = extend(value);
    context.hart.x[0] = 0;
    Ok(())
}

#[inline(always)]
fn store<W: Width>(context: &mut ExecContext, inst: &Inst) -> Result<(), Fault> {
    let va = context.hart.x[at(inst.rs1)].wrapping_add(inst.imm as u64);
    context.memory.store::<W>(va, context.hart.x[at(inst.rs2)])
}

/// Executes a block from the hart's pc on.
pub(super) fn execute(context: &mut ExecContext, block: &[Inst]) -> Flow {
    let mut pc = context.hart.pc;
    // Two registers in, one out; a register and the immediate; the same with 32-bit results.
    macro_rules! op {
        ($inst:ident, |$a:ident, $b:ident| $value:expr) => {{
            let $a = context.hart.x[at($inst.rs1)];
            let $b = context.hart.x[at($inst.rs2)];
            context.hart.x[at($inst.rd)] = $value;
        }};
    }
    macro_rules! op_imm {
        ($inst:ident, |$a:ident, $b:ident| $value:expr) => {{
            let $a = context.hart.x[at($inst.rs1)];
            let $b = $inst.imm as u64;
            context.hart.x[at($inst.rd)] = $value;
        }};
    }
    macro_rules! branch {
        ($inst:ident, $next:ident, |$a:ident, $b:ident| $taken:expr) => {{
            let $a = context.hart.x[at($inst.rs1)];
            let $b = context.hart.x[at($inst.rs2)];
            if $taken {
                $next = pc.wrapping_add($inst.imm as u64);
            }
        }};
    }
    macro_rules! attempt {
        ($done:expr) => {
            if $done.is_err() {
                return Flow::Fault(pc);
            }
        };
    }
    for inst in block {
        let mut next = pc.wrapping_add(inst.len.into());
        match inst.op {
            Op::Lui => context.hart.x[at(inst.rd)] = inst.imm as u64,
            Op::Auipc => context.hart.x[at(inst.rd)] = pc.wrapping_add(inst.imm as u64),
            Op::Jal => {
                context.hart.x[at(inst.rd)] = next;
                context.hart.x[0] = 0;
                next = pc.wrapping_add(inst.imm as u64);
            }
            Op::Jalr => {
                let target = context.hart.x[at(inst.rs1)].wrapping_add(inst.imm as u64) & !1;
                context.hart.x[at(inst.rd)] = next;
                context.hart.x[0] = 0;
                next = target;
            }
            Op::Beq => branch!(inst, next, |a, b| a == b),
            Op::Bne => branch!(inst, next, |a, b| a != b),
            Op::Blt => branch!(inst, next, |a, b| (a as i64) < b as i64),
            Op::Bge => branch!(inst, next, |a, b| a as i64 >= b as i64),
            Op::Bltu => branch!(inst, next, |a, b| a < b),
            Op::Bgeu => branch!(inst, next, |a, b| a >= b),

            Op::Lb => attempt!(load::<u8>(context, inst, |v| v as i8 as u64)),
            Op::Lh => attempt!(load::<u16>(context, inst, |v| v as i16 as u64)),
            Op::Lw => attempt!(load::<u32>(context, inst, |v| v as i32 as u64)),
            Op::Ld => attempt!(load::<u64>(context, inst, |v| v)),
            Op::Lbu => attempt!(load::<u8>(context, inst, |v| v)),
            Op::Lhu => attempt!(load::<u16>(context, inst, |v| v)),
            Op::Lwu => attempt!(load::<u32>(context, inst, |v| v)),
            Op::Sb => attempt!(store::<u8>(context, inst)),
            Op::Sh => attempt!(store::<u16>(context, inst)),
            Op::Sw => attempt!(store::<u32>(context, inst)),
            Op::Sd => attempt!(store::<u64>(context, inst)),

            Op::Addi => op_imm!(inst, |a, b| a.wrapping_add(b)),
            Op::Slti => op_imm!(inst, |a, b| u64::from((a as i64) < b as i64)),
            Op::Sltiu => op_imm!(inst, |a, b| u64::from(a < b)),
            Op::Xori => op_imm!(inst, |a, b| a ^ b),
            Op::Ori => op_imm!(inst, |a, b| a | b),
            Op::Andi => op_imm!(inst, |a, b| a & b),
            Op::Slli => op_imm!(inst, |a, b| a << (b & 63)),
            Op::Srli => op_imm!(inst, |a, b| a >> (b & 63)),
            Op::Srai => op_imm!(inst, |a, b| (a as i64 >> (b & 63)) as u64),
            Op::Addiw => op_imm!(inst, |a, b| int::word(a.wrapping_add(b))),
            Op::Slliw => op_imm!(inst, |a, b| int::word(a << (b & 31))),
            Op::Srliw => op_imm!(inst, |a, b| int::word(u64::from(a as u32 >> (b & 31)))),
            Op::Sraiw => op_imm!(inst, |a, b| (a as i32 >> (b & 31)) as u64),
            Op::Add => op!(inst, |a, b| a.wrapping_add(b)),
            Op::Sub => op!(inst, |a, b| a.wrapping_sub(b)),
            Op::Sll => op!(inst, |a, b| a << (b & 63)),
            Op::Slt => op!(inst, |a, b| u64::from((a as i64) < b as i64)),
            Op::Sltu => op!(inst, |a, b| u64::from(a < b)),
            Op::Xor => op!(inst, |a, b| a ^ b),
            Op::Srl => op!(inst, |a, b| a >> (b & 63)),
            Op::Sra => op!(inst, |a, b| (a as i64 >> (b & 63)) as u64),
            Op::Or => op!(inst, |a, b| a | b),
            Op::And => op!(inst, |a, b| a & b),
            Op::Addw => op!(inst, |a, b| int::word(a.wrapping_add(b))),
            Op::Subw => op!(inst, |a, b| int::word(a.wrapping_sub(b))),
            Op::Sllw => op!(inst, |a, b| int::word(a << (b & 31))),
            Op::Srlw => op!(inst, |a, b| int::word(u64::from(a as u32 >> (b & 31)))),
            Op::Sraw => op!(inst, |a, b| (a as i32 >> (b & 31)) as u64),

            Op::Mul => op!(inst, |a, b| a.wrapping_mul(b)),
            Op::Mulh => op!(inst, |a, b| int::mulh(a, b)),
            Op::Mulhsu => op!(inst, |a, b| int::mulhsu(a, b)),
            Op::Mulhu => op!(inst, |a, b| int::mulhu(a, b)),
            Op::Div => op!(inst, |a, b| int::div(a, b)),
            Op::Divu => op!(inst, |a, b| int::divu(a, b)),
            Op::Rem => op!(inst, |a, b| int::rem(a, b)),
            Op::Remu => op!(inst, |a, b| int::remu(a, b)),
            Op::Mulw => op!(inst, |a, b| int::word(a.wrapping_mul(b))),
            Op::Divw => op!(inst, |a, b| int::divw(a, b)),
            Op::Divuw => op!(inst, |a, b| int::divuw(a, b)),
            Op::Remw => op!(inst, |a, b| int::remw(a, b)),
            Op::Remuw => op!(inst, |a, b| int::remuw(a, b)),

            Op::AddUw => op!(inst, |a, b| bits::uw(a).wrapping_add(b)),
            Op::Sh1add => op!(inst, |a, b| (a << 1).wrapping_add(b)),
            Op::Sh2add => op!(inst, |a, b| (a << 2).wrapping_add(b)),
            Op::Sh3add => op!(inst, |a, b| (a << 3).wrapping_add(b)),
            Op::Sh1addUw => op!(inst, |a, b| (bits::uw(a) << 1).wrapping_add(b)),
            Op::Sh2addUw => op!(inst, |a, b| (bits::uw(a) << 2).wrapping_add(b)),
            Op::Sh3addUw => op!(inst, |a, b| (bits::uw(a) << 3).wrapping_add(b)),
            Op::SlliUw => op_imm!(inst, |a, b| bits::uw(a) << (b & 63)),

            Op::Andn => op!(inst, |a, b| a & !b),
            Op::Orn => op!(inst, |a, b| a | !b),
            Op::Xnor => op!(inst, |a, b| !(a ^ b)),
            Op::Clz => op!(inst, |a, _b| a.leading_zeros().into()),
            Op::Ctz => op!(inst, |a, _b| a.trailing_zeros().into()),
            Op::Cpop => op!(inst, |a, _b| a.count_ones().into()),
            Op::Clzw => op!(inst, |a, _b| (a as u32).leading_zeros().into()),
            Op::Ctzw => op!(inst, |a, _b| (a as u32).trailing_zeros().into()),
            Op::Cpopw => op!(inst, |a, _b| (a as u32).count_ones().into()),
            Op::SextB => op!(inst, |a, _b| a as i8 as u64),
            Op::SextH => op!(inst, |a, _b| a as i16 as u64),
            Op::ZextH => op!(inst, |a, _b| u64::from(a as u16)),
            Op::OrcB => op!(inst, |a, _b| bits::orc_b(a)),
            Op::Rev8 => op!(inst, |a, _b| a.swap_bytes()),
            Op::Max => op!(inst, |a, b| (a as i64).max(b as i64) as u64),
            Op::Maxu => op!(inst, |a, b| a.max(b)),
            Op::Min => op!(inst, |a, b| (a as i64).min(b as i64) as u64),
            Op::Minu => op!(inst, |a, b| a.min(b)),
            Op::Rol => op!(inst, |a, b| a.rotate_left(b as u32 & 63)),
            Op::Ror => op!(inst, |a, b| a.rotate_right(b as u32 & 63)),
            Op::Rolw => op!(inst, |a, b| bits::rolw(a, b)),
            Op::Rorw => op!(inst, |a, b| bits::rorw(a, b)),
            Op::Rori => op_imm!(inst, |a, b| a.rotate_right(b as u32 & 63)),
            Op::Roriw => op_imm!(inst, |a, b| bits::rorw(a, b)),

            Op::Bclr => op!(inst, |a, b| a & !(1 << (b & 63))),
            Op::Bext => op!(inst, |a, b| a >> (b & 63) & 1),
            Op::Binv => op!(inst, |a, b| a ^ 1 << (b & 63)),
            Op::Bset => op!(inst, |a, b| a | 1 << (b & 63)),
            Op::Bclri => op_imm!(inst, |a, b| a & !(1 << (b & 63))),
            Op::Bexti => op_imm!(inst, |a, b| a >> (b & 63) & 1),
            Op::Binvi => op_imm!(inst, |a, b| a ^ 1 << (b & 63)),
            Op::Bseti => op_imm!(inst, |a, b| a | 1 << (b & 63)),
            Op::CzeroEqz => op!(inst, |a, b| if b == 0 { 0 } else { a }),
            Op::CzeroNez => op!(inst, |a, b| if b == 0 { a } else { 0 }),

            Op::Fence => fence(Ordering::SeqCst),

            Op::Fld => attempt!(float::load_double(context, inst, pc)),
            Op::Fsd => attempt!(float::store_double(context, inst, pc)),

            Op::LrW
            | Op::ScW
            | Op::AmoswapW
            | Op::AmoaddW
            | Op::AmoxorW
            | Op::AmoandW
            | Op::AmoorW
            | Op::AmominW
            | Op::AmomaxW
            | Op::AmominuW
            | Op::AmomaxuW
            | Op::LrD
            | Op::ScD
            | Op::AmoswapD
            | Op::AmoaddD
            | Op::AmoxorD
            | Op::AmoandD
            | Op::AmoorD
            | Op::AmominD
            | Op::AmomaxD
            | Op::AmominuD
            | Op::AmomaxuD => attempt!(amo::execute(context, inst)),

            Op::Illegal
            | Op::FenceI
            | Op::Ecall
            | Op::Ebreak
            | Op::Sret
            | Op::Mret
            | Op::Wfi
            | Op::SfenceVma
            | Op::SinvalVma
            | Op::SfenceWInval
            | Op::SfenceInvalIr
            | Op::Csrrw
            | Op::Csrrs
            | Op::Csrrc
            | Op::Csrrwi
            | Op::Csrrsi
            | Op::Csrrci => return Flow::System(pc, *inst),

            _ => attempt!(float::execute(context, inst, pc)),
        }
        pc = next;
    }
    context.hart.pc = pc;
    context.hart.retired += block.len() as u64;
    Flow::Next
}
