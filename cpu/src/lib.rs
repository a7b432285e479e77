//! One hart of the guest: decode, execute, traps, control and status registers, built-in SBI.
pub mod csr;
pub mod fp;
pub mod hart;
pub mod isa;
pub mod sbi;
pub mod trap;
