//! Whole journeys between two VMs of this process: real segments, a real TCP connection, and a writer that keeps the rules
//! of the dirty log.

#![forbid(unsafe_code)]

mod files;
mod frames;
mod goldens;
mod guest;
mod journeys;
mod trouble;
mod wire;
