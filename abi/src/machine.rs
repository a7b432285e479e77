//! The guest's machine: its memory map and what a VM is configured with.
//!
//! Addresses are those of QEMU's `virt` machine, so that kernels and firmware built for it run.

use serde::{Deserialize, Serialize};

/// Syscon (SiFive test finisher): poweroff and reboot.
pub const SYSCON: Region = Region { base: 0x10_0000, len: 0x1000 };
/// Goldfish real-time clock.
pub const RTC: Region = Region { base: 0x10_1000, len: 0x1000 };
/// ACLINT in CLINT layout: MSIP, MTIMECMP, MTIME.
pub const ACLINT: Region = Region { base: 0x200_0000, len: 0x1_0000 };
/// Platform-level interrupt controller.
pub const PLIC: Region = Region { base: 0xc00_0000, len: 0x60_0000 };
/// 16550A UART.
pub const UART: Region = Region { base: 0x1000_0000, len: 0x100 };
/// virtio-mmio slots, [`VIRTIO_STRIDE`] bytes each.
pub const VIRTIO: Region = Region { base: 0x1000_1000, len: VIRTIO_STRIDE * VIRTIO_SLOTS as u64 };
/// Bytes per virtio-mmio slot.
pub const VIRTIO_STRIDE: u64 = 0x1000;
/// Number of virtio-mmio slots.
pub const VIRTIO_SLOTS: usize = 8;
/// Offset of `QueueNotify` in a slot (virtio 1.3, 4.2.2).
pub const VIRTIO_QUEUE_NOTIFY: u64 = 0x50;
/// First byte of RAM.
pub const RAM_BASE: u64 = 0x8000_0000;

/// PLIC source of virtio slot 0; slot n has n more.
pub const IRQ_VIRTIO: u32 = 1;
/// PLIC source of the UART.
pub const IRQ_UART: u32 = 10;
/// PLIC source of the real-time clock.
pub const IRQ_RTC: u32 = 11;
/// PLIC sources (`riscv,ndev`).
pub const PLIC_SOURCES: u32 = 95;
/// Ticks of `time` per second.
pub const TIMEBASE_HZ: u64 = 10_000_000;

/// A range of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub len: u64,
}

impl Region {
    /// The offset of `[gpa, gpa + len)` in the region when it lies wholly inside.
    #[inline]
    #[must_use]
    pub const fn offset(&self, gpa: u64, len: u64) -> Option<u64> {
        let offset = gpa.wrapping_sub(self.base);
        if offset < self.len && len <= self.len - offset { Some(offset) } else { None }
    }
}

/// What stands at a virtio-mmio slot.
#[cfg(not(loom))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VirtioDevice {
    /// Block device over a raw file (virtio 1.3, 5.2).
    Block {
        /// The file.
        #[serde(with = "crate::os_path")]
        path: std::path::PathBuf,
        /// Refuse writes.
        read_only: bool,
        /// What VIRTIO_BLK_T_GET_ID answers, 20 bytes at most.
        serial: String,
        /// The disk's dirty maps ([`crate::dirty::PageMaps`] with base 0), when its content is to
        /// travel with the VM.
        maps: Option<crate::Grant>,
        /// What becomes of a write for which the host has no room.
        on_enospc: OnEnospc,
    },
    /// Network card attached to a switch port (virtio 1.3, 5.1).
    Net {
        /// The port's packet rings ([`crate::frames`]).
        port: crate::Grant,
        /// Its address.
        mac: [u8; 6],
    },
    /// Console on [`crate::console::VIRTIO_CONSOLE`] (virtio 1.3, 5.3).
    Console,
    /// Entropy (virtio 1.3, 5.4).
    Rng,
    /// A key device with one key: power (virtio 1.3, 5.8). How a stock guest is asked to shut down.
    PowerButton,
}

/// What becomes of a guest's write for which the host has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnEnospc {
    /// The VM is paused ([`crate::vm::pause::DISK`]) until there is room; then the write is tried again.
    #[default]
    Pause,
    /// The guest is told of an I/O error.
    Error,
}
