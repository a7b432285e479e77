//! Atomics: from registers to memory's operations and back.

use super::int;
use crate::context::ExecContext;
use crate::isa::Inst;
use crate::mem::{AmoOp, AmoWidth, Fault};

fn source(context: &ExecContext, register: u8) -> u64 {
    context.hart.x[usize::from(register & 31)]
}

fn set(context: &mut ExecContext, inst: &Inst, value: u64) {
    context.hart.x[usize::from(inst.rd & 31)] = value;
    context.hart.x[0] = 0;
}

/// `lr.w` and `lr.d`, of 4 and 8 bytes.
#[inline(never)]
pub(super) fn load_reserved(context: &mut ExecContext, inst: &Inst, len: u8) -> Result<(), Fault> {
    let reservation = context.memory.load_reserved(source(context, inst.rs1), len)?;
    context.hart.reservation = Some(reservation);
    set(context, inst, if len == 4 { int::word(reservation.value) } else { reservation.value });
    Ok(())
}

/// `sc.w` and `sc.d`, of 4 and 8 bytes.
#[inline(never)]
pub(super) fn store_conditional(context: &mut ExecContext, inst: &Inst, len: u8) -> Result<(), Fault> {
    let (va, value) = (source(context, inst.rs1), source(context, inst.rs2));
    let done = context.memory.store_conditional(va, len, value, context.hart.reservation)?;
    context.hart.reservation = None;
    set(context, inst, u64::from(!done));
    Ok(())
}

/// An AMO on a word of this width.
#[inline(never)]
pub(super) fn amo<W: AmoWidth>(context: &mut ExecContext, inst: &Inst, op: AmoOp) -> Result<(), Fault> {
    let (va, operand) = (source(context, inst.rs1), source(context, inst.rs2));
    let old = context.memory.amo::<W>(va, op, operand)?;
    set(context, inst, old);
    Ok(())
}
