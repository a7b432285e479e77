//! Child processes: starting them so that they never outlive us, hearing them, ending them.
//!
//! Whoever owns a [`Process`] never waits on it: a thread per child reads what it says and how it ends and
//! hands that on as [`Note`]s. What to do about one is decided
//! without processes: [`seat`] is the machine of one place, [`policy`] says what a death means, [`watch`] when one that
//! lives is taken for dead.

mod ending;
pub mod exec;
mod launcher;
mod logs;
mod oom;
pub mod policy;
mod process;
mod questions;
pub mod seat;
mod spawn;
#[cfg(test)]
pub mod standin;
pub mod trouble;
pub mod watch;

pub use ending::describe;
pub use launcher::{BuildError, Launcher};
pub use logs::{CappedLog, cap_own};
pub use process::{Note, Process, Reach, SendError};
pub use questions::Questions;
pub use spawn::{PidFd, spawn_bound, survive_file_limits};
