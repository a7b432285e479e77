//! What a VM's processes have in common, as its devices use it.

use crate::dma::Dma;
use crate::error::DevicesError;
use crate::gate::WorkerGate;
use quasar_abi::dirty::PageMaps;
use quasar_abi::grants::DevicesGrants;
use quasar_abi::machine;
use quasar_abi::saved::{DEVICE_SLOTS, DeviceSlot};
use quasar_abi::vm::{Vm, pause};
use quasar_abi::{GuestRam, Segment, SegmentKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What every device may need of its VM.
#[derive(Clone, Debug)]
pub struct DeviceHost {
    /// The control block.
    pub vm: Vm,
    /// Guest memory.
    pub dma: Arc<Dma>,
    /// What brings workers to rest.
    pub gate: Arc<WorkerGate>,
    /// Saved state.
    pub saved: Arc<Segment>,
    /// Consoles.
    pub consoles: Arc<Segment>,
}

impl DeviceHost {
    /// Attaches to a VM.
    ///
    /// # Errors
    /// [`DevicesError::Segment`].
    pub fn attach(grants: &DevicesGrants) -> Result<Self, DevicesError> {
        let vm = Vm::attach(&grants.control)?;
        let ram = GuestRam::attach(&grants.ram, machine::RAM_BASE)?;
        let maps = PageMaps::attach(&grants.maps, machine::RAM_BASE, ram.len())?;
        let saved = Arc::new(Segment::attach(&grants.devices, SegmentKind::Devices)?);
        saved.slice::<DeviceSlot>(0, DEVICE_SLOTS)?;
        let consoles = Arc::new(Segment::attach(&grants.console, SegmentKind::Console)?);
        let dma = Arc::new(Dma::new(vm.clone(), ram, maps));
        Ok(Self { vm, dma, gate: Arc::default(), saved, consoles })
    }

    /// Whether the VM is still on its way from another host.
    #[must_use]
    pub fn arriving(&self) -> bool {
        self.vm.pause_mask.load(Ordering::SeqCst) & pause::MIGRATOR != 0
    }
}
