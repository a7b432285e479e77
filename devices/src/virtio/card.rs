//! A card: transport, device, saved state, interrupt line, and the worker if there is one.

use super::block::Block;
use super::block::worker as block_worker;
use super::console::VirtioConsole;
use super::device::Device;
use super::input::PowerKey;
use super::net::Net;
use super::net::worker as net_worker;
use super::queue::{Chain, Queue, RingError};
use super::rng::Rng;
use super::transport::registers::{Action, CONFIG, read_config, word};
use super::transport::state::{TransportState, VERSION};
use super::transport::{F_EVENT_IDX, F_INDIRECT_DESC, interrupt};
use crate::access::Access;
use crate::board::Host;
use crate::error::{BadState, DevicesError};
use crate::lock;
use crate::plic::IrqLine;
use crate::saved::{Slot, index};
use quasar_abi::machine::VirtioDevice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use zerocopy::{FromBytes, IntoBytes};

/// What the card's lock protects.
#[derive(Debug)]
struct Core {
    transport: TransportState,
    device: Box<dyn Device>,
    slot: Slot,
    /// The worker has a request in hand, outside the lock.
    busy: bool,
    /// Work may wait for the worker.
    kicked: bool,
    /// The worker shall go home.
    stopped: bool,
    broken: u64,
    interrupts: u64,
}

/// The card as its worker sees it.
#[derive(Debug)]
pub struct Shared {
    /// The VM.
    pub host: Host,
    irq: IrqLine,
    core: Mutex<Core>,
    changed: Condvar,
    /// Requests or frames, counted by the worker.
    pub counted: AtomicU64,
    /// Bytes, counted by the worker.
    pub bytes: AtomicU64,
}

/// A worker's thread and what there is to do after it has ended.
struct Worker {
    thread: JoinHandle<()>,
    /// Wakes it when it waits for something else than the card.
    wake: Box<dyn Fn() + Send>,
    finish: Box<dyn FnOnce() -> Result<(), DevicesError> + Send>,
}

/// A virtio device in its slot.
pub struct Card {
    shared: Arc<Shared>,
    worker: Mutex<Option<Worker>>,
}

impl std::fmt::Debug for Card {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Card").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Card {
    /// Makes the device at `slot` from its configuration, and from its saved state when there is one.
    ///
    /// # Errors
    /// [`DevicesError`].
    pub fn new(
        host: &Host,
        slot: u32,
        device: &VirtioDevice,
        irq: IrqLine,
    ) -> Result<Arc<Self>, DevicesError> {
        let make = |device| Shared::new(host, slot, irq, device).map(Arc::new);
        let (shared, worker) = match device {
            VirtioDevice::Block { path, read_only, serial } => {
                let (device, disk) = Block::open(path, *read_only, serial)?;
                let shared = make(Box::new(device))?;
                let (at_work, backing) = (Arc::clone(&shared), Arc::clone(&disk));
                let thread = spawn(format!("blk{slot}"), move || block_worker::run(&at_work, &backing))?;
                let finish = Box::new(move || {
                    disk.backing().sync().map_err(|e| disk.backing().error("write back", e))
                });
                (shared, Some(Worker { thread, wake: Box::new(|| ()), finish }))
            }
            VirtioDevice::Net { port_segment, mac } => {
                let (device, port) = Net::attach(port_segment, *mac)?;
                let shared = make(Box::new(device))?;
                let (at_work, waiting, waking) = (Arc::clone(&shared), Arc::clone(&port), port);
                let thread = spawn(format!("net{slot}"), move || net_worker::run(&at_work, &waiting))?;
                let wake = Box::new(move || waking.ring().to_card.data_bell.ring());
                (shared, Some(Worker { thread, wake, finish: Box::new(|| Ok(())) }))
            }
            VirtioDevice::Console => (make(Box::new(VirtioConsole::new(&host.consoles)?))?, None),
            VirtioDevice::Rng => (make(Box::new(Rng::new()?))?, None),
            VirtioDevice::PowerButton => (make(Box::new(PowerKey::default()))?, None),
        };
        Ok(Arc::new(Self { shared, worker: Mutex::new(worker) }))
    }

