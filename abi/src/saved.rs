//! Saved device state: one slot per device, whole at every moment.
//!
//! A device keeps its state as a plain little-endian structure (`zerocopy`), works on its own copy, and
//! publishes it after each step that another party could have seen. Two copies and a selector: whoever
//! reads (a restarted devices process, the migrator) finds the latest whole one. The bytes are the format
//! that migrates: the name and version belong to the payload's header.

use crate::le::{AtomicLe32, AtomicLe64};
use crate::shm_struct;
use std::sync::atomic::Ordering;

/// Slots in the segment.
pub const DEVICE_SLOTS: usize = 32;
/// Bytes of state a device may have.
pub const STATE_BYTES: usize = 16 * 1024;

shm_struct! {
    /// One device's slot. Written by the devices process; by others only while it is parked or absent.
    pub struct DeviceSlot: 33_024 => {
        /// The device's name, UTF-8, zero-padded ("plic", "uart", "virtio0.blk", …); empty when unused.
        pub name: [AtomicLe64; 4],
        /// Version of the state's layout.
        pub version: AtomicLe32,
        /// Valid bytes of the selected copy.
        pub len: [AtomicLe32; 2],
        /// Which copy is valid.
        pub selector: AtomicLe32,
        /// Zero.
        pub reserved: [AtomicLe64; 26],
        /// The copies.
        pub copies: [[AtomicLe64; STATE_BYTES / 8]; 2],
    }
}

/// Payload bytes of the segment.
pub const DEVICES_SEGMENT_BYTES: usize = size_of::<DeviceSlot>() * DEVICE_SLOTS;

/// A slot's content in no byte order but little-endian.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SavedDevice {
    /// The device's name.
    pub name: String,
    /// Version of the layout of `bytes`.
    pub version: u32,
    /// The state.
    pub bytes: Vec<u8>,
}

/// A state that does not fit its slot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the state of {name} has {len} bytes; a slot holds {STATE_BYTES}, a name 32 bytes")]
pub struct TooLarge {
    /// The device.
    pub name: String,
    /// Its size.
    pub len: usize,
}

impl DeviceSlot {
    /// Publishes a state.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn publish(&self, name: &str, version: u32, bytes: &[u8]) -> Result<(), TooLarge> {
        let too_large = || TooLarge { name: name.to_owned(), len: bytes.len() };
        let len = u32::try_from(bytes.len()).map_err(|_| too_large())?;
        if bytes.len() > STATE_BYTES || name.len() > 32 {
            return Err(too_large());
        }
        let mut padded = [0; 32];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        for (cell, word) in self.name.iter().zip(padded.as_chunks::<8>().0) {
            cell.set(u64::from_le_bytes(*word));
        }
        self.version.set(version);
        let next = usize::from(self.selector.get() & 1 == 0);
        for (cell, chunk) in self.copies[next].iter().zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            cell.set(u64::from_le_bytes(word));
        }
        self.len[next].set(len);
        self.selector.store(u32::from(next != 0), Ordering::Release);
        Ok(())
    }

    /// The published state, or nothing when the slot is unused. Untrusted: whoever uses the bytes validates them.
    #[must_use]
    pub fn load(&self) -> Option<SavedDevice> {
        let copy = usize::from(self.selector.load(Ordering::Acquire) & 1 != 0);
        let name: Vec<u8> =
            self.name.iter().flat_map(|w| w.get().to_le_bytes()).take_while(|b| *b != 0).collect();
        if name.is_empty() {
            return None;
        }
        let len = usize::try_from(self.len[copy].get()).unwrap_or(usize::MAX).min(STATE_BYTES);
        let mut bytes: Vec<u8> =
            self.copies[copy].iter().take(len.div_ceil(8)).flat_map(|w| w.get().to_le_bytes()).collect();
        bytes.truncate(len);
        Some(SavedDevice {
            name: String::from_utf8_lossy(&name).into_owned(),
            version: self.version.get(),
            bytes,
        })
    }

    /// Empties the slot.
    pub fn clear(&self) {
        for cell in &self.name {
            cell.set(0);
        }
        self.len[0].set(0);
        self.len[1].set(0);
    }
}
