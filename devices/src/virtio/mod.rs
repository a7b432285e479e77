//! Virtio over MMIO (virtio 1.3, 4.2.2): transport, split virtqueues, and the devices on them.
//!
//! Each device folder has `mod.rs` (the device and its queues) and, where it has such a thing, `state.rs` (what
//! it keeps beside the transport's), `config.rs` (features and configuration space) and `worker.rs` (its thread).

pub mod block;
pub mod card;
pub mod console;
pub mod device;
pub mod input;
pub mod net;
pub mod queue;
pub mod rng;
pub mod shared;
pub mod transport;

pub use card::VirtioCard;
pub use transport::registers::empty_slot;
