//! The transport that all virtio devices share: registers, feature negotiation, status, queue set-up.

pub mod registers;
pub mod state;

/// `VIRTIO_F_INDIRECT_DESC`.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`: not optional here.
pub const F_VERSION_1: u64 = 1 << 32;
/// What the transport offers for every device.
pub const FEATURES: u64 = F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1;

/// Bits of the status register (virtio 1.3, 2.1).
pub mod status {
    /// The guest has found a device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// It has a driver for it.
    pub const DRIVER: u32 = 2;
    /// The driver works.
    pub const DRIVER_OK: u32 = 4;
    /// The features are agreed.
    pub const FEATURES_OK: u32 = 8;
    /// The device cannot go on without a reset.
    pub const NEEDS_RESET: u32 = 64;
    /// The driver has given up.
    pub const FAILED: u32 = 128;
    /// Every bit there is.
    pub const ALL: u32 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | NEEDS_RESET | FAILED;
}

/// Bits of the interrupt status register.
pub mod interrupt {
    /// A buffer was used.
    pub const USED: u32 = 1;
    /// The configuration changed, or the device needs a reset.
    pub const CONFIG: u32 = 2;
}
