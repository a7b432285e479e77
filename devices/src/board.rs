//! The machine's devices and where they stand.

use crate::access::{Access, Tag};
use crate::aclint::Aclint;
use crate::console::ConsolePort;
use crate::error::DevicesError;
use crate::host::DeviceHost;
use crate::plic::{IrqLine, Plic};
use crate::rtc::Rtc;
use crate::saved::Slot;
use crate::syscon;
use crate::uart::Uart;
use crate::virtio::VirtioCard;
use quasar_abi::console::UART_CONSOLE;
use quasar_abi::machine::{self, Region, VIRTIO_SLOTS, VIRTIO_STRIDE, VirtioDevice};
use quasar_abi::party::PartyId;
use quasar_abi::vm::Vm;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Which device answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Syscon,
    Rtc,
    Aclint,
    Plic,
    Uart,
    Virtio(usize),
}

const PLACES: [(Region, Place); 5] = [
    (machine::PLIC, Place::Plic),
    (machine::UART, Place::Uart),
    (machine::ACLINT, Place::Aclint),
    (machine::RTC, Place::Rtc),
    (machine::SYSCON, Place::Syscon),
];

fn place(gpa: u64, len: u32) -> Option<(Place, u64)> {
    if let Some(offset) = machine::VIRTIO.offset(gpa, len.into()) {
        let slot = usize::try_from(offset / VIRTIO_STRIDE).ok()?;
        let offset = offset % VIRTIO_STRIDE;
        return (offset + u64::from(len) <= VIRTIO_STRIDE).then_some((Place::Virtio(slot), offset));
    }
    PLACES.iter().find_map(|(region, place)| Some((*place, region.offset(gpa, len.into())?)))
}

/// Whether every hart waits for something to happen: those that were not started, too.
fn harts_sleep(vm: &Vm) -> bool {
    let mut harts = vm.actors().filter(|id| matches!(id, PartyId::Hart(_)));
    harts.all(|id| vm.party(id).doorbell.sleepers.load(Ordering::SeqCst) != 0)
}

/// All devices of a VM.
#[derive(Debug)]
pub struct Board {
    host: DeviceHost,
    plic: Arc<Plic>,
    aclint: Aclint,
    uart: Uart,
    rtc: Rtc,
    cards: Vec<Arc<VirtioCard>>,
}

impl Board {
    /// Makes the devices, each from its saved state when there is one.
    ///
    /// # Errors
    /// [`DevicesError`]: nothing runs then.
    pub fn new(host: &DeviceHost, virtio: &[VirtioDevice]) -> Result<Self, DevicesError> {
        if virtio.len() > VIRTIO_SLOTS {
            return Err(DevicesError::TooManyDevices { devices: virtio.len(), slots: VIRTIO_SLOTS });
        }
        let plic = Arc::new(Plic::new(host.vm.clone(), &host.saved)?);
        let line = |source| IrqLine::new(&plic, source);
        let console = ConsolePort::new(&host.consoles, UART_CONSOLE)?;
        let cards = (0u32..)
            .zip(virtio)
            .map(|(slot, device)| VirtioCard::new(host, slot, device, line(machine::IRQ_VIRTIO + slot)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            aclint: Aclint::new(host.vm.clone(), &host.saved)?,
            uart: Uart::new(console, &host.saved, line(machine::IRQ_UART))?,
            rtc: Rtc::new(host.vm.clone(), &host.saved, line(machine::IRQ_RTC))?,
            cards,
            plic,
            host: host.clone(),
        })
    }

    /// The virtio cards, by slot.
    #[must_use]
    pub fn cards(&self) -> &[Arc<VirtioCard>] {
        &self.cards
    }

