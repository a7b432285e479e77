//! Instructions that change more than registers and memory: CSRs, traps and their return, fences, WFI, SBI.

use super::Exit;
use crate::context::ExecContext;
use crate::csr::CsrEffects;
use crate::isa::{self, Inst};
use crate::mem::Memory;
use crate::sbi::host::{EnginePorts, SharedHost};
use crate::sbi::{self, SbiOutcome};
use crate::trap::{Trap, cause};
use quasar_abi::hart::HartControl;
use quasar_abi::party::{PartyId, attention};
use quasar_abi::vm::Vm;
use std::sync::atomic::Ordering;

/// What such an instruction is. An engine names it; nothing here asks which operation it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// Not an instruction that this hart implements.
    Illegal,
    /// `fence.i`
    FenceI,
    /// `ecall`
    Ecall,
    /// `ebreak`
    Ebreak,
    /// `sret`
    Sret,
    /// `mret`
    Mret,
    /// `wfi`
    Wfi,
    /// `sfence.vma` and `sinval.vma`
    FenceVma,
    /// `sfence.w.inval` and `sfence.inval.ir`, which order and do nothing else.
    FenceOrder,
    /// A CSR access.
    Csr,
}

/// What comes after the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The next instruction.
    Next,
    /// An exception was taken; nothing has retired.
    Raised,
    /// The engine's caller.
    Exit(Exit),
}

/// Executes the system instruction at the hart's pc; `retired` counts what came before it.
pub(super) fn execute(context: &mut ExecContext, what: System, inst: &Inst) -> Step {
    match attempt(context, what, inst) {
        Ok(step) => step,
        Err(trap) => {
            let pc = context.hart.pc;
            context.raise(trap, pc);
            Step::Raised
        }
    }
}

fn attempt(context: &mut ExecContext, what: System, inst: &Inst) -> Result<Step, Trap> {
    let encoding = || isa::encode(inst).map_or(0, u64::from);
    let pc = context.hart.pc;
    match what {
        System::Illegal => {
            return Err(Trap::illegal(inst.imm as u64 & if inst.len == 2 { 0xffff } else { 0xffff_ffff }));
        }
        System::Ebreak => return Err(Trap { cause: cause::BREAKPOINT, tval: pc }),
        System::Ecall if context.calls_sbi() => return Ok(call_sbi(context)),
        System::Ecall => return Err(context.hart.ecall()),
        System::Mret | System::Sret => {
            if what == System::Mret { context.hart.mret() } else { context.hart.sret() }?;
            context.hart.retired += 1;
            context.translation_changed();
            context.take_interrupt();
            return Ok(Step::Next);
        }
        System::Wfi => {
            context.hart.check_wfi()?;
            advance(context, inst);
            context.hart.waiting = true;
            return Ok(Step::Exit(Exit::Wait));
        }
        System::FenceVma => {
            context.hart.check_sfence(encoding())?;
            let operand = |register: u8| (register != 0).then(|| context.hart.x[usize::from(register & 31)]);
            let (va, asid) = (operand(inst.rs1), operand(inst.rs2));
            std::sync::atomic::fence(Ordering::SeqCst);
            context.memory.fence(va, asid);
        }
        System::FenceOrder => context.hart.check_sfence_order(encoding())?,
        System::FenceI => {
            std::sync::atomic::fence(Ordering::SeqCst);
            context.memory.instructions_changed();
            context.counters().fence_i.bump(1);
        }
        System::Csr => return csr(context, inst),
    }
    advance(context, inst);
    Ok(Step::Next)
}

fn advance(context: &mut ExecContext, inst: &Inst) {
    context.hart.pc = context.hart.pc.wrapping_add(inst.len.into());
    context.hart.retired += 1;
}

fn csr(context: &mut ExecContext, inst: &Inst) -> Result<Step, Trap> {
    let (hart, env) = context.parts();
    let effects = hart.csr_instruction(inst, &env)?;
    advance(context, inst);
    if effects.is_empty() {
        return Ok(Step::Next);
    }
    if effects.contains(CsrEffects::TRANSLATION) {
        if protection_changed(inst) {
            context.protection_changed();
        } else {
            context.translation_changed();
        }
    }
    if effects.contains(CsrEffects::INTERRUPTS) || effects.contains(CsrEffects::TIMER) {
        context.take_interrupt();
    }
    Ok(if effects.contains(CsrEffects::TIMER) { Step::Exit(Exit::Timer) } else { Step::Next })
}

/// PMP and menvcfg are no part of what tells cached translations apart: a change drops all of them. satp and
/// mstatus are, and drop nothing.
fn protection_changed(inst: &Inst) -> bool {
    use crate::isa::csr::{MSTATUS, SATP, SSTATUS};
    !matches!(u16::try_from(inst.imm), Ok(SATP | MSTATUS | SSTATUS))
}

/// Serves an `ecall` of S-mode.
fn call_sbi(context: &mut ExecContext) -> Step {
    context.tell_time();
    let ram = context.memory.ram().clone();
    let outcome = {
        let ExecContext { hart, memory, vm } = context;
        let me = hart.index;
        let mut engine = Ports { memory, vm, me };
        sbi::handle(hart, &mut SharedHost { vm, ram: &ram, me, engine: &mut engine })
    };
    if outcome == SbiOutcome::Again {
        return Step::Exit(Exit::Interrupted);
    }
    context.hart.retired += 1;
    context.counters().sbi_calls.bump(1);
    match outcome {
        SbiOutcome::Continue | SbiOutcome::Again => {}
        SbiOutcome::ContinueWithFence { sfence, fencei } => {
            if sfence {
                context.memory.fence(None, None);
            }
            if fencei {
                context.memory.instructions_changed();
            }
        }
        SbiOutcome::Wait => {
            context.hart.waiting = true;
            return Step::Exit(Exit::Wait);
        }
        SbiOutcome::Stopped | SbiOutcome::Reset => return Step::Exit(Exit::Stopped),
    }
    // The call may have set the timer; the engine's caller looks at it and at interrupts.
    Step::Exit(Exit::Timer)
}

/// What the SBI needs of this hart's engine.
struct Ports<'a> {
    memory: &'a mut Memory,
    vm: &'a Vm,
    me: u8,
}

impl EnginePorts for Ports<'_> {
    fn serve_while_waiting(&mut self) -> bool {
        serve_fences(self.memory, &self.vm.hart_control[usize::from(self.me)]);
        let party = self.vm.party(PartyId::Hart(self.me));
        self.vm.pause_mask.load(Ordering::SeqCst) == 0
            && party.attention.load(Ordering::SeqCst) & attention::STOP == 0
    }

    fn uart_write(&mut self, byte: u8) {
        self.memory.uart_write(byte);
    }

    fn uart_read(&mut self) -> Option<u8> {
        self.memory.uart_read()
    }
}

/// Serves the remote fences that were asked of this hart.
pub(crate) fn serve_fences(memory: &mut Memory, control: &HartControl) {
    let sfence = control.sfence_asked.load(Ordering::SeqCst);
    if sfence != control.sfence_done.load(Ordering::SeqCst) {
        memory.fence(None, None);
        control.sfence_done.store(sfence, Ordering::SeqCst);
    }
    let fencei = control.fencei_asked.load(Ordering::SeqCst);
    if fencei != control.fencei_done.load(Ordering::SeqCst) {
        memory.instructions_changed();
        control.fencei_done.store(fencei, Ordering::SeqCst);
    }
}
