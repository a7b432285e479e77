//! Whole journeys between two VMs of this process over a real TCP connection.
#![forbid(unsafe_code)]

mod file;
mod guest;
mod lanes;
mod meddle;
mod stranger;
mod trouble;
mod whole;
mod wire;
