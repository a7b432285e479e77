//! Making a virtual machine: its segments, its memory's first content, its harts' first state.
//!
//! What a machine is says [`quasar_api::MachineConfig`]; [`segments`] makes its shared memory, [`image`] and [`elf`] load
//! programs, [`fdt`] describes the machine to the guest, [`harts`] sets the harts up, and [`boot`] does all of
//! that in order: once when a VM starts and again when its guest reboots. [`Machine::hash`] tells two machines at rest
//! apart.

pub mod boot;
pub mod cmdline;
mod copy;
pub mod elf;
mod error;
pub mod fdt;
pub mod formats;
pub mod grants;
pub mod harts;
mod hash;
pub mod image;
pub mod room;
pub mod segments;
mod source;
mod unpack;

pub use copy::CopyError;
pub use error::BootError;
pub use hash::MachineHash;
pub use segments::Machine;
pub use source::Source;
