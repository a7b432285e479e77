//! The portable engine: interprets pre-decoded blocks.

use super::exec::{Flow, execute};
use super::system::{self, Step};
use super::{Engine, Exit};
use crate::blocks::BlockCache;
use crate::context::ExecContext;
use crate::isa::Inst;
use crate::mem::Cause;
use quasar_abi::party::PartyId;
use std::sync::atomic::Ordering;

/// The interpreter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interpreter;

impl Engine for Interpreter {
    fn run(&mut self, context: &mut ExecContext, blocks: &mut BlockCache, mut stop_at: u64) -> Exit {
        let vm = context.vm.clone();
        let attention = &vm.party(PartyId::Hart(context.hart.index)).attention;
        loop {
            if attention.load(Ordering::Relaxed) != 0 {
                return Exit::Attention;
            }
            let left = stop_at.saturating_sub(context.hart.retired);
            if left == 0 {
                return Exit::Limit;
            }
            let pc = context.hart.pc;
            let Ok(span) = blocks.find(context) else {
                if context.fault(pc) {
                    stop_at -= 1;
                    continue;
                }
                return Exit::Interrupted;
            };
            let mut block = blocks.instructions(span);
            if block.len() as u64 > left {
                block = &block[..left as usize];
            }
            match execute(context, block) {
                Flow::Next => {}
                Flow::System(at, what, inst) => {
                    count_up_to(context, block, pc, at);
                    context.hart.pc = at;
                    match system::execute(context, what, &inst) {
                        Step::Next => {}
                        Step::Raised => stop_at -= 1,
                        Step::Exit(exit) => return exit,
                    }
                }
                Flow::Fault(at) => {
                    let done = count_up_to(context, block, pc, at);
                    if context.memory.fault() == Cause::Alone && execute_alone(context, &block[done..], at) {
                        continue;
                    }
                    if !context.fault(at) {
                        return Exit::Interrupted;
                    }
                    stop_at -= 1;
                }
            }
        }
    }
}

/// Executes the first of these instructions, which lies at `at` and speaks to other processes, with nothing beside
/// it: whatever comes of it, an interrupt for one, is looked at before the next instruction. Returns whether it is
/// done; if not, memory says why.
#[cold]
fn execute_alone(context: &mut ExecContext, instructions: &[Inst], at: u64) -> bool {
    context.hart.pc = at;
    context.tell_time();
    context.memory.set_alone(true);
    let flow = execute(context, &instructions[..1]);
    context.memory.set_alone(false);
    matches!(flow, Flow::Next)
}

/// Counts the block's instructions before the one at `at` as retired; returns how many they are.
fn count_up_to(context: &mut ExecContext, block: &[Inst], start: u64, at: u64) -> usize {
    let mut pc = start;
    let mut count = 0;
    for inst in block {
        if pc == at {
            break;
        }
        pc = pc.wrapping_add(inst.len.into());
        count += 1;
    }
    context.hart.retired += count as u64;
    count
}
