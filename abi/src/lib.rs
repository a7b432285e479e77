//! The contract between Quasar's processes.
//!
//! Everything two processes share is defined here and nowhere else: the segments and their layouts,
//! doorbells and mailboxes, the hart's saved state, the translation cache, the dirty and residency maps,
//! consoles, packet rings, and the control messages. All shared integers are little-endian with fixed
//! widths, so that a process built for another host architecture attaches to the same segments.
//!
//! The protocols are model-checked ([`sync`], docs/memory-ordering.md).
//!
//! `unsafe` lives in [`le`], [`segment`], [`ram`] and [`control::channel`]; everything else is
//! built on those.

pub mod address_plan;
pub mod clock;
pub mod console;
#[cfg(not(loom))]
pub mod control;
pub mod dirty;
pub mod doorbell;
#[cfg(not(loom))]
pub mod eintr;
#[cfg(not(loom))]
pub mod files;
pub mod frames;
#[cfg_attr(loom, path = "futex_model.rs")]
pub mod futex;
#[cfg(not(loom))]
pub mod grants;
pub mod hart;
pub mod hart_devices;
pub mod hart_mmu;
#[cfg(not(loom))]
pub mod hash;
pub mod le;
#[cfg(not(loom))]
pub mod logging;
pub mod machine;
pub mod mailbox;
pub mod os_path;
#[cfg(not(loom))]
pub mod output;
pub mod page;
pub mod party;
#[cfg(not(loom))]
pub mod ram;
#[cfg(not(loom))]
pub mod random;
#[cfg(not(loom))]
pub mod report;
#[cfg(not(loom))]
pub mod saved;
#[cfg_attr(loom, path = "segment_model.rs")]
pub mod segment;
#[cfg_attr(not(loom), doc(hidden))]
pub mod sync;
pub mod tlb;
pub mod vm;
pub mod words;

#[cfg(not(loom))]
pub use grants::Grant;
pub use le::{AtomicLe32, AtomicLe64, ShmLayout};
#[cfg(not(loom))]
pub use ram::{Gpa, GuestRam};
#[cfg(not(loom))]
pub use segment::SegmentKind;
pub use segment::{Segment, SegmentError, View};
