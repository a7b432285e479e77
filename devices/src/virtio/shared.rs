//! What a card and its worker share, and how work on the queues is begun and ended.

use crate::error::{BadState, DevicesError};
use crate::host::DeviceHost;
use crate::plic::IrqLine;
use crate::saved::{Slot, index};
use crate::virtio::device::Device;
use crate::virtio::queue::{Chain, Queue, RingError};
use crate::virtio::transport::registers::Action;
use crate::virtio::transport::state::{TransportState, VERSION};
use crate::virtio::transport::{F_EVENT_IDX, F_INDIRECT_DESC, interrupt};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::sync::atomic::AtomicU64;
use zerocopy::IntoBytes;

/// What the card's lock protects.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) transport: TransportState,
    pub(super) device: Box<dyn Device>,
    pub(super) slot: Slot,
    /// The worker has a request in hand, outside the lock.
    busy: bool,
    /// Work may wait for the worker.
    kicked: bool,
    /// The worker waits for the host, with a request that it has put back.
    stuck: bool,
    /// There is a worker that looks for requests when it is kicked.
    pub(super) takes_kicks: bool,
    /// The worker shall go home.
    pub(super) stopped: bool,
    pub(super) broken: u64,
    pub(super) interrupts: u64,
}

/// The card as its worker sees it.
#[derive(Debug)]
pub struct Shared {
    /// The VM.
    pub host: DeviceHost,
    /// Its virtio slot.
    pub slot: usize,
    irq: IrqLine,
    pub(super) core: Mutex<Core>,
    pub(super) changed: Condvar,
    /// Requests or frames, counted by the worker.
    pub counted: AtomicU64,
    /// Bytes, counted by the worker.
    pub bytes: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        host: &DeviceHost,
        slot: u32,
        irq: IrqLine,
        device: Box<dyn Device>,
    ) -> Result<Self, DevicesError> {
        let name = format!("virtio{slot}.{}", device.name());
        let place = slot as usize;
        let slot = Slot::new(&host.saved, index::VIRTIO + place, name, VERSION);
        let core = Core {
            transport: TransportState::default(),
            device,
            slot,
            busy: false,
            kicked: false,
            stuck: false,
            takes_kicks: false,
            stopped: false,
            broken: 0,
            interrupts: 0,
        };
        let shared = Self {
            host: host.clone(),
            slot: place,
            irq,
            core: Mutex::new(core),
            changed: Condvar::new(),
            counted: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        };
        shared.load(&mut shared.core.lock())?;
        Ok(shared)
    }

    /// Takes up the saved state, or that after power-on when there is none.
    fn load(&self, core: &mut Core) -> Result<(), DevicesError> {
        core.transport = TransportState::default();
        core.device.reset();
        if let Some(bytes) = core.slot.load_bytes()? {
            let cut = bytes.len().min(size_of::<TransportState>());
            core.transport = TransportState::try_from(&bytes[..cut])?;
            core.check_queues(&self.host)?;
            core.device.load(&bytes[cut..])?;
        }
        self.recover(core);
        self.settle(core);
        Ok(())
    }

    /// Takes up a state that was put into the slot while the VM was parked and the worker at rest.
    pub(super) fn take_up(&self) -> Result<(), DevicesError> {
        let mut core = self.core.lock();
        if core.slot.was_replaced() {
            core.kicked = false;
            self.load(&mut core)?;
            core.slot.forget_reply();
        }
        Ok(())
    }

    /// After a killed process: buffers that the guest sees as finished are finished, and it is told.
    fn recover(&self, core: &mut Core) {
        if !core.transport.live() {
            return;
        }
        core.device.start(core.transport.driver_features.get());
        for index in 0..core.device.identity().queues.len() {
            if core.transport.queues[index].ready.get() == 0 {
                continue;
            }
            match core.queue(&self.host, index).0.recover() {
                Ok(written) if written.is_empty() => {}
                Ok(written) => {
                    core.device.recovered(index, written.into_iter().map(u64::from).sum());
                    core.transport.interrupt |= interrupt::USED;
                }
                Err(error) => core.break_down(&error),
            }
        }
    }

    /// Carries out what a register write asked for.
    pub(super) fn act(&self, core: &mut MutexGuard<'_, Core>, action: Action) {
        match action {
            Action::Nothing => {}
            Action::Reset => {
                // The driver may take its memory back after a reset: nothing may be in hand any more.
                self.idle(core);
                core.transport = TransportState::default();
                core.device.reset();
                core.kicked = false;
            }
            Action::DriverOk => {
                let features = core.transport.driver_features.get();
                core.device.start(features);
                // Drivers may fill queues before they are ready.
                for index in 0..core.device.identity().queues.len() {
                    self.work(core, index);
                }
            }
            Action::Notify(index) => self.work(core, index),
            Action::Enable(index) => {
                let queue = &mut core.transport.queues[index];
                if queue.placed(|gpa, len| self.host.dma.contains(gpa, len)) {
                    queue.ready = 1.into();
                    queue.next_avail = 0.into();
                    queue.next_used = 0.into();
                    queue.signalled = 0.into();
                } else {
                    log::warn!("{}: queue {index} does not lie in RAM, or not aligned", core.slot.name());
                    core.transport.need_reset();
                }
            }
            Action::Disable(index) => {
                self.idle(core);
                core.transport.queues[index].ready = 0.into();
            }
        }
    }

    /// Waits until the worker has nothing in hand.
    fn idle(&self, core: &mut MutexGuard<'_, Core>) {
        self.changed.wait_while(core, |core| core.busy);
    }

    /// Waits until the worker has found no request left: in deterministic mode a notification is answered then, so
    /// that everything a disk does happens between two instructions; or until it waits for the host, for which the VM is
    /// about to be paused.
    pub(super) fn drained(&self, core: &mut MutexGuard<'_, Core>) {
        let at_work =
            |core: &mut Core| core.takes_kicks && !core.stopped && !core.stuck && (core.busy || core.kicked);
        self.changed.wait_while(core, at_work);
    }

    pub(super) fn work(&self, core: &mut Core, index: usize) {
        if !core.usable(index) {
            return;
        }
        core.kicked = true;
        self.changed.notify_all();
        let (mut queue, device) = core.queue(&self.host, index);
        let result = device.work(index, &mut queue).and_then(|()| queue.interrupt_due());
        core.conclude(result);
    }

    /// Publishes the state, then lets the line follow it.
    pub(super) fn settle(&self, core: &mut Core) {
        let mut bytes = core.transport.as_bytes().to_vec();
        bytes.extend_from_slice(&core.device.save());
        core.slot.publish(&bytes);
        self.irq.set(core.transport.interrupt.get() != 0);
    }

    /// Worker: runs a queue of the device under the card's lock. The caller holds a pass.
    pub fn run_queue(&self, index: usize) {
        let mut core = self.core.lock();
        self.work(&mut core, index);
        self.settle(&mut core);
    }

    /// Worker: waits for work; `false` when it shall go home.
    pub fn wait_for_work(&self) -> bool {
        let waiting = |core: &mut Core| !core.kicked && !core.stopped;
        let mut core = self.core.lock();
        self.changed.wait_while(&mut core, waiting);
        !core.stopped
    }

    /// Worker: whether it shall go home.
    pub fn stopped(&self) -> bool {
        self.core.lock().stopped
    }

    /// Worker: the next request of a queue and the agreed features; it is in hand until
    /// [`Shared::finish_request`]. The caller holds a pass.
    pub fn begin_request(&self, index: usize) -> Option<(Chain, u64)> {
        let mut core = self.core.lock();
        (core.kicked, core.stuck) = (false, false);
        let next = if core.usable(index) { core.queue(&self.host, index).0.next_buffer() } else { Ok(None) };
        if !matches!(next, Ok(Some(_))) {
            self.changed.notify_all();
        }
        match next {
            Ok(Some(chain)) => {
                core.busy = true;
                Some((chain, core.transport.driver_features.get()))
            }
            Ok(None) => None,
            Err(error) => {
                core.conclude(Err(error));
                self.settle(&mut core);
                None
            }
        }
    }

    /// Worker: the request in hand cannot be done now; it is the next one still.
    pub fn put_back(&self) {
        let mut core = self.core.lock();
        core.busy = false;
        (core.kicked, core.stuck) = (true, true);
        drop(core);
        self.changed.notify_all();
    }

    /// Worker: the request in hand is done, with so many bytes written, or was no request.
    pub fn finish_request(&self, index: usize, chain: &Chain, written: Result<u32, RingError>) {
        let mut core = self.core.lock();
        core.busy = false;
        // It looks for the next one now.
        core.kicked = true;
        let mut queue = core.queue(&self.host, index).0;
        let result = written
            .and_then(|written| queue.finish(&[(chain.head, written)]))
            .and_then(|()| queue.interrupt_due());
        core.conclude(result);
        self.settle(&mut core);
        drop(core);
        self.changed.notify_all();
    }
}

