//! Engines: what executes a hart's instructions. All share the decoder, the decoded blocks, [`ExecContext`] and what
//! an instruction does to privilege, traps and translation ([`system`]).
//!
//! An engine names every operation of the one list (`isa/list.rs`): a match over [`crate::isa::Op`] without a
//! wildcard, which the lint below refuses. So an instruction that was added to the list and not to an engine does not
//! compile, and no guest can come to one that is missing.

#![deny(clippy::wildcard_enum_match_arm)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "registers are bits; narrowing and changing sign are what the instructions say"
)]

mod amo;
mod bits;
mod exec;
mod float;
mod int;
mod interpreter;
mod system;

pub use interpreter::Interpreter;
pub(crate) use system::serve_fences;

use crate::blocks::BlockCache;
use crate::context::ExecContext;

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
pub trait Engine: std::fmt::Debug + Send {
    /// Runs until something calls for attention, or until `hart.retired` has reached `stop_at`: exactly, except
    /// that it stops one instruction earlier for each exception taken. An instruction that only ever traps
    /// never retires, and a handler that traps in turn must not keep the engine for ever.
    fn run(&mut self, context: &mut ExecContext, blocks: &mut BlockCache, stop_at: u64) -> Exit;
}

/// The engine of harts that are not told which.
pub const DEFAULT: &str = "interpreter";

/// An engine by its name.
type Known = (&'static str, fn() -> Box<dyn Engine>);

/// The engines there are.
const ENGINES: &[Known] = &[(DEFAULT, || Box::new(Interpreter))];

/// No engine has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no engine {name:?}; this build has {}", names().collect::<Vec<_>>().join(", "))]
pub struct UnknownEngine {
    /// What was asked for.
    pub name: String,
}

/// The engines' names.
pub fn names() -> impl Iterator<Item = &'static str> {
    ENGINES.iter().map(|(name, _)| *name)
}

/// The engine `name`.
///
/// # Errors
/// [`UnknownEngine`] says which there are.
pub fn by_name(name: &str) -> Result<Box<dyn Engine>, UnknownEngine> {
    let known = ENGINES.iter().find(|(known, _)| *known == name);
    known.map(|(_, make)| make()).ok_or_else(|| UnknownEngine { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_found_by_name_and_others_refused_with_the_list() {
        assert!(names().all(|name| by_name(name).is_ok()) && names().any(|name| name == DEFAULT));
        for name in ["", "Interpreter", "interpreter ", "jit"] {
            let error = by_name(name).expect_err("no such engine");
            assert_eq!(error.to_string(), format!("there is no engine {name:?}; this build has interpreter"));
        }
    }
}
