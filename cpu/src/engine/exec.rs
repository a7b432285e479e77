//! One block's execution: the integer instructions here, the rest by group.

use super::float::{D, S, X};
use super::system::System;
use super::{amo, bits, float, int};
use crate::context::ExecContext;
use crate::fp;
use crate::isa::{Inst, Op};
use crate::mem::{AmoOp, Fault, Width};
use std::sync::atomic::{Ordering, fence};

/// How a block ended.
#[derive(Debug)]
pub(super) enum Flow {
    /// Done; the hart's pc and retired instructions are right.
    Next,
    /// The instruction at this address is [`super::system`]'s. pc and retired are the block's start's.
    System(u64, System, Inst),
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

/// Executes a block from the hart's pc on. The one place where the interpreter asks which operation it is.
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
    macro_rules! system {
        ($inst:ident, $what:ident) => {
            return Flow::System(pc, System::$what, *$inst)
        };
    }
    // Floating point: with a rounding mode and without. `s` are operands of 32 bits, `r` of 64, `x` of an x register.
    macro_rules! fp_rounded {
        ($inst:ident, |$r:ident, $e:ident| $value:expr) => {
            attempt!(float::rounded(context, $inst, pc, |$r, $e| $value))
        };
    }
    macro_rules! fp {
        ($inst:ident, |$r:ident, $e:ident| $value:expr) => {
            attempt!(float::unrounded(context, $inst, pc, |$r, $e| $value))
        };
    }
    const SIGN32: u32 = 1 << 31;
    const SIGN64: u64 = 1 << 63;
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

            Op::LrW => attempt!(amo::load_reserved(context, inst, 4)),
            Op::ScW => attempt!(amo::store_conditional(context, inst, 4)),
            Op::AmoswapW => attempt!(amo::amo::<u32>(context, inst, AmoOp::Swap)),
            Op::AmoaddW => attempt!(amo::amo::<u32>(context, inst, AmoOp::Add)),
            Op::AmoxorW => attempt!(amo::amo::<u32>(context, inst, AmoOp::Xor)),
            Op::AmoandW => attempt!(amo::amo::<u32>(context, inst, AmoOp::And)),
            Op::AmoorW => attempt!(amo::amo::<u32>(context, inst, AmoOp::Or)),
            Op::AmominW => attempt!(amo::amo::<u32>(context, inst, AmoOp::Min)),
            Op::AmomaxW => attempt!(amo::amo::<u32>(context, inst, AmoOp::Max)),
            Op::AmominuW => attempt!(amo::amo::<u32>(context, inst, AmoOp::Minu)),
            Op::AmomaxuW => attempt!(amo::amo::<u32>(context, inst, AmoOp::Maxu)),
            Op::LrD => attempt!(amo::load_reserved(context, inst, 8)),
            Op::ScD => attempt!(amo::store_conditional(context, inst, 8)),
            Op::AmoswapD => attempt!(amo::amo::<u64>(context, inst, AmoOp::Swap)),
            Op::AmoaddD => attempt!(amo::amo::<u64>(context, inst, AmoOp::Add)),
            Op::AmoxorD => attempt!(amo::amo::<u64>(context, inst, AmoOp::Xor)),
            Op::AmoandD => attempt!(amo::amo::<u64>(context, inst, AmoOp::And)),
            Op::AmoorD => attempt!(amo::amo::<u64>(context, inst, AmoOp::Or)),
            Op::AmominD => attempt!(amo::amo::<u64>(context, inst, AmoOp::Min)),
            Op::AmomaxD => attempt!(amo::amo::<u64>(context, inst, AmoOp::Max)),
            Op::AmominuD => attempt!(amo::amo::<u64>(context, inst, AmoOp::Minu)),
            Op::AmomaxuD => attempt!(amo::amo::<u64>(context, inst, AmoOp::Maxu)),

