//! Engines: what executes a hart's instructions. All share the decoder, [`ExecContext`] and what an
//! instruction does to privilege, traps and translation ([`system`]).

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "registers are bits; narrowing and changing sign are what the instructions say"
)]

mod amo;
mod bits;
mod cache;
mod context;
mod exec;
mod float;
mod int;
mod interpreter;
mod system;

pub use context::{ExecContext, HartEnv};
pub use interpreter::Interpreter;
pub(crate) use system::serve_fences;

/// Why an engine stopped. The hart is at an instruction boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Attention bits are set.
    Attention,
    /// The given number of instructions has retired.
    Limit,
    /// WFI, or an SBI call that suspends: `hart.waiting` is set.
    Wait,
    /// The hart stopped itself (HSM); or asked for reset, which comes as a pause.
    Stopped,
    /// An access could not be finished because the hart is to park or end.
    Interrupted,
    /// The timer's deadline changed.
    Timer,
}

/// Executes a hart.
pub trait Engine {
    /// Runs until something calls for attention, or until `hart.retired` has reached `stop_at`: exactly, except
    /// that it stops one instruction earlier for each exception taken. An instruction that only ever traps
    /// never retires, and a handler that traps in turn must not keep the engine for ever.
    fn run(&mut self, context: &mut ExecContext, stop_at: u64) -> Exit;
}
