//! The contract between Quasar's processes.
//!
//! Everything two processes share is defined here and nowhere else: the segments and their layouts,
//! doorbells and mailboxes, the hart's saved state, the translation cache, the dirty and residency maps,
//! consoles, packet rings, and the control messages. All shared integers are little-endian with fixed
//! widths, so that a process built for another host architecture attaches to the same segments.
//!
//! `unsafe` lives in [`le`], [`futex`], [`segment`], [`ram`] and [`control::channel`]; everything else is
//! built on those.

pub mod clock;
pub mod console;
pub mod control;
pub mod dirty;
pub mod doorbell;
pub mod frames;
pub mod futex;
pub mod hart;
pub mod hash;
pub mod le;
pub mod machine;
pub mod mailbox;
pub mod party;
pub mod ram;
pub mod saved;
pub mod segment;
pub mod tlb;
pub mod vm;

pub use le::{AtomicLe32, AtomicLe64, ShmLayout};
pub use ram::{Gpa, GuestRam};
pub use segment::{Segment, SegmentError, SegmentKind};
