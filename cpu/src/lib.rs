//! One hart of the guest: decode, execute, traps, control and status registers, built-in SBI.
pub mod fp;
pub mod isa;
