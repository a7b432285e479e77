//! What the transport keeps.

use super::status;
use crate::saved::{Check, checked_state, require};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of [`TransportState`] and of the devices' states behind it.
///
/// 2: a console says how far its input was taken.
pub const VERSION: u32 = 2;
/// Queues a device may have.
pub const MAX_QUEUES: usize = 4;
/// Largest queue offered.
pub const MAX_QUEUE_SIZE: u16 = 256;

/// One virtqueue.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QueueState {
    /// Descriptor area.
    pub desc: U64,
    /// Driver area: the available ring.
    pub avail: U64,
    /// Device area: the used ring.
    pub used: U64,
    /// Entries; 0 until the driver has chosen.
    pub size: U16,
    /// Whether the queue is in use: 0 or 1.
    pub ready: U16,
    /// Buffers ever taken, modulo 2^16: taken means finished, since buffers are finished in order.
    pub next_avail: U16,
    /// Buffers ever returned, modulo 2^16.
    pub next_used: U16,
    /// `next_used` when an interrupt was last considered.
    pub signalled: U16,
    /// Zero.
    pub reserved: [U16; 3],
}

/// The transport's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TransportState {
    /// Features that the driver has accepted.
    pub driver_features: U64,
    /// Which word of the offered features is shown.
    pub device_features_sel: U32,
    /// Which word of the accepted features is written.
    pub driver_features_sel: U32,
    /// Which queue the queue registers mean.
    pub queue_sel: U32,
    /// [`super::status`].
    pub status: U32,
    /// [`super::interrupt`].
    pub interrupt: U32,
    /// Moves when the configuration space changes.
    pub config_generation: U32,
    /// The queues.
    pub queues: [QueueState; MAX_QUEUES],
}

impl TransportState {
    pub(crate) fn check(&self) -> Check {
        require(self.status.get() & !status::ALL == 0, "status", self.status.get())?;
        require(self.interrupt.get() & !3 == 0, "interrupt", self.interrupt.get())?;
        for queue in &self.queues {
            let size = queue.size.get();
            require(size == 0 || size.is_power_of_two() && size <= MAX_QUEUE_SIZE, "queue size", size)?;
            let ready = queue.ready.get();
            require(ready == 0 || ready == 1 && size != 0, "queue ready", ready)?;
        }
        Ok(())
    }
}

checked_state!(TransportState, "virtio transport");
