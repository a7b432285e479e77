//! A VM's memory management unit: page walks, protection, dirtiness, residency.
//!
//! Harts look into their translation caches in shared memory ([`quasar_abi::tlb`]) themselves. What they
//! don't find there they ask for through their mailbox; [`server`] answers, [`fill`] decides and puts the
//! answer and its neighbours into the cache, [`walk`] reads page tables and [`pmp`] the physical memory
//! protection. The last two are plain functions that know nothing of processes.

#![forbid(unsafe_code)]

pub mod fill;
pub mod pmp;
pub mod request;
pub mod server;
mod service;
pub mod tables;
pub mod walk;

pub use server::{AttachError, Server};
pub use service::MmuService;