    /// A register access of a hart; `None` when nothing answers.
    pub fn access(&self, access: &Access) -> Option<u64> {
        if !access.is(access.len) || access.offset < CONFIG && access.len != 4 {
            return None;
        }
        let mut core = lock(&self.shared.core);
        let value = match (access.store, access.offset.checked_sub(CONFIG)) {
            (None, None) => core.transport.read(&core.device.identity(), access.offset).into(),
            (None, Some(offset)) => read_config(&core.device.config(), offset, access.len),
            (Some(value), Some(offset)) => {
                let bytes = value.to_le_bytes();
                for (byte, at) in bytes.iter().take(access.len as usize).zip(offset..) {
                    core.device.write_config(at, *byte);
                }
                0
            }
            (Some(value), None) => {
                let identity = core.device.identity();
                let action = core.transport.write(&identity, access.offset, word(value));
                core.slot.note(access.tag, 0);
                core = self.shared.act(core, action);
                0
            }
        };
        if access.store.is_some() {
            core.slot.note(access.tag, value);
            self.shared.settle(&mut core);
        }
        Some(value)
    }

    /// The driver has notified these queues (bit per queue).
    pub fn notify(&self, queues: u64) {
        let mut core = lock(&self.shared.core);
        for index in 0..core.device.identity().queues.len() {
            if queues >> index & 1 != 0 {
                self.shared.work(&mut core, index);
            }
        }
        self.shared.settle(&mut core);
    }

    /// Lets the device do what nobody notified it of; returns when to ask again at the latest.
    pub fn poll(&self) -> Option<Duration> {
        let mut core = lock(&self.shared.core);
        let wants = core.device.wants();
        if let Some(index) = wants.queue {
            self.shared.work(&mut core, index);
            self.shared.settle(&mut core);
            return core.device.wants().again;
        }
        wants.again
    }

    /// Back to the state after power-on.
    pub fn reset(&self) {
        let mut core = self.shared.act(lock(&self.shared.core), Action::Reset);
        core.slot.forget_reply();
        self.shared.settle(&mut core);
    }

    /// Presses the power key, if this is one; returns whether a driver hears it.
    pub fn press_power(&self) -> Option<bool> {
        let mut core = lock(&self.shared.core);
        let live = core.transport.live();
        let heard = core.device.press_power(live);
        self.shared.settle(&mut core);
        heard
    }

    /// Works with the saved state's slot.
    pub fn with_slot<T>(&self, act: impl FnOnce(&mut Slot) -> T) -> T {
        act(&mut lock(&self.shared.core).slot)
    }

    /// What the card has counted, as a JSON object.
    #[must_use]
    pub fn stats(&self) -> serde_json::Value {
        let core = lock(&self.shared.core);
        serde_json::json!({
            "name": core.slot.name(),
            "live": core.transport.live(),
            "interrupts": core.interrupts,
            "broken": core.broken,
            "requests": self.shared.counted.load(Ordering::Relaxed),
            "bytes": self.shared.bytes.load(Ordering::Relaxed),
            "device": core.device.stats(),
        })
    }

    /// Sends the worker home, and writes back. The gate must be stopped.
    ///
    /// # Errors
    /// The disk that could not be written back.
    pub fn finish(&self) -> Result<(), DevicesError> {
        lock(&self.shared.core).stopped = true;
        self.shared.changed.notify_all();
        let Some(worker) = lock(&self.worker).take() else { return Ok(()) };
        (worker.wake)();
        if worker.thread.join().is_err() {
            log::error!("a worker panicked; its message is above");
        }
        (worker.finish)()
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.shared.host.gate.stop();
        if let Err(error) = self.finish() {
            log::error!("{error}");
        }
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, DevicesError> {
    let spawn = std::thread::Builder::new().name(name).spawn(run);
    spawn.map_err(|source| DevicesError::System { what: "starting a worker", source })
}

impl Shared {
    fn new(host: &Host, slot: u32, irq: IrqLine, device: Box<dyn Device>) -> Result<Self, DevicesError> {
        let name = format!("virtio{slot}.{}", device.name());
        let mut slot = Slot::new(&host.saved, index::VIRTIO + slot as usize, name, VERSION);
        let saved = slot.load_bytes()?;
        let mut core = Core {
            transport: TransportState::default(),
            device,
            slot,
            busy: false,
            kicked: false,
            stopped: false,
            broken: 0,
            interrupts: 0,
        };
        if let Some(bytes) = saved {
            let cut = bytes.len().min(size_of::<TransportState>());
            core.transport = TransportState::try_from(&bytes[..cut])?;
            core.check_queues(host)?;
            core.device.load(&bytes[cut..])?;
        }
        let shared = Self {
            host: host.clone(),
            irq,
            core: Mutex::new(core),
            changed: Condvar::new(),
            counted: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        };
        let mut core = lock(&shared.core);
        shared.recover(&mut core);
        shared.settle(&mut core);
        drop(core);
        Ok(shared)
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
                Ok(0) => {}
                Ok(_) => core.transport.interrupt |= interrupt::USED,
                Err(error) => core.break_down(&error),
            }
        }
    }

