//! A VM's devices: interrupt controller, timers, UART, clock, finisher and virtio cards.
//!
//! Each device is a pure state machine over a little-endian structure (`state.rs`, `registers.rs`), wrapped
//! by a few lines that hold its host resources. [`server::Server`] answers register accesses that harts post
//! in shared memory and is the only thread that decides about pauses and epochs; block devices and network
//! cards have one worker each, which [`gate::WorkerGate`] brings to rest.

#![forbid(unsafe_code)]

pub mod access;
pub mod aclint;
pub mod board;
pub mod console;
pub mod dma;
pub mod error;
pub mod gate;
pub mod host;
pub mod plic;
pub mod rtc;
pub mod saved;
pub mod server;
mod service;
pub mod syscon;
pub mod uart;
pub mod virtio;

pub use error::DevicesError;
pub use server::{Server, ServerHandle};
pub use service::DevicesService;
