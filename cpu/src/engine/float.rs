//! Floating-point instructions over [`crate::fp`]: rounding modes, NaN boxes, mstatus.FS and fflags
//! (RISC-V Unprivileged, chapters "F" and "D").

use super::context::ExecContext;
use super::int::word;
use crate::fp::{self, FpEnv, Rounding};
use crate::isa::{Inst, Op};
use crate::mem::Fault;

/// rm says: take the mode from frm.
const DYNAMIC: u8 = 7;
const SIGN32: u32 = 1 << 31;
const SIGN64: u64 = 1 << 63;

#[inline(always)]
const fn at(register: u8) -> usize {
    (register & 31) as usize
}

/// Executes an instruction of F or D at `pc`, other than those with a way of their own.
pub(super) fn execute(context: &mut ExecContext, inst: &Inst, pc: u64) -> Result<(), Fault> {
    if !context.hart.fp_enabled() {
        return Err(context.illegal(pc));
    }
    match inst.op {
        Op::Flw => load_single(context, inst),
        Op::Fsw => {
            let va = address(context, inst);
            context.memory.store::<u32>(va, context.hart.f[at(inst.rs2)])
        }
        _ => {
            let number = if inst.rm == DYNAMIC && has_rounding(inst.op) { context.hart.frm } else { inst.rm };
            let rounding = if has_rounding(inst.op) {
                Rounding::try_from(number).map_err(|_| context.illegal(pc))?
            } else {
                Rounding::Rne
            };
            compute(context, inst, rounding);
            Ok(())
        }
    }
}

/// Whether the instruction has a rounding mode field, which may name a reserved mode.
#[inline]
const fn has_rounding(op: Op) -> bool {
    !matches!(
        op,
        Op::FsgnjS
            | Op::FsgnjnS
            | Op::FsgnjxS
            | Op::FminS
            | Op::FmaxS
            | Op::FeqS
            | Op::FltS
            | Op::FleS
            | Op::FmvXW
            | Op::FclassS
            | Op::FmvWX
            | Op::FsgnjD
            | Op::FsgnjnD
            | Op::FsgnjxD
            | Op::FminD
            | Op::FmaxD
            | Op::FeqD
            | Op::FltD
            | Op::FleD
            | Op::FmvXD
            | Op::FclassD
            | Op::FmvDX
    )
}

fn address(context: &ExecContext, inst: &Inst) -> u64 {
    context.hart.x[at(inst.rs1)].wrapping_add(inst.imm as u64)
}

/// `fld`, which with `fsd` is common enough for a way of its own.
#[inline(always)]
pub(super) fn load_double(context: &mut ExecContext, inst: &Inst, pc: u64) -> Result<(), Fault> {
    if !context.hart.fp_enabled() {
        return Err(context.illegal(pc));
    }
    let va = address(context, inst);
    context.hart.f[at(inst.rd)] = context.memory.load::<u64>(va)?;
    context.hart.mark_fp_dirty();
    Ok(())
}

/// `fsd`.
#[inline(always)]
pub(super) fn store_double(context: &mut ExecContext, inst: &Inst, pc: u64) -> Result<(), Fault> {
    if !context.hart.fp_enabled() {
        return Err(context.illegal(pc));
    }
    let va = address(context, inst);
    context.memory.store::<u64>(va, context.hart.f[at(inst.rs2)])
}

fn load_single(context: &mut ExecContext, inst: &Inst) -> Result<(), Fault> {
    let va = address(context, inst);
    context.hart.f[at(inst.rd)] = fp::box_f32(context.memory.load::<u32>(va)? as u32);
    context.hart.mark_fp_dirty();
    Ok(())
}