    /// One register access; `None` when nothing answers at this address with this size.
    pub fn access(&mut self, gpa: u64, len: u32, store: Option<u64>, tag: Tag) -> Option<u64> {
        if !matches!(len, 1 | 2 | 4 | 8) {
            return None;
        }
        let (place, offset) = place(gpa, len)?;
        if self.host.vm.clock.is_deterministic() {
            // Guest time is known while a hart waits, and the alarm must come at a known instruction.
            self.rtc.poll();
        }
        let access = Access { offset, len, store, tag };
        match place {
            Place::Plic => self.plic.access(&access),
            Place::Uart => self.uart.access(&access),
            Place::Aclint => self.aclint.access(&access),
            Place::Rtc => self.rtc.access(&access),
            Place::Syscon => syscon::access(&self.host.vm, &access),
            Place::Virtio(slot) => match self.cards.get(slot) {
                Some(card) => card.access(&access),
                None => access.is(4).then(|| crate::virtio::empty_slot(offset).into()),
            },
        }
    }

    /// The reply to an access that a killed process carried out without answering it.
    pub fn reply_to(&self, gpa: u64, len: u32, tag: Tag) -> Option<u64> {
        let reply = |slot: &mut Slot| slot.reply_to(tag);
        match place(gpa, len)?.0 {
            Place::Plic => self.plic.with_slot(reply),
            Place::Uart => self.uart.slot.reply_to(tag),
            Place::Aclint => self.aclint.slot.reply_to(tag),
            Place::Rtc => self.rtc.slot.reply_to(tag),
            Place::Syscon => None,
            Place::Virtio(slot) => self.cards.get(slot)?.with_slot(reply),
        }
    }

    /// After [`Board::reply_to`] was asked for every waiting hart: sequence numbers of another host's
    /// mailboxes mean nothing here.
    pub fn forget_replies(&mut self) {
        self.plic.with_slot(Slot::forget_reply);
        self.uart.slot.forget_reply();
        self.aclint.slot.forget_reply();
        self.rtc.slot.forget_reply();
        for card in &self.cards {
            card.with_slot(Slot::forget_reply);
        }
    }

    /// Looks after what no hart asks for: console input, alarms, stalled queues. Returns when to look again
    /// at the latest, if there is such a time.
    pub fn poll(&mut self) -> Option<Duration> {
        let vm = &self.host.vm;
        let line = self.uart.poll(Instant::now(), || harts_sleep(vm));
        let alarm = if self.host.vm.clock.is_deterministic() { None } else { self.rtc.poll() };
        let cards = self.cards.iter().filter_map(|card| card.poll());
        cards.chain(alarm).chain(line).min()
    }

    /// Before going to sleep: output that was gathered goes out.
    pub fn flush(&mut self) {
        self.uart.flush();
    }

    /// Takes up the states that were put into slots while the VM was parked: it was restored, or came from
    /// another host. The workers must be at rest.
    ///
    /// # Errors
    /// The first state that is none of its device's.
    pub fn take_up(&mut self) -> Result<(), DevicesError> {
        self.plic.take_up()?;
        self.aclint.take_up()?;
        self.uart.take_up()?;
        self.rtc.take_up()?;
        self.cards.iter().try_for_each(|card| card.take_up())
    }

    /// Puts every device into its state after power-on. The workers must be at rest.
    pub fn reset(&mut self) {
        for card in &self.cards {
            card.reset();
        }
        self.uart.reset();
        self.rtc.reset();
        self.aclint.reset();
        self.plic.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_find_their_device_and_nothing_straddles_two() {
        assert_eq!(place(0x1000_0005, 1), Some((Place::Uart, 5)));
        assert_eq!(place(0x0c00_0004, 4), Some((Place::Plic, 4)));
        assert_eq!(place(0x1000_2070, 4), Some((Place::Virtio(1), 0x70)));
        assert_eq!(place(0x1000_1ffe, 4), None, "across two slots");
        assert_eq!(place(0x1000_9000, 4), None, "after the last slot");
        assert_eq!(place(0x10_0ffe, 4), None);
        assert_eq!(place(u64::MAX, 8), None);
    }
}
