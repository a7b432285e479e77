//! The transport's registers (virtio 1.3, 4.2.2), without any host.

use super::state::{QueueState, TransportState};
use super::{F_VERSION_1, interrupt, status};
use crate::access::{half, low32, with_half};

const MAGIC: u64 = 0x00;
const VERSION: u64 = 0x04;
const DEVICE_ID: u64 = 0x08;
const VENDOR_ID: u64 = 0x0c;
const DEVICE_FEATURES: u64 = 0x10;
const DEVICE_FEATURES_SEL: u64 = 0x14;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SEL: u64 = 0x24;
const QUEUE_SEL: u64 = 0x30;
const QUEUE_SIZE_MAX: u64 = 0x34;
const QUEUE_SIZE: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const QUEUE_NOTIFY: u64 = quasar_abi::machine::VIRTIO_QUEUE_NOTIFY;
const INTERRUPT_STATUS: u64 = 0x60;
const INTERRUPT_ACK: u64 = 0x64;
const STATUS: u64 = 0x70;
const QUEUE_DESC: u64 = 0x80;
const QUEUE_DRIVER: u64 = 0x90;
const QUEUE_DEVICE: u64 = 0xa0;
const SHM_LEN: u64 = 0xb0;
const SHM_BASE_HIGH: u64 = 0xbc;
const CONFIG_GENERATION: u64 = 0xfc;
/// Where the device's own configuration space begins.
pub const CONFIG: u64 = 0x100;

const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"virt");
const VENDOR: u32 = u32::from_le_bytes(*b"QSAR");

/// What a driver finds where no device stands: a transport with device id 0.
#[must_use]
pub fn empty_slot(offset: u64) -> u32 {
    match offset {
        MAGIC => MAGIC_VALUE,
        VERSION => 2,
        VENDOR_ID => VENDOR,
        _ => 0,
    }
}

/// What the device is, as far as the transport cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Virtio device id.
    pub id: u32,
    /// Features offered, the transport's included.
    pub features: u64,
    /// Largest size of each queue.
    pub queues: &'static [u16],
}

/// What the card has to do after a register was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Reset device and transport.
    Reset,
    /// The driver is ready: work may begin.
    DriverOk,
    /// Look at that queue.
    Notify(usize),
    /// Check the queue's addresses and sizes, and take it into use.
    Enable(usize),
    /// Stop using the queue.
    Disable(usize),
}

impl TransportState {
    /// Whether a status bit is set.
    #[must_use]
    pub fn has(&self, bit: u32) -> bool {
        self.status.get() & bit != 0
    }

    /// Whether the driver and the device both work.
    #[must_use]
    pub fn live(&self) -> bool {
        self.has(status::DRIVER_OK) && !self.has(status::NEEDS_RESET | status::FAILED)
    }

    /// Whether a feature was agreed upon.
    #[must_use]
    pub fn agreed(&self, feature: u64) -> bool {
        self.has(status::FEATURES_OK) && self.driver_features.get() & feature != 0
    }

    /// The device cannot go on (virtio 1.3, 2.1.2): its queues rest until the driver resets it.
    pub fn need_reset(&mut self) {
        self.status |= status::NEEDS_RESET;
        if self.has(status::DRIVER_OK) {
            self.interrupt |= interrupt::CONFIG;
        }
    }

    fn selected(&self, device: &Identity) -> Option<usize> {
        usize::try_from(self.queue_sel.get()).ok().filter(|queue| *queue < device.queues.len())
    }

    /// Reads a register below [`CONFIG`]; what is not there reads zero.
    #[must_use]
    pub fn read(&self, device: &Identity, offset: u64) -> u32 {
        let queue = self.selected(device);
        match offset {
            DEVICE_ID => device.id,
            DEVICE_FEATURES => match self.device_features_sel.get() {
                sel @ (0 | 1) => half(device.features, sel == 1),
                _ => 0,
            },
            QUEUE_SIZE_MAX => queue.map_or(0, |queue| device.queues[queue].into()),
            QUEUE_READY => queue.map_or(0, |queue| self.queues[queue].ready.get().into()),
            INTERRUPT_STATUS => self.interrupt.get(),
            STATUS => self.status.get(),
            // No shared-memory regions: each has length and base -1.
            SHM_LEN..=SHM_BASE_HIGH => u32::MAX,
            CONFIG_GENERATION => self.config_generation.get(),
            _ => empty_slot(offset),
        }
    }

