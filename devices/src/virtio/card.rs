//! A card: transport, device, saved state, interrupt line, and the worker if there is one.

use crate::access::Access;
use crate::error::DevicesError;
use crate::host::DeviceHost;
use crate::plic::IrqLine;
use crate::saved::Slot;
use crate::virtio::block::Block;
use crate::virtio::block::backing::Backing;
use crate::virtio::block::request::Disk;
use crate::virtio::block::worker as block_worker;
use crate::virtio::console::VirtioConsole;
use crate::virtio::input::PowerKey;
use crate::virtio::net::Net;
use crate::virtio::net::worker as net_worker;
use crate::virtio::rng::Rng;
use crate::virtio::shared::Shared;
use crate::virtio::transport::registers::{Action, CONFIG, read_config, word};
use parking_lot::Mutex;
use quasar_abi::machine::VirtioDevice;
use quasar_abi::report::CardReport;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// A worker's thread and what there is to do after it has ended.
struct Worker {
    thread: JoinHandle<()>,
    /// Wakes it when it waits for something else than the card.
    wake: Box<dyn Fn() + Send>,
    finish: Box<dyn FnOnce() -> Result<(), DevicesError> + Send>,
}

/// A virtio device in its slot.
pub struct VirtioCard {
    shared: Arc<Shared>,
    worker: Mutex<Option<Worker>>,
}

impl std::fmt::Debug for VirtioCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtioCard").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl VirtioCard {
    /// Makes the device at `slot` from its configuration, and from its saved state when there is one.
    ///
    /// # Errors
    /// [`DevicesError`].
    pub fn new(
        host: &DeviceHost,
        slot: u32,
        device: &VirtioDevice,
        irq: IrqLine,
    ) -> Result<Arc<Self>, DevicesError> {
        let make = |device| Shared::new(host, slot, irq, device).map(Arc::new);
        let (shared, worker) = match device {
            VirtioDevice::Block { path, read_only, serial, maps, on_enospc } => {
                let backing = Backing::open(path, *read_only, maps.as_ref(), host.arriving())?;
                let (device, disk) = Block::new(Disk::new(backing, serial, *on_enospc)?);
                let shared = make(Box::new(device))?;
                shared.core.lock().takes_kicks = true;
                let (at_work, backing) = (Arc::clone(&shared), Arc::clone(&disk));
                let thread = spawn(format!("blk{slot}"), move || block_worker::run(&at_work, &backing))?;
                let finish = Box::new(move || {
                    disk.backing().sync().map_err(|e| disk.backing().error("write back", e))
                });
                (shared, Some(Worker { thread, wake: Box::new(|| ()), finish }))
            }
            VirtioDevice::Net { port, mac } => {
                let (device, port) = Net::attach(port, *mac)?;
                let shared = make(Box::new(device))?;
                let (at_work, waiting, waking) = (Arc::clone(&shared), Arc::clone(&port), port);
                let thread = spawn(format!("net{slot}"), move || net_worker::run(&at_work, &waiting))?;
                let wake = Box::new(move || waking.ring().to_card.data_bell.ring());
                (shared, Some(Worker { thread, wake, finish: Box::new(|| Ok(())) }))
            }
            VirtioDevice::Console => (make(Box::new(VirtioConsole::new(&host.consoles)?))?, None),
            VirtioDevice::Rng => (make(Box::new(Rng::new(host.vm.clone())))?, None),
            VirtioDevice::PowerButton => (make(Box::<PowerKey>::default())?, None),
        };
        Ok(Arc::new(Self { shared, worker: Mutex::new(worker) }))
    }

    /// A register access of a hart; `None` when nothing answers.
    pub fn access(&self, access: &Access) -> Option<u64> {
        if !access.is(access.len) || access.offset < CONFIG && access.len != 4 {
            return None;
        }
        let mut core = self.shared.core.lock();
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
                self.shared.act(&mut core, action);
                if self.shared.host.vm.clock.is_deterministic() {
                    self.shared.drained(&mut core);
                }
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
        let mut core = self.shared.core.lock();
        for index in 0..core.device.identity().queues.len() {
            if queues >> index & 1 != 0 {
                self.shared.work(&mut core, index);
            }
        }
        self.shared.settle(&mut core);
    }

    /// Lets the device do what nobody notified it of; returns when to ask again at the latest.
    pub fn poll(&self) -> Option<Duration> {
        let mut core = self.shared.core.lock();
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
        let mut core = self.shared.core.lock();
        self.shared.act(&mut core, Action::Reset);
        core.slot.forget_reply();
        self.shared.settle(&mut core);
    }

    /// Takes up a state that was put into the slot while the VM was parked.
    ///
    /// # Errors
    /// [`DevicesError::State`].
    pub fn take_up(&self) -> Result<(), DevicesError> {
        self.shared.take_up()
    }

    /// Presses the power key, if this is one; returns whether a driver hears it.
    pub fn press_power(&self) -> Option<bool> {
        let mut core = self.shared.core.lock();
        let live = core.transport.live();
        let heard = core.device.press_power(live);
        self.shared.settle(&mut core);
        heard
    }

    /// Works with the saved state's slot.
    pub fn with_slot<T>(&self, act: impl FnOnce(&mut Slot) -> T) -> T {
        act(&mut self.shared.core.lock().slot)
    }

    /// What the card has counted.
    #[must_use]
    pub fn stats(&self) -> CardReport {
        let core = self.shared.core.lock();
        CardReport {
            name: core.slot.name().to_owned(),
            live: core.transport.live(),
            interrupts: core.interrupts,
            broken: core.broken,
            requests: self.shared.counted.load(Ordering::Relaxed),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            device: core.device.stats(),
        }
    }

    /// Sends the worker home, and writes back. The gate must be stopped.
    ///
    /// # Errors
    /// The disk that could not be written back.
    pub fn finish(&self) -> Result<(), DevicesError> {
        self.shared.core.lock().stopped = true;
        self.shared.changed.notify_all();
        let Some(worker) = self.worker.lock().take() else { return Ok(()) };
        (worker.wake)();
        if worker.thread.join().is_err() {
            log::error!("a worker panicked; its message is above");
        }
        (worker.finish)()
    }
}

impl Drop for VirtioCard {
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