            Op::Flw => attempt!(float::load_single(context, inst, pc)),
            Op::Fsw => attempt!(float::store_single(context, inst, pc)),
            Op::FmaddS => fp_rounded!(inst, |r, e| S(fp::f32_fma(r.a32(), r.b32(), r.c32(), e))),
            Op::FmsubS => fp_rounded!(inst, |r, e| S(fp::f32_fma(r.a32(), r.b32(), r.c32() ^ SIGN32, e))),
            Op::FnmsubS => fp_rounded!(inst, |r, e| S(fp::f32_fma(r.a32() ^ SIGN32, r.b32(), r.c32(), e))),
            Op::FnmaddS => {
                fp_rounded!(inst, |r, e| S(fp::f32_fma(r.a32() ^ SIGN32, r.b32(), r.c32() ^ SIGN32, e)))
            }
            Op::FaddS => fp_rounded!(inst, |r, e| S(fp::f32_add(r.a32(), r.b32(), e))),
            Op::FsubS => fp_rounded!(inst, |r, e| S(fp::f32_sub(r.a32(), r.b32(), e))),
            Op::FmulS => fp_rounded!(inst, |r, e| S(fp::f32_mul(r.a32(), r.b32(), e))),
            Op::FdivS => fp_rounded!(inst, |r, e| S(fp::f32_div(r.a32(), r.b32(), e))),
            Op::FsqrtS => fp_rounded!(inst, |r, e| S(fp::f32_sqrt(r.a32(), e))),
            Op::FsgnjS => fp!(inst, |r, _e| S(r.a32() & !SIGN32 | r.b32() & SIGN32)),
            Op::FsgnjnS => fp!(inst, |r, _e| S(r.a32() & !SIGN32 | !r.b32() & SIGN32)),
            Op::FsgnjxS => fp!(inst, |r, _e| S(r.a32() ^ r.b32() & SIGN32)),
            Op::FminS => fp!(inst, |r, e| S(fp::f32_min(r.a32(), r.b32(), e))),
            Op::FmaxS => fp!(inst, |r, e| S(fp::f32_max(r.a32(), r.b32(), e))),
            Op::FeqS => fp!(inst, |r, e| X(fp::f32_eq(r.a32(), r.b32(), e).into())),
            Op::FltS => fp!(inst, |r, e| X(fp::f32_lt(r.a32(), r.b32(), e).into())),
            Op::FleS => fp!(inst, |r, e| X(fp::f32_le(r.a32(), r.b32(), e).into())),
            Op::FcvtWS => fp_rounded!(inst, |r, e| X(fp::f32_to_i32(r.a32(), e) as u64)),
            Op::FcvtWuS => fp_rounded!(inst, |r, e| X(int::word(fp::f32_to_u32(r.a32(), e).into()))),
            Op::FcvtLS => fp_rounded!(inst, |r, e| X(fp::f32_to_i64(r.a32(), e) as u64)),
            Op::FcvtLuS => fp_rounded!(inst, |r, e| X(fp::f32_to_u64(r.a32(), e))),
            Op::FcvtSW => fp_rounded!(inst, |r, e| S(fp::i32_to_f32(r.x as i32, e))),
            Op::FcvtSWu => fp_rounded!(inst, |r, e| S(fp::u32_to_f32(r.x as u32, e))),
            Op::FcvtSL => fp_rounded!(inst, |r, e| S(fp::i64_to_f32(r.x as i64, e))),
            Op::FcvtSLu => fp_rounded!(inst, |r, e| S(fp::u64_to_f32(r.x, e))),
            // Moves take the low half whether or not it is boxed.
            Op::FmvXW => fp!(inst, |r, _e| X(int::word(r.a))),
            Op::FclassS => fp!(inst, |r, _e| X(fp::f32_classify(r.a32()).into())),
            Op::FmvWX => fp!(inst, |r, _e| S(r.x as u32)),