    /// Writes a register below [`CONFIG`]; what is not there, or not now, is ignored.
    pub fn write(&mut self, device: &Identity, offset: u64, value: u32) -> Action {
        match offset {
            DEVICE_FEATURES_SEL => self.device_features_sel = value.into(),
            DRIVER_FEATURES_SEL => self.driver_features_sel = value.into(),
            DRIVER_FEATURES => self.accept(value),
            QUEUE_SEL => self.queue_sel = value.into(),
            QUEUE_NOTIFY => {
                // Without VIRTIO_F_NOTIFICATION_DATA the value is the queue.
                let queue = usize::try_from(value).unwrap_or(usize::MAX);
                return if queue < device.queues.len() { Action::Notify(queue) } else { Action::Nothing };
            }
            INTERRUPT_ACK => self.interrupt &= !value,
            STATUS => return self.set_status(device, value),
            _ => {
                if let Some(queue) = self.selected(device) {
                    return self.write_queue(queue, device.queues[queue], offset, value);
                }
            }
        }
        Action::Nothing
    }

    fn accept(&mut self, word: u32) {
        if !self.has(status::FEATURES_OK) && self.driver_features_sel.get() < 2 {
            let high = self.driver_features_sel.get() == 1;
            self.driver_features = with_half(self.driver_features.get(), high, word).into();
        }
    }

    fn set_status(&mut self, device: &Identity, value: u32) -> Action {
        if value == 0 {
            return Action::Reset;
        }
        // Bits are only ever set; NEEDS_RESET is the device's.
        let mut new = value & status::ALL & !status::NEEDS_RESET & !self.status.get();
        if new & status::FEATURES_OK != 0 {
            let accepted = self.driver_features.get();
            if accepted & !device.features != 0 || accepted & F_VERSION_1 == 0 {
                new &= !status::FEATURES_OK;
            }
        }
        if (self.status.get() | new) & status::FEATURES_OK == 0 {
            new &= !status::DRIVER_OK;
        }
        self.status |= new;
        if new & status::DRIVER_OK != 0 { Action::DriverOk } else { Action::Nothing }
    }

    fn write_queue(&mut self, index: usize, max_size: u16, offset: u64, value: u32) -> Action {
        let negotiated = self.has(status::FEATURES_OK);
        let queue = &mut self.queues[index];
        let in_use = queue.ready.get() != 0;
        if offset == QUEUE_READY {
            return match (value & 1 != 0, in_use) {
                (true, false) if negotiated => Action::Enable(index),
                (false, true) => Action::Disable(index),
                _ => Action::Nothing,
            };
        }
        if in_use || !negotiated {
            return Action::Nothing;
        }
        let high = offset & 4 != 0;
        match offset & !4 {
            QUEUE_SIZE if !high => {
                let size = u16::try_from(value).unwrap_or(0);
                let fits = size.is_power_of_two() && size <= max_size;
                queue.size = if fits { size } else { 0 }.into();
            }
            QUEUE_DESC => queue.desc = with_half(queue.desc.get(), high, value).into(),
            QUEUE_DRIVER => queue.avail = with_half(queue.avail.get(), high, value).into(),
            QUEUE_DEVICE => queue.used = with_half(queue.used.get(), high, value).into(),
            _ => {}
        }
        Action::Nothing
    }
}

impl QueueState {
    /// Whether the areas are aligned (virtio 1.3, 2.7) and `is_ram` says that they are RAM.
    #[must_use]
    pub fn placed(&self, is_ram: impl Fn(u64, u64) -> bool) -> bool {
        let size = u64::from(self.size.get());
        let area = |at: u64, align: u64, len: u64| at.is_multiple_of(align) && is_ram(at, len);
        size != 0
            && area(self.desc.get(), 16, 16 * size)
            && area(self.avail.get(), 2, 6 + 2 * size)
            && area(self.used.get(), 4, 6 + 8 * size)
    }
}

