//! The host's Ethernet switch.
//!
//! Frames come in at ports (a VM's card over shared memory, a TAP interface, a stream socket) and leave
//! by what the network's address table says. [`table`], [`ethernet`] and [`announce`] are plain functions and tables;
//! [`network`] is a frame's way through them, [`gate`] and [`moves`] a VM's way to another host, [`switch`] all
//! networks of the host. [`service`] is what the switch itself answers: DHCP, DNS, the gateway's place. [`port`] has one
//! file per kind of port, [`link`] the connections to other hosts' switches.
//! `unsafe` is in [`port::tap`] alone.

pub mod announce;
pub mod ethernet;
pub mod gate;
pub mod link;
pub mod moves;
pub mod network;
pub mod port;
pub mod report;
pub mod serve;
pub mod service;
pub mod switch;
pub mod table;
