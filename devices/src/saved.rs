//! A device's slot in the saved-state segment: the way out and the only way in.
//!
//! Before the state lies the reply to the last register access that changed it. State and reply are published
//! in one step, so that an access whose answer was lost with a killed process is answered from here and never
//! done twice (reading a claim register or a receive buffer is not repeatable).

use crate::access::Tag;
use crate::error::{BadState, DevicesError};
use quasar_abi::Segment;
use quasar_abi::saved::{DEVICE_SLOTS, DeviceSlot};
use std::sync::Arc;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What each device's index in the segment is. Part of the saved format.
pub mod index {
    /// Interrupt controller.
    pub const PLIC: usize = 0;
    /// Timers and software interrupts.
    pub const ACLINT: usize = 1;
    /// Serial port.
    pub const UART: usize = 2;
    /// Real-time clock.
    pub const RTC: usize = 3;
    /// Virtio slot 0; slot n has n more.
    pub const VIRTIO: usize = 8;
}

/// The reply to the last access that changed the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Served {
    /// The hart plus one; zero for none.
    hart_plus_one: U32,
    posted: U32,
    value: U64,
}

/// A device's slot. Every device owns one and publishes through it.
#[derive(Debug)]
pub struct Slot {
    segment: Arc<Segment>,
    index: usize,
    name: String,
    version: u32,
    served: Served,
    last: Vec<u8>,
}

impl Slot {
    /// The slot at `index` for the device `name`, whose state has layout `version`.
    #[must_use]
    pub fn new(segment: &Arc<Segment>, index: usize, name: impl Into<String>, version: u32) -> Self {
        let name = name.into();
        Self { segment: Arc::clone(segment), index, name, version, served: Served::default(), last: vec![] }
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn cell(&self) -> Result<&DeviceSlot, DevicesError> {
        Ok(&self.segment.slice::<DeviceSlot>(0, DEVICE_SLOTS)?[self.index])
    }

    /// The saved bytes, unless the slot is unused.
    ///
    /// # Errors
    /// [`BadState::Foreign`] when another device or version lies there.
    pub fn load_bytes(&mut self) -> Result<Option<Vec<u8>>, DevicesError> {
        let Some(saved) = self.cell()?.load() else { return Ok(None) };
        if saved.name != self.name || saved.version != self.version {
            return Err(BadState::Foreign {
                found: saved.name,
                found_version: saved.version,
                expected: self.name.clone(),
                version: self.version,
            }
            .into());
        }
        let Ok((served, state)) = Served::read_from_prefix(&saved.bytes) else {
            let expected = size_of::<Served>();
            return Err(BadState::Length { device: "state", found: saved.bytes.len(), expected }.into());
        };
        self.served = served;
        Ok(Some(state.to_vec()))
    }

    /// The saved state, unless the slot is unused.
    ///
    /// # Errors
    /// [`BadState`] when the bytes are no state of this device.
    pub fn load<S>(&mut self) -> Result<Option<S>, DevicesError>
    where
        S: for<'a> TryFrom<&'a [u8], Error = BadState>,
    {
        Ok(self.load_bytes()?.map(|bytes| S::try_from(bytes.as_slice())).transpose()?)
    }

    /// Whether somebody else has put another state into the slot since this device published last: the owner
    /// of a parked VM, who restores one.
    #[must_use]
    pub fn was_replaced(&self) -> bool {
        let state = self.cell().ok().and_then(DeviceSlot::load).map(|saved| saved.bytes);
        state.is_none_or(|bytes| bytes.get(size_of::<Served>()..) != Some(&self.last))
    }

    /// The state that somebody else has put into the slot; power-on state when it was emptied. No reply of
    /// another host's mailboxes is kept.
    ///
    /// # Errors
    /// [`BadState`] when the bytes are no state of this device.
    pub fn take_up<S>(&mut self) -> Result<S, DevicesError>
    where
        S: for<'a> TryFrom<&'a [u8], Error = BadState> + Default,
    {
        let state = self.load()?.unwrap_or_default();
        self.forget_reply();
        self.last.clear();
        Ok(state)
    }

    /// The reply that was published for this access, if it is the last one that changed the state.
    #[must_use]
    pub fn reply_to(&self, tag: Tag) -> Option<u64> {
        let same = self.served.hart_plus_one.get() == u32::from(tag.hart) + 1
            && self.served.posted.get() == tag.posted;
        same.then(|| self.served.value.get())
    }

    /// Forgets the reply: whoever asked has it, or never asked on this host.
    pub fn forget_reply(&mut self) {
        self.served = Served::default();
    }

    /// Says which access the next published change of state belongs to.
    pub fn note(&mut self, tag: Tag, value: u64) {
        self.served = Served {
            hart_plus_one: (u32::from(tag.hart) + 1).into(),
            posted: tag.posted.into(),
            value: value.into(),
        };
    }

    /// Publishes the state if it changed.
    ///
    /// An access that changes nothing leaves no reply behind: from the same state it gives the same again.
    pub fn publish(&mut self, state: &[u8]) {
        if self.last == state {
            return;
        }
        self.last.clear();
        self.last.extend_from_slice(state);
        let mut bytes = Vec::with_capacity(size_of::<Served>() + state.len());
        bytes.extend_from_slice(self.served.as_bytes());
        bytes.extend_from_slice(state);
        // The sizes are constants of the devices, far below a slot's; tests publish every device.
        if let Err(error) = self.cell().and_then(|cell| Ok(cell.publish(&self.name, self.version, &bytes)?)) {
            log::error!("{}: {error}", self.name);
        }
    }
}

/// A device's own state from saved bytes: the size is all there is to check.
pub(crate) fn plain_state<S: FromBytes>(device: &'static str, bytes: &[u8]) -> Result<S, BadState> {
    let wrong = |_| BadState::Length { device, found: bytes.len(), expected: size_of::<S>() };
    S::read_from_bytes(bytes).map_err(|_| wrong(()))
}

/// Implements the only way from saved bytes to a state: the size, then the device's own check.
macro_rules! checked_state {
    ($state:ty, $device:literal) => {
        impl TryFrom<&[u8]> for $state {
            type Error = $crate::error::BadState;
            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                let state = <$state as zerocopy::FromBytes>::read_from_bytes(bytes).map_err(|_| {
                    $crate::error::BadState::Length {
                        device: $device,
                        found: bytes.len(),
                        expected: size_of::<$state>(),
                    }
                })?;
                state.check().map_err(|(field, value)| $crate::error::BadState::Field {
                    device: $device,
                    field,
                    value,
                })?;
                Ok(state)
            }
        }
    };
}
pub(crate) use checked_state;

/// What a state's check finds: a field's name and the value that it never has.
pub type Check = Result<(), (&'static str, u64)>;

/// `Ok` when `holds`.
pub(crate) fn require(holds: bool, field: &'static str, value: impl Into<u64>) -> Check {
    if holds { Ok(()) } else { Err((field, value.into())) }
}
