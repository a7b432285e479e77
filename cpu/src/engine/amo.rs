//! Atomics: which memory operation each instruction is.

use super::context::ExecContext;
use super::int::word;
use crate::isa::{Inst, Op};
use crate::mem::{AmoOp, Fault};

/// Executes an instruction of the A extension.
pub(super) fn execute(context: &mut ExecContext, inst: &Inst) -> Result<(), Fault> {
    use AmoOp::{Add, And, Max, Maxu, Min, Minu, Or, Swap, Xor};
    match inst.op {
        Op::LrW => load_reserved(context, inst, 4),
        Op::LrD => load_reserved(context, inst, 8),
        Op::ScW => store_conditional(context, inst, 4),
        Op::ScD => store_conditional(context, inst, 8),
        Op::AmoswapW => amo32(context, inst, Swap),
        Op::AmoaddW => amo32(context, inst, Add),
        Op::AmoxorW => amo32(context, inst, Xor),
        Op::AmoandW => amo32(context, inst, And),
        Op::AmoorW => amo32(context, inst, Or),
        Op::AmominW => amo32(context, inst, Min),
        Op::AmomaxW => amo32(context, inst, Max),
        Op::AmominuW => amo32(context, inst, Minu),
        Op::AmomaxuW => amo32(context, inst, Maxu),
        Op::AmoswapD => amo64(context, inst, Swap),
        Op::AmoaddD => amo64(context, inst, Add),
        Op::AmoxorD => amo64(context, inst, Xor),
        Op::AmoandD => amo64(context, inst, And),
        Op::AmoorD => amo64(context, inst, Or),
        Op::AmominD => amo64(context, inst, Min),
        Op::AmomaxD => amo64(context, inst, Max),
        Op::AmominuD => amo64(context, inst, Minu),
        Op::AmomaxuD => amo64(context, inst, Maxu),
        _ => unreachable!("{:?} is no atomic", inst.op),
    }
}

fn source(context: &ExecContext, register: u8) -> u64 {
    context.hart.x[usize::from(register & 31)]
}

fn set(context: &mut ExecContext, inst: &Inst, value: u64) {
    context.hart.x[usize::from(inst.rd & 31)] = value;
    context.hart.x[0] = 0;
}

fn load_reserved(context: &mut ExecContext, inst: &Inst, len: u8) -> Result<(), Fault> {
    let reservation = context.memory.load_reserved(source(context, inst.rs1), len)?;
    context.hart.reservation = Some(reservation);
    set(context, inst, if len == 4 { word(reservation.value) } else { reservation.value });
    Ok(())
}

fn store_conditional(context: &mut ExecContext, inst: &Inst, len: u8) -> Result<(), Fault> {
    let (va, value) = (source(context, inst.rs1), source(context, inst.rs2));
    let done = context.memory.store_conditional(va, len, value, context.hart.reservation)?;
    context.hart.reservation = None;
    set(context, inst, u64::from(!done));
    Ok(())
}

fn amo32(context: &mut ExecContext, inst: &Inst, op: AmoOp) -> Result<(), Fault> {
    let (va, operand) = (source(context, inst.rs1), source(context, inst.rs2));
    let old = context.memory.amo32(va, op, operand)?;
    set(context, inst, old);
    Ok(())
}

fn amo64(context: &mut ExecContext, inst: &Inst, op: AmoOp) -> Result<(), Fault> {
    let (va, operand) = (source(context, inst.rs1), source(context, inst.rs2));
    let old = context.memory.amo64(va, op, operand)?;
    set(context, inst, old);
    Ok(())
}
