//! Harts and the devices process: a mailbox per hart for register accesses.

use crate::le::{AtomicLe32, AtomicLe64};
use crate::mailbox::Mailbox;
use crate::shm_struct;

shm_struct! {
    /// A hart's request to the devices process: one load or store of a device register.
    pub struct MmioMailbox: 64 => {
        /// Sequence.
        pub mailbox: Mailbox,
        /// Request: guest-physical address.
        pub gpa: AtomicLe64,
        /// Request: bytes (1, 2, 4 or 8).
        pub len: AtomicLe32,
        /// Request: non-zero for a store.
        pub store: AtomicLe32,
        /// Request: value to store, zero-extended. Reply: value loaded, zero-extended.
        pub value: AtomicLe64,
        /// Reply: 0 done, 1 nothing answers at this address with this size (access fault).
        pub status: AtomicLe64,
        /// Zero.
        pub reserved: [AtomicLe64; 2],
    }
}
