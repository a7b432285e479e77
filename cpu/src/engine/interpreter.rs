//! The portable engine: interprets pre-decoded blocks.

use super::cache::BlockCache;
use super::context::ExecContext;
use super::exec::{Flow, execute};
use super::system::{self, Step};
use super::{Engine, Exit};
use crate::isa::Inst;
use quasar_abi::party::PartyId;
use std::sync::atomic::Ordering;

/// The interpreter.
pub struct Interpreter {
    cache: BlockCache,
}

impl Default for Interpreter {
    fn default() -> Self {
        Self { cache: BlockCache::new() }
    }
}

impl std::fmt::Debug for Interpreter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interpreter").finish_non_exhaustive()
    }
}

impl Engine for Interpreter {
    fn run(&mut self, context: &mut ExecContext, mut stop_at: u64) -> Exit {
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
            let Ok(span) = self.cache.find(context) else {
                if context.fault(pc) {
                    stop_at -= 1;
                    continue;
                }
                return Exit::Interrupted;
            };
            let mut block = self.cache.instructions(span);
            if block.len() as u64 > left {
                block = &block[..left as usize];
            }
            match execute(context, block) {
                Flow::Next => {}
                Flow::System(at, inst) => {
                    count_up_to(context, block, pc, at);
                    context.hart.pc = at;
                    match system::execute(context, &inst) {
                        Step::Next => {}
                        Step::Raised => stop_at -= 1,
                        Step::Exit(exit) => return exit,
                    }
                }
                Flow::Fault(at) => {
                    count_up_to(context, block, pc, at);
                    if !context.fault(at) {
                        return Exit::Interrupted;
                    }
                    stop_at -= 1;
                }
            }
        }
    }
}

/// Counts the block's instructions before the one at `at` as retired.
fn count_up_to(context: &mut ExecContext, block: &[Inst], start: u64, at: u64) {
    let mut pc = start;
    for inst in block {
        if pc == at {
            break;
        }
        pc = pc.wrapping_add(inst.len.into());
        context.hart.retired += 1;
    }
}