impl Core {
    fn usable(&self, index: usize) -> bool {
        self.transport.live() && self.transport.queues[index].ready.get() != 0
    }

    fn queue<'a>(&'a mut self, host: &'a DeviceHost, index: usize) -> (Queue<'a>, &'a mut dyn Device) {
        let event_idx = self.transport.agreed(F_EVENT_IDX);
        let indirect = self.transport.agreed(F_INDIRECT_DESC);
        let state = &mut self.transport.queues[index];
        (Queue::new(state, &host.dma, event_idx, indirect), self.device.as_mut())
    }

    fn conclude(&mut self, result: Result<bool, RingError>) {
        match result {
            Ok(false) => {}
            Ok(true) => {
                self.interrupts += 1;
                self.transport.interrupt |= interrupt::USED;
            }
            Err(error) => self.break_down(&error),
        }
    }

    /// The driver broke a queue: the device stops until it is reset. Nobody else notices.
    fn break_down(&mut self, error: &RingError) {
        log::warn!(
            "{}: the guest's driver broke a queue: {error}; the device waits for a reset",
            self.slot.name()
        );
        self.broken += 1;
        self.transport.need_reset();
    }

    /// A saved queue must lie in this VM's RAM.
    fn check_queues(&self, host: &DeviceHost) -> Result<(), DevicesError> {
        for queue in &self.transport.queues {
            if queue.ready.get() != 0 && !queue.placed(|gpa, len| host.dma.contains(gpa, len)) {
                let value = queue.desc.get();
                return Err(
                    BadState::Field { device: "virtio transport", field: "queue address", value }.into()
                );
            }
        }
        Ok(())
    }
}