/// What cannot fault: registers in, a register and flags out.
fn compute(context: &mut ExecContext, inst: &Inst, rm: Rounding) {
    let hart = &mut context.hart;
    let mut env = FpEnv { rm, flags: hart.fflags };
    let [a, b, c] = [hart.f[at(inst.rs1)], hart.f[at(inst.rs2)], hart.f[at(inst.rs3)]];
    let [a32, b32, c32] = [fp::unbox_f32(a), fp::unbox_f32(b), fp::unbox_f32(c)];
    let x = hart.x[at(inst.rs1)];
    enum Result {
        X(u64),
        S(u32),
        D(u64),
    }
    use Result::{D, S, X};
    let e = &mut env;
    let result = match inst.op {
        Op::FmaddS => S(fp::f32_fma(a32, b32, c32, e)),
        Op::FmsubS => S(fp::f32_fma(a32, b32, c32 ^ SIGN32, e)),
        Op::FnmsubS => S(fp::f32_fma(a32 ^ SIGN32, b32, c32, e)),
        Op::FnmaddS => S(fp::f32_fma(a32 ^ SIGN32, b32, c32 ^ SIGN32, e)),
        Op::FaddS => S(fp::f32_add(a32, b32, e)),
        Op::FsubS => S(fp::f32_sub(a32, b32, e)),
        Op::FmulS => S(fp::f32_mul(a32, b32, e)),
        Op::FdivS => S(fp::f32_div(a32, b32, e)),
        Op::FsqrtS => S(fp::f32_sqrt(a32, e)),
        Op::FsgnjS => S(a32 & !SIGN32 | b32 & SIGN32),
        Op::FsgnjnS => S(a32 & !SIGN32 | !b32 & SIGN32),
        Op::FsgnjxS => S(a32 ^ b32 & SIGN32),
        Op::FminS => S(fp::f32_min(a32, b32, e)),
        Op::FmaxS => S(fp::f32_max(a32, b32, e)),
        Op::FeqS => X(fp::f32_eq(a32, b32, e).into()),
        Op::FltS => X(fp::f32_lt(a32, b32, e).into()),
        Op::FleS => X(fp::f32_le(a32, b32, e).into()),
        Op::FcvtWS => X(fp::f32_to_i32(a32, e) as u64),
        Op::FcvtWuS => X(word(fp::f32_to_u32(a32, e).into())),
        Op::FcvtLS => X(fp::f32_to_i64(a32, e) as u64),
        Op::FcvtLuS => X(fp::f32_to_u64(a32, e)),
        Op::FcvtSW => S(fp::i32_to_f32(x as i32, e)),
        Op::FcvtSWu => S(fp::u32_to_f32(x as u32, e)),
        Op::FcvtSL => S(fp::i64_to_f32(x as i64, e)),
        Op::FcvtSLu => S(fp::u64_to_f32(x, e)),
        // Moves take the low half whether or not it is boxed.
        Op::FmvXW => X(word(a)),
        Op::FclassS => X(fp::f32_classify(a32).into()),
        Op::FmvWX => S(x as u32),

        Op::FmaddD => D(fp::f64_fma(a, b, c, e)),
        Op::FmsubD => D(fp::f64_fma(a, b, c ^ SIGN64, e)),
        Op::FnmsubD => D(fp::f64_fma(a ^ SIGN64, b, c, e)),
        Op::FnmaddD => D(fp::f64_fma(a ^ SIGN64, b, c ^ SIGN64, e)),
        Op::FaddD => D(fp::f64_add(a, b, e)),
        Op::FsubD => D(fp::f64_sub(a, b, e)),
        Op::FmulD => D(fp::f64_mul(a, b, e)),
        Op::FdivD => D(fp::f64_div(a, b, e)),
        Op::FsqrtD => D(fp::f64_sqrt(a, e)),
        Op::FsgnjD => D(a & !SIGN64 | b & SIGN64),
        Op::FsgnjnD => D(a & !SIGN64 | !b & SIGN64),
        Op::FsgnjxD => D(a ^ b & SIGN64),
        Op::FminD => D(fp::f64_min(a, b, e)),
        Op::FmaxD => D(fp::f64_max(a, b, e)),
        Op::FcvtSD => S(fp::f64_to_f32(a, e)),
        Op::FcvtDS => D(fp::f32_to_f64(a32, e)),
        Op::FeqD => X(fp::f64_eq(a, b, e).into()),
        Op::FltD => X(fp::f64_lt(a, b, e).into()),
        Op::FleD => X(fp::f64_le(a, b, e).into()),
        Op::FcvtWD => X(fp::f64_to_i32(a, e) as u64),
        Op::FcvtWuD => X(word(fp::f64_to_u32(a, e).into())),
        Op::FcvtLD => X(fp::f64_to_i64(a, e) as u64),
        Op::FcvtLuD => X(fp::f64_to_u64(a, e)),
        Op::FcvtDW => D(fp::i32_to_f64(x as i32, e)),
        Op::FcvtDWu => D(fp::u32_to_f64(x as u32, e)),
        Op::FcvtDL => D(fp::i64_to_f64(x as i64, e)),
        Op::FcvtDLu => D(fp::u64_to_f64(x, e)),
        Op::FmvXD => X(a),
        Op::FclassD => X(fp::f64_classify(a).into()),
        Op::FmvDX => D(x),
        other => unreachable!("{other:?} is executed elsewhere"),
    };
    let flags_changed = env.flags != hart.fflags;
    hart.fflags = env.flags;
    match result {
        X(value) => {
            hart.x[at(inst.rd)] = value;
            hart.x[0] = 0;
            if flags_changed {
                hart.mark_fp_dirty();
            }
        }
        S(value) => {
            hart.f[at(inst.rd)] = fp::box_f32(value);
            hart.mark_fp_dirty();
        }
        D(value) => {
            hart.f[at(inst.rd)] = value;
            hart.mark_fp_dirty();
        }
    }
}