    /// Carries out what a register write asked for.
    fn act<'a>(&'a self, mut core: MutexGuard<'a, Core>, action: Action) -> MutexGuard<'a, Core> {
        match action {
            Action::Nothing => {}
            Action::Reset => {
                // The driver may take its memory back after a reset: nothing may be in hand any more.
                core = self.idle(core);
                core.transport = TransportState::default();
                core.device.reset();
                core.kicked = false;
            }
            Action::DriverOk => {
                let features = core.transport.driver_features.get();
                core.device.start(features);
                // Drivers may fill queues before they are ready.
                for index in 0..core.device.identity().queues.len() {
                    self.work(&mut core, index);
                }
            }
            Action::Notify(index) => self.work(&mut core, index),
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
                core = self.idle(core);
                core.transport.queues[index].ready = 0.into();
            }
        }
        core
    }

    /// Waits until the worker has nothing in hand.
    fn idle<'a>(&'a self, core: MutexGuard<'a, Core>) -> MutexGuard<'a, Core> {
        self.changed.wait_while(core, |core| core.busy).unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, core: &mut Core, index: usize) {
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
    fn settle(&self, core: &mut Core) {
        let mut bytes = core.transport.as_bytes().to_vec();
        bytes.extend_from_slice(&core.device.save());
        core.slot.publish(&bytes);
        self.irq.set(core.transport.interrupt.get() != 0);
    }

    /// Worker: runs a queue of the device under the card's lock. The caller holds a pass.
    pub fn run_queue(&self, index: usize) {
        let mut core = lock(&self.core);
        self.work(&mut core, index);
        self.settle(&mut core);
    }

    /// Worker: waits for work; `false` when it shall go home.
    pub fn wait_for_work(&self) -> bool {
        let waiting = |core: &mut Core| !core.kicked && !core.stopped;
        let core = self.changed.wait_while(lock(&self.core), waiting).unwrap_or_else(PoisonError::into_inner);
        !core.stopped
    }

    /// Worker: whether it shall go home.
    pub fn stopped(&self) -> bool {
        lock(&self.core).stopped
    }

    /// Worker: the next request of a queue and the agreed features; it is in hand until
    /// [`Shared::finish_request`]. The caller holds a pass.
    pub fn begin_request(&self, index: usize) -> Option<(Chain, u64)> {
        let mut core = lock(&self.core);
        core.kicked = false;
        if !core.usable(index) {
            return None;
        }
        let next = core.queue(&self.host, index).0.next_buffer();
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

    /// Worker: the request in hand is done, with so many bytes written, or was no request.
    pub fn finish_request(&self, index: usize, chain: &Chain, written: Result<u32, RingError>) {
        let mut core = lock(&self.core);
        core.busy = false;
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

    fn queue<'a>(&'a mut self, host: &'a Host, index: usize) -> (Queue<'a>, &'a mut dyn Device) {
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
    fn check_queues(&self, host: &Host) -> Result<(), DevicesError> {
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

/// A device's own state from saved bytes: the size is all there is to check.
pub(super) fn plain_state<S: FromBytes>(device: &'static str, bytes: &[u8]) -> Result<S, BadState> {
    let wrong = |_| BadState::Length { device, found: bytes.len(), expected: size_of::<S>() };
    S::read_from_bytes(bytes).map_err(|_| wrong(()))
}
