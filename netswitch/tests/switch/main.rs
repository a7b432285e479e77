//! The switch as its supervisor uses it: cards over real segments, links over real connections.

#![forbid(unsafe_code)]

mod cards;
mod ends;
mod hosts;
mod links;
mod moves;
mod service;
mod strangers;
