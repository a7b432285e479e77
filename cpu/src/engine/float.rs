//! Floating-point instructions over [`crate::fp`]: rounding modes, NaN boxes, mstatus.FS and fflags
//! (RISC-V Unprivileged, chapters "F" and "D").

use crate::context::ExecContext;
use crate::fp::{self, FpEnv, Rounding};
use crate::hart::Hart;
use crate::isa::Inst;
use crate::mem::Fault;

/// rm says: take the mode from frm.
const DYNAMIC: u8 = 7;

#[inline(always)]
const fn at(register: u8) -> usize {
    (register & 31) as usize
}

/// What an instruction computes from, none of it from memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands {
    /// fs1.
    pub a: u64,
    /// fs2.
    pub b: u64,
    /// fs3.
    pub c: u64,
    /// rs1.
    pub x: u64,
}

impl Operands {
    #[inline(always)]
    fn of(hart: &Hart, inst: &Inst) -> Self {
        let [a, b, c] = [inst.rs1, inst.rs2, inst.rs3].map(|register| hart.f[at(register)]);
        Self { a, b, c, x: hart.x[at(inst.rs1)] }
    }

    /// fs1 in single precision.
    #[inline(always)]
    pub fn a32(&self) -> u32 {
        fp::unbox_f32(self.a)
    }

    /// fs2 in single precision.
    #[inline(always)]
    pub fn b32(&self) -> u32 {
        fp::unbox_f32(self.b)
    }

    /// fs3 in single precision.
    #[inline(always)]
    pub fn c32(&self) -> u32 {
        fp::unbox_f32(self.c)
    }
}

/// What an instruction computes, by where it goes.
pub(super) trait Outcome {
    /// Writes it into rd; `flags_changed` says that fflags did.
    fn put(self, hart: &mut Hart, rd: u8, flags_changed: bool);
}

/// Into an x register.
pub(super) struct X(pub u64);
/// Into an f register, in single precision.
pub(super) struct S(pub u32);
/// Into an f register, in double precision.
pub(super) struct D(pub u64);

impl Outcome for X {
    #[inline(always)]
    fn put(self, hart: &mut Hart, rd: u8, flags_changed: bool) {
        hart.x[at(rd)] = self.0;
        hart.x[0] = 0;
        if flags_changed {
            hart.mark_fp_dirty();
        }
    }
}

impl Outcome for S {
    #[inline(always)]
    fn put(self, hart: &mut Hart, rd: u8, flags_changed: bool) {
        D(fp::box_f32(self.0)).put(hart, rd, flags_changed);
    }
}

impl Outcome for D {
    #[inline(always)]
    fn put(self, hart: &mut Hart, rd: u8, _: bool) {
        hart.f[at(rd)] = self.0;
        hart.mark_fp_dirty();
    }
}

/// An instruction with a rounding mode, which may name a reserved one. Not inlined: `execute` has one for each.
#[inline(never)]
pub(super) fn rounded<R: Outcome>(
    context: &mut ExecContext,
    inst: &Inst,
    pc: u64,
    compute: impl FnOnce(Operands, &mut FpEnv) -> R,
) -> Result<(), Fault> {
    let number = if inst.rm == DYNAMIC { context.hart.frm } else { inst.rm };
    match Rounding::try_from(number) {
        Ok(rm) => apply(context, inst, pc, rm, compute),
        Err(_) => Err(context.illegal(pc)),
    }
}

/// An instruction without a rounding mode.
#[inline(never)]
pub(super) fn unrounded<R: Outcome>(
    context: &mut ExecContext,
    inst: &Inst,
    pc: u64,
    compute: impl FnOnce(Operands, &mut FpEnv) -> R,
) -> Result<(), Fault> {
    apply(context, inst, pc, Rounding::Rne, compute)
}

#[inline(always)]
fn apply<R: Outcome>(
    context: &mut ExecContext,
    inst: &Inst,
    pc: u64,
    rm: Rounding,
    compute: impl FnOnce(Operands, &mut FpEnv) -> R,
) -> Result<(), Fault> {
    if !context.hart.fp_enabled() {
        return Err(context.illegal(pc));
    }
    let hart = &mut context.hart;
    let mut env = FpEnv { rm, flags: hart.fflags };
    let result = compute(Operands::of(hart, inst), &mut env);
    let flags_changed = env.flags != hart.fflags;
    hart.fflags = env.flags;
    result.put(hart, inst.rd, flags_changed);
    Ok(())
}

fn address(context: &ExecContext, inst: &Inst) -> u64 {
    context.hart.x[at(inst.rs1)].wrapping_add(inst.imm as u64)
}

/// `fld`.
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

/// `flw`.
pub(super) fn load_single(context: &mut ExecContext, inst: &Inst, pc: u64) -> Result<(), Fault> {
    if !context.hart.fp_enabled() {
        return Err(context.illegal(pc));
    }
    let va = address(context, inst);
    context.hart.f[at(inst.rd)] = fp::box_f32(context.memory.load::<u32>(va)? as u32);
    context.hart.mark_fp_dirty();
    Ok(())
}

/// `fsw`.
pub(super) fn store_single(context: &mut ExecContext, inst: &Inst, pc: u64) -> Result<(), Fault> {
    if !context.hart.fp_enabled() {
        return Err(context.illegal(pc));
    }
    let va = address(context, inst);
    context.memory.store::<u32>(va, context.hart.f[at(inst.rs2)])
}
