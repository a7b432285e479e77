//! The supervisor: per-host daemon and its API, launching and watching of the VM processes.
//!
//! [`machine`] makes a VM's memory and its harts' first state, [`children`] starts and watches processes,
//! [`vm`] runs one VM through its life, [`daemon`] serves the API for all VMs of a host, [`isa`] runs bare
//! programs without a daemon, [`relay`] carries published IPv6 ports. What people type is `supervisor/cli`, which knows
//! nothing of all this.

#![deny(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod children;
pub mod daemon;
pub mod errand;
pub mod isa;
pub mod machine;
pub mod relay;
pub mod signals;
pub mod vm;