            Op::FmaddD => fp_rounded!(inst, |r, e| D(fp::f64_fma(r.a, r.b, r.c, e))),
            Op::FmsubD => fp_rounded!(inst, |r, e| D(fp::f64_fma(r.a, r.b, r.c ^ SIGN64, e))),
            Op::FnmsubD => fp_rounded!(inst, |r, e| D(fp::f64_fma(r.a ^ SIGN64, r.b, r.c, e))),
            Op::FnmaddD => fp_rounded!(inst, |r, e| D(fp::f64_fma(r.a ^ SIGN64, r.b, r.c ^ SIGN64, e))),
            Op::FaddD => fp_rounded!(inst, |r, e| D(fp::f64_add(r.a, r.b, e))),
            Op::FsubD => fp_rounded!(inst, |r, e| D(fp::f64_sub(r.a, r.b, e))),
            Op::FmulD => fp_rounded!(inst, |r, e| D(fp::f64_mul(r.a, r.b, e))),
            Op::FdivD => fp_rounded!(inst, |r, e| D(fp::f64_div(r.a, r.b, e))),
            Op::FsqrtD => fp_rounded!(inst, |r, e| D(fp::f64_sqrt(r.a, e))),
            Op::FsgnjD => fp!(inst, |r, _e| D(r.a & !SIGN64 | r.b & SIGN64)),
            Op::FsgnjnD => fp!(inst, |r, _e| D(r.a & !SIGN64 | !r.b & SIGN64)),
            Op::FsgnjxD => fp!(inst, |r, _e| D(r.a ^ r.b & SIGN64)),
            Op::FminD => fp!(inst, |r, e| D(fp::f64_min(r.a, r.b, e))),
            Op::FmaxD => fp!(inst, |r, e| D(fp::f64_max(r.a, r.b, e))),
            Op::FcvtSD => fp_rounded!(inst, |r, e| S(fp::f64_to_f32(r.a, e))),
            Op::FcvtDS => fp_rounded!(inst, |r, e| D(fp::f32_to_f64(r.a32(), e))),
            Op::FeqD => fp!(inst, |r, e| X(fp::f64_eq(r.a, r.b, e).into())),
            Op::FltD => fp!(inst, |r, e| X(fp::f64_lt(r.a, r.b, e).into())),
            Op::FleD => fp!(inst, |r, e| X(fp::f64_le(r.a, r.b, e).into())),
            Op::FcvtWD => fp_rounded!(inst, |r, e| X(fp::f64_to_i32(r.a, e) as u64)),
            Op::FcvtWuD => fp_rounded!(inst, |r, e| X(int::word(fp::f64_to_u32(r.a, e).into()))),
            Op::FcvtLD => fp_rounded!(inst, |r, e| X(fp::f64_to_i64(r.a, e) as u64)),
            Op::FcvtLuD => fp_rounded!(inst, |r, e| X(fp::f64_to_u64(r.a, e))),
            Op::FcvtDW => fp_rounded!(inst, |r, e| D(fp::i32_to_f64(r.x as i32, e))),
            Op::FcvtDWu => fp_rounded!(inst, |r, e| D(fp::u32_to_f64(r.x as u32, e))),
            Op::FcvtDL => fp_rounded!(inst, |r, e| D(fp::i64_to_f64(r.x as i64, e))),
            Op::FcvtDLu => fp_rounded!(inst, |r, e| D(fp::u64_to_f64(r.x, e))),
            Op::FmvXD => fp!(inst, |r, _e| X(r.a)),
            Op::FclassD => fp!(inst, |r, _e| X(fp::f64_classify(r.a).into())),
            Op::FmvDX => fp!(inst, |r, _e| D(r.x)),

            Op::Illegal => system!(inst, Illegal),
            Op::FenceI => system!(inst, FenceI),
            Op::Ecall => system!(inst, Ecall),
            Op::Ebreak => system!(inst, Ebreak),
            Op::Sret => system!(inst, Sret),
            Op::Mret => system!(inst, Mret),
            Op::Wfi => system!(inst, Wfi),
            Op::SfenceVma | Op::SinvalVma => system!(inst, FenceVma),
            Op::SfenceWInval | Op::SfenceInvalIr => system!(inst, FenceOrder),
            Op::Csrrw | Op::Csrrs | Op::Csrrc | Op::Csrrwi | Op::Csrrsi | Op::Csrrci => system!(inst, Csr),
        }
        pc = next;
    }
    context.hart.pc = pc;
    context.hart.retired += block.len() as u64;
    Flow::Next
}
