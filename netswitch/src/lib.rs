//! The host's Ethernet switch.
//!
//! Frames come in at ports (a VM's card over shared memory, a TAP interface, a stream socket) and leave
//! by what the network's address table says. [`table`] and [`ethernet`] are plain functions and tables;
//! [`switch`] joins them to ports; [`port`] has one file per kind of port. `unsafe` is in [`port::tap`] alone.

pub mod ethernet;
pub mod port;
pub mod serve;
pub mod switch;
pub mod table;