/// Reads `len` bytes of a configuration space; bytes that are not there read zero.
#[must_use]
pub fn read_config(config: &[u8], offset: u64, len: u32) -> u64 {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(config.len());
    let mut value = [0; 8];
    for (to, from) in value.iter_mut().take(len as usize).zip(&config[start..]) {
        *to = *from;
    }
    u64::from_le_bytes(value)
}

/// The low 32 bits of what is stored to a register.
#[must_use]
pub fn word(value: u64) -> u32 {
    low32(value)
}

#[cfg(test)]
mod tests {
    use super::super::FEATURES;
    use super::*;

    const DEVICE: Identity = Identity { id: 4, features: FEATURES, queues: &[64, 64] };

    fn negotiate(features: u64) -> TransportState {
        let mut transport = TransportState::default();
        transport.write(&DEVICE, STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for word in 0..2 {
            transport.write(&DEVICE, DRIVER_FEATURES_SEL, word);
            transport.write(&DEVICE, DRIVER_FEATURES, half(features, word == 1));
        }
        transport.write(&DEVICE, STATUS, 11);
        transport
    }

    #[test]
    fn features_need_version_1_and_nothing_unoffered() {
        assert!(negotiate(F_VERSION_1).has(status::FEATURES_OK));
        assert!(!negotiate(0).has(status::FEATURES_OK));
        assert!(!negotiate(F_VERSION_1 | 1 << 40).has(status::FEATURES_OK));
        let mut refused = negotiate(0);
        assert_eq!(refused.write(&DEVICE, STATUS, 15), Action::Nothing);
        assert!(!refused.has(status::DRIVER_OK));
    }

    #[test]
    fn agreed_features_stay() {
        let mut transport = negotiate(F_VERSION_1);
        transport.write(&DEVICE, DRIVER_FEATURES_SEL, 0);
        transport.write(&DEVICE, DRIVER_FEATURES, u32::MAX);
        assert_eq!(transport.driver_features.get(), F_VERSION_1);
        assert_eq!(transport.write(&DEVICE, STATUS, 15), Action::DriverOk);
        assert_eq!(transport.write(&DEVICE, STATUS, 15), Action::Nothing, "already");
        assert_eq!(transport.write(&DEVICE, STATUS, 0), Action::Reset);
    }

    #[test]
    fn queues_are_set_up_before_use_only() {
        let mut early = TransportState::default();
        early.write(&DEVICE, QUEUE_SIZE, 8);
        assert_eq!(early, TransportState::default(), "before the features are agreed");
        let mut transport = negotiate(F_VERSION_1);
        assert_eq!(transport.read(&DEVICE, QUEUE_SIZE_MAX), 64);
        transport.write(&DEVICE, QUEUE_SIZE, 8);
        transport.write(&DEVICE, QUEUE_DESC + 4, 1);
        transport.write(&DEVICE, QUEUE_DRIVER, 0x1000);
        transport.write(&DEVICE, QUEUE_DEVICE, 0x2000);
        assert_eq!(transport.write(&DEVICE, QUEUE_READY, 1), Action::Enable(0));
        transport.queues[0].ready = 1.into();
        transport.write(&DEVICE, QUEUE_SIZE, 16);
        assert_eq!((transport.queues[0].size.get(), transport.queues[0].desc.get()), (8, 1 << 32));
        transport.write(&DEVICE, QUEUE_SEL, 2);
        assert_eq!(transport.read(&DEVICE, QUEUE_SIZE_MAX), 0, "no such queue");
    }

    #[test]
    fn queue_areas_must_be_aligned_ram() {
        let ram = |gpa: u64, len: u64| gpa >= 0x1000 && gpa + len <= 0x5000;
        let mut queue = QueueState { size: 8.into(), ..QueueState::default() };
        assert!(!queue.placed(ram));
        (queue.desc, queue.avail, queue.used) = (0x1000.into(), 0x2000.into(), 0x3000.into());
        assert!(queue.placed(ram));
        for (desc, avail, used) in
            [(0x1008, 0x2000, 0x3000), (0x1000, 0x2001, 0x3000), (0x1000, 0x2000, 0x3002)]
        {
            let odd =
                QueueState { desc: desc.into(), avail: avail.into(), used: used.into(), ..queue.clone() };
            assert!(!odd.placed(ram));
        }
        queue.used = 0x4ffc.into();
        assert!(!queue.placed(ram));
    }
}
