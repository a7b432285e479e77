//! What can go wrong with the devices of a VM.

use quasar_abi::SegmentError;
use quasar_abi::saved::TooLarge;
use std::path::PathBuf;

/// Why the devices could not be made, attached or commanded.
#[derive(Debug, thiserror::Error)]
pub enum DevicesError {
    /// A segment of the VM could not be attached.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A saved state is not one of this device.
    #[error(transparent)]
    State(#[from] BadState),
    /// A state does not fit its slot.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// More devices than slots.
    #[error("the machine has {slots} virtio slots; {devices} devices were configured: remove some")]
    TooManyDevices {
        /// Devices configured.
        devices: usize,
        /// Slots there are.
        slots: usize,
    },
    /// A disk's file cannot be used.
    #[error("disk {path}: {what}: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A disk's file is in use.
    #[error(
        "disk {path} is in use by another VM, or by QEMU{hint}; stop that one, or give each its own copy",
        hint = if *.read_only { " that may write to it" } else { "" }
    )]
    DiskInUse {
        /// The file.
        path: PathBuf,
        /// Whether this VM wanted to read only.
        read_only: bool,
    },
    /// A value of the configuration cannot be used.
    #[error("{device}: {what}")]
    Config {
        /// The device.
        device: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// A thread or file could not be had.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The guest does not listen to the power key.
    #[error(
        "the guest has no driver on its power key (yet); stop it with force, or wait until it has booted"
    )]
    NobodyListens,
    /// The VM has no power key.
    #[error("the VM has no power key; configure one, or stop the VM with force")]
    NoPowerKey,
    /// The server has ended.
    #[error("the devices have ended")]
    Ended,
}

/// Saved bytes that are no state of the device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadState {
    /// The slot belongs to another device or version.
    #[error(
        "the saved state of {found} (version {found_version}) lies where {expected} (version {version}) is expected"
    )]
    Foreign {
        /// Name found.
        found: String,
        /// Version found.
        found_version: u32,
        /// Name expected.
        expected: String,
        /// Version expected.
        version: u32,
    },
    /// Wrong number of bytes.
    #[error("a saved {device} has {expected} bytes, not {found}")]
    Length {
        /// The device.
        device: &'static str,
        /// Bytes found.
        found: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// A field holds what the device never holds.
    #[error("a saved {device} has {field} = {value:#x}, which it never has")]
    Field {
        /// The device.
        device: &'static str,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}
