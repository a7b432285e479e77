//! One hart of the guest: decode, execute, traps, control and status registers, built-in SBI.
//!
//! `unsafe` is in `mem/l1.rs` alone.
#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod blocks;
pub mod context;
pub mod csr;
pub mod engine;
pub mod fp;
pub mod hart;
pub mod isa;
pub mod listing;
pub mod mem;
mod privilege;
pub mod run;
pub mod sbi;
pub mod trap;
