//! The supervisor: command line, per-host daemon and its API, launching and watching of the VM processes.
pub mod image;
