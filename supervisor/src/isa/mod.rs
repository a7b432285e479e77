//! Bare programs without a daemon: `quasar isa run` and `quasar isa dis`.
//!
//! The machine is the daemon's own; what differs is that every hart starts in M-mode at the program's entry,
//! and that the host-target interface ([`htif`]) takes the place of firmware. A kernel can be run in the same way,
//! with no devices but the built-in ones, to compare its runs.

mod htif;
mod run;
mod signature;

pub use htif::{HtifCommand, answer as answer_htif};
pub use run::{Ending, IsaError, Kernel, Options, disassemble, run};
pub use signature::{SignatureError, format_signature};
