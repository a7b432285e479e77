//! Moving a VM: staged migration to another host, suspend to a file and resume from it.
//!
//! One stream format ([`frame`], [`message`]) serves the wire and the file. [`source`] and [`destination`]
//! are the two roles on the wire, each a straight list of phases; [`suspend`] and [`resume`] are the same
//! roles with a file in the place of the peer. What decides, encodes or hashes is plain code apart from
//! connections and shared memory: [`convergence`], [`pages`], [`quasar_abi::hash`], [`state`].
#![forbid(unsafe_code)]

pub mod connection;
pub mod convergence;
pub mod delta;
pub mod destination;
pub mod frame;
pub mod lanes;
pub mod message;
pub mod pages;
pub mod pump;
pub mod resume;
pub mod serve;
pub mod source;
pub mod state;
pub mod store;
pub mod suspend;
pub mod target;
pub mod tls;
