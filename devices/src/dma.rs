//! Devices' access to guest memory: the one place where they write it, and where each write is marked.

use parking_lot::RwLock;
use quasar_abi::GuestRam;
use quasar_abi::dirty::PageMaps;
use quasar_abi::party::PartyId;
use quasar_abi::ram::NotRam;
use quasar_abi::vm::Vm;
use std::sync::atomic::Ordering;

/// Guest memory as devices see it.
#[derive(Debug)]
pub struct Dma {
    vm: Vm,
    ram: GuestRam,
    maps: PageMaps,
    /// Held shared from before a write until after its mark. An epoch is acknowledged under the exclusive
    /// lock, that is when every write of the old epoch has its mark.
    marking: RwLock<()>,
}

impl Dma {
    /// Access to `ram`, marking in `maps`.
    #[must_use]
    pub fn new(vm: Vm, ram: GuestRam, maps: PageMaps) -> Self {
        Self { vm, ram, maps, marking: RwLock::new(()) }
    }

    /// Whether `[gpa, gpa + len)` is RAM.
    #[must_use]
    pub fn contains(&self, gpa: u64, len: u64) -> bool {
        self.ram.contains(gpa, len)
    }

    /// Copies guest memory out.
    ///
    /// # Errors
    /// [`NotRam`].
    pub fn read(&self, gpa: u64, out: &mut [u8]) -> Result<(), NotRam> {
        self.ram.read(gpa, out)
    }

    /// Loads an aligned 16-bit ring index (acquire).
    ///
    /// # Errors
    /// [`NotRam`].
    pub fn load16(&self, gpa: u64) -> Result<u16, NotRam> {
        self.ram.load16(gpa)
    }

    /// Copies bytes into guest memory and marks the pages.
    ///
    /// # Errors
    /// [`NotRam`]; nothing was written.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), NotRam> {
        self.marked(gpa, bytes.len() as u64, |ram| ram.write(gpa, bytes))
    }

    /// Stores an aligned 16-bit ring index (release) and marks the page.
    ///
    /// # Errors
    /// [`NotRam`]; nothing was written.
    pub fn store16(&self, gpa: u64, value: u16) -> Result<(), NotRam> {
        self.marked(gpa, 2, |ram| ram.store16(gpa, value))
    }

    fn marked(
        &self,
        gpa: u64,
        len: u64,
        write: impl FnOnce(&GuestRam) -> Result<(), NotRam>,
    ) -> Result<(), NotRam> {
        let _marking = self.marking.read();
        write(&self.ram)?;
        // Both loads come after the write. If they still see the old values, the acknowledgement that lets
        // the collector copy the page comes after our guard, and thus after the write and its mark.
        if self.vm.log_active.load(Ordering::SeqCst) != 0 {
            self.maps.mark(self.vm.epoch.load(Ordering::SeqCst), gpa, len);
        }
        Ok(())
    }

    /// Writes `[offset, offset + len)` of a disk and marks it in the disk's maps, under the same rules as
    /// guest memory: an epoch is acknowledged only when its writes have their marks.
    pub fn write_disk<T>(
        &self,
        maps: Option<&PageMaps>,
        offset: u64,
        len: u64,
        write: impl FnOnce() -> T,
    ) -> T {
        let _marking = self.marking.read();
        let written = write();
        if let Some(maps) = maps
            && self.vm.log_active.load(Ordering::SeqCst) != 0
        {
            maps.mark(self.vm.epoch.load(Ordering::SeqCst), offset, len);
        }
        written
    }

    /// Acknowledges the current epoch if that is still to be done.
    pub fn acknowledge_epoch(&self) {
        let acknowledged = &self.vm.party(PartyId::Devices).epoch_ack;
        if acknowledged.get() != self.vm.epoch.load(Ordering::SeqCst) {
            let _none_marking = self.marking.write();
            acknowledged.store(self.vm.epoch.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }
}
