//! One register access of a hart, as a device sees it.

/// Which request of which hart an access belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The hart.
    pub hart: u8,
    /// The mailbox's sequence number ([`quasar_abi::mailbox::Mailbox::posted`]).
    pub posted: u32,
}

/// One load or store of a device register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Offset in the device's region.
    pub offset: u64,
    /// Bytes: 1, 2, 4 or 8.
    pub len: u32,
    /// The value to store, zero-extended; nothing for a load.
    pub store: Option<u64>,
    /// Whose it is.
    pub tag: Tag,
}

impl Access {
    /// Whether the access has this size and is aligned to it.
    #[must_use]
    pub fn is(&self, len: u32) -> bool {
        self.len == len && self.offset.is_multiple_of(u64::from(len))
    }

    /// The low 32 bits of the value to store, if it is a store.
    #[must_use]
    pub fn store32(&self) -> Option<u32> {
        self.store.map(low32)
    }
}

/// The low half of a register value.
#[must_use]
pub fn low32(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// `old` with its low or high half replaced.
#[must_use]
pub fn with_half(old: u64, high: bool, half: u32) -> u64 {
    if high { u64::from(half) << 32 | u64::from(low32(old)) } else { old & !0xffff_ffff | u64::from(half) }
}

/// The low or high half of `value`.
#[must_use]
pub fn half(value: u64, high: bool) -> u32 {
    low32(if high { value >> 32 } else { value })
}
