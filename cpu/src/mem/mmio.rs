//! Device registers: one load or store at a time through the hart's mailbox to the devices process.
//!
//! The reply stays in the mailbox until the hart has taken it (`Mailbox::taken`), so that an access that was
//! interrupted by a pause is not done twice when its instruction is executed again.

use super::{Cause, Fault, Memory};
use quasar_abi::clock::host_monotonic_ns;
use quasar_abi::machine::{UART, VIRTIO, VIRTIO_QUEUE_NOTIFY, VIRTIO_STRIDE};
use quasar_abi::party::{PartyId, attention, status};
use quasar_abi::tlb::access;
use std::sync::atomic::Ordering;

/// Offset of the line status register (16550A).
const UART_LSR: u64 = 5;
/// Queues whose notifications can be posted: bits of a word.
const POSTED_QUEUES: u64 = 64;

impl Memory {
    pub(super) fn device_load(&mut self, gpa: u64, len: u64, va: u64) -> Result<u64, Fault> {
        if !gpa.is_multiple_of(len) {
            return Err(self.refuse(access::READ, false, va));
        }
        self.check_alone()?;
        match self.device_access(gpa, len, None)? {
            Some(value) => Ok(value),
            None => Err(self.refuse(access::READ, false, va)),
        }
    }

    pub(super) fn device_store(&mut self, gpa: u64, len: u64, value: u64, va: u64) -> Result<(), Fault> {
        if !gpa.is_multiple_of(len) {
            return Err(self.refuse(access::WRITE, false, va));
        }
        self.check_alone()?;
        if self.post_notification(gpa, len, value) {
            return Ok(());
        }
        match self.device_access(gpa, len, Some(value))? {
            Some(_) => Ok(()),
            None => Err(self.refuse(access::WRITE, false, va)),
        }
    }

    /// A store to a virtio slot's QueueNotify is posted and not waited for (virtio 1.3, 4.2.3.3); in
    /// deterministic mode it is a store like any other, answered when the queue has been served.
    fn post_notification(&self, gpa: u64, len: u64, value: u64) -> bool {
        if self.synchronous {
            return false;
        }
        let Some(offset) = VIRTIO.offset(gpa, len) else { return false };
        if len != 4 || offset % VIRTIO_STRIDE != VIRTIO_QUEUE_NOTIFY || value >= POSTED_QUEUES {
            return false;
        }
        self.vm.notifications[(offset / VIRTIO_STRIDE) as usize].fetch_or(1 << value, Ordering::SeqCst);
        self.vm.party(PartyId::Devices).doorbell.ring();
        self.counters().notifications.bump(1);
        true
    }

    /// Sends a byte through the UART for the built-in SBI.
    pub fn uart_write(&mut self, byte: u8) {
        // Interrupted, the store stays posted and is done when the devices go on.
        let _ = self.device_access(UART.base, 1, Some(byte.into()));
    }

    /// Takes a byte from the UART, if LSR says that there is one.
    pub fn uart_read(&mut self) -> Option<u8> {
        let status = self.device_access(UART.base + UART_LSR, 1, None).ok()??;
        if status & 1 == 0 {
            return None;
        }
        self.device_access(UART.base, 1, None).ok()?.map(|byte| byte as u8)
    }

    /// `None` when nothing answers at this address with this size.
    fn device_access(&mut self, gpa: u64, len: u64, store: Option<u64>) -> Result<Option<u64>, Fault> {
        let start = host_monotonic_ns();
        let hart = usize::from(self.hart);
        let mail = &self.vm.mmio_mail[hart];
        let len = len as u32;
        let outstanding = mail.mailbox.posted.get() != mail.mailbox.taken.get();
        let same = mail.gpa.get() == gpa
            && mail.len.get() == len
            && (mail.store.get() != 0) == store.is_some()
            && store.is_none_or(|value| !mail.mailbox.pending() || mail.value.get() == value);
        if outstanding && !same {
            self.await_device()?;
        }
        let mail = &self.vm.mmio_mail[hart];
        if !(outstanding && same) {
            mail.gpa.set(gpa);
            mail.len.set(len);
            mail.store.set(store.is_some().into());
            mail.value.set(store.unwrap_or(0));
            mail.mailbox.post();
            self.vm.party(PartyId::Devices).doorbell.ring();
            self.counters().mmio_requests.bump(1);
        }
        let answered = self.await_device();
        self.counters().mmio_wait_ns.bump(host_monotonic_ns().saturating_sub(start));
        answered?;
        let mail = &self.vm.mmio_mail[hart];
        Ok((mail.status.get() == 0).then(|| mail.value.get()))
    }

    /// Waits for the answer and takes it. Gives up only when the devices are at rest (they do nothing
    /// then until the hart goes on too) and the hart is to rest or to end.
    fn await_device(&mut self) -> Result<(), Fault> {
        let vm = &self.vm;
        let mail = &vm.mmio_mail[usize::from(self.hart)].mailbox;
        let devices = vm.party(PartyId::Devices);
        let own = vm.party(self.me());
        let keep_waiting = || {
            let called = vm.pause_mask.load(Ordering::SeqCst) != 0
                || own.attention.load(Ordering::SeqCst) & attention::STOP != 0;
            !called || devices.status.load(Ordering::SeqCst) == status::RUNNING
        };
        if mail.wait(self.spins, keep_waiting) {
            mail.taken.set(mail.posted.get());
            return Ok(());
        }
        self.fault = Cause::Interrupted;
        Err(Fault)
    }
}
