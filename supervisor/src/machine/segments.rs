//! A machine's shared memory, owned by this process and removed with it.

use super::grants::{BootGrants, VmGrants};
use crate::children::watch;
use quasar_abi::console::ConsoleSegment;
use quasar_abi::dirty::{PageMaps, maps_bytes};
use quasar_abi::frames::PortSegment;
use quasar_abi::machine::RAM_BASE;
use quasar_abi::ram::PAGE_BYTES;
use quasar_abi::saved::{DEVICE_SLOTS, DEVICES_SEGMENT_BYTES, DeviceSlot};
use quasar_abi::segment::HEADER_BYTES;
use quasar_abi::tlb::{HartTlb, TLB_SEGMENT_BYTES};
use quasar_abi::vm::{CONTROL_BYTES, Vm};
use quasar_abi::{GuestRam, Segment, SegmentError, SegmentKind, View};
use quasar_api::MachineConfig;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const PREFIX: &str = "quasar-";

/// The segments of one VM and the views of them that the supervisor needs.
#[derive(Debug)]
pub struct Machine {
    /// What there is to give to its processes.
    pub grants: VmGrants,
    /// The control block.
    pub vm: Vm,
    /// Guest memory.
    pub ram: GuestRam,
    tlb: Arc<Segment>,
    console: View<ConsoleSegment>,
    devices: Segment,
    maps: PageMaps,
}

/// What a segment is called in messages and lists of mappings: `/quasar-<pid>-<vm>-<kind>`. It has that name, with a part
/// that nobody can guess, for the moment in which it is made; who is killed then leaves it, and a later daemon knows whose
/// it was.
#[must_use]
pub fn segment_name(vm: &str, kind: &str) -> String {
    format!("/{PREFIX}{}-{vm}-{kind}", std::process::id())
}

impl Machine {
    /// Makes the segments of a machine, all zero but for its sizes.
    ///
    /// # Errors
    /// [`SegmentError`] when shared memory is short or the names are taken.
    pub fn create(id: &str, config: &MachineConfig) -> Result<Self, SegmentError> {
        let name = |kind| segment_name(id, kind);
        let make = |kind, what, len: u64| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            Segment::create(&name(what), kind, len, 1)
        };
        let control = make(SegmentKind::Control, "control", CONTROL_BYTES as u64)?;
        let ram = make(SegmentKind::Ram, "ram", config.memory)?;
        let tlb = make(SegmentKind::Tlb, "tlb", TLB_SEGMENT_BYTES as u64)?;
        let maps = make(SegmentKind::Maps, "maps", maps_bytes(config.memory))?;
        let devices = make(SegmentKind::Devices, "devices", DEVICES_SEGMENT_BYTES as u64)?;
        let console = make(SegmentKind::Console, "console", size_of::<ConsoleSegment>() as u64)?;
        let console: View<ConsoleSegment> = View::new(Arc::new(console), 0)?;
        tlb.slice::<HartTlb>(0, usize::from(config.harts))?;
        let grants = VmGrants {
            vm: id.to_owned(),
            control: control.grant(),
            ram: ram.grant(),
            tlb: tlb.grant(),
            maps: maps.grant(),
            devices: devices.grant(),
            console: console.segment().grant(),
        };
        let vm = Vm::new(Arc::new(control))?;
        vm.ram_bytes.set(config.memory);
        vm.harts.set(config.harts.into());
        let ram = GuestRam::new(Arc::new(ram), RAM_BASE);
        let maps = PageMaps::new(Arc::new(maps), RAM_BASE, config.memory)?;
        Ok(Self { grants, vm, ram, tlb: Arc::new(tlb), console, devices, maps })
    }

    /// What is filled and set up when it starts.
    #[must_use]
    pub fn to_boot(&self) -> ToBoot {
        ToBoot { vm: self.vm.clone(), ram: self.ram.clone(), tlb: Arc::clone(&self.tlb) }
    }

    /// The consoles.
    #[must_use]
    pub fn consoles(&self) -> &ConsoleSegment {
        &self.console
    }

    /// Marks all of RAM as written, when writes are logged: the supervisor has just filled it anew, and what
    /// the log has missed would be missed at the VM's next place.
    pub fn mark_everything(&self) {
        while self.vm.log_active.load(Ordering::SeqCst) != 0 {
            let epoch = self.vm.epoch.load(Ordering::SeqCst);
            self.maps.mark(epoch, RAM_BASE, self.ram.len());
            // A mark in an epoch that was closed meanwhile may have come after its collection.
            if self.vm.epoch.load(Ordering::SeqCst) == epoch {
                return;
            }
        }
    }

    /// The devices' saved states, by slot.
    pub(super) fn saved_devices(&self) -> &[DeviceSlot] {
        self.devices.slice(0, DEVICE_SLOTS).unwrap_or(&[])
    }

    /// The file that holds RAM, and where in it RAM begins: reading it leaves holes holes.
    pub(super) fn ram_file(&self) -> std::io::Result<(File, u64)> {
        Ok((self.ram.segment().file()?, HEADER_BYTES as u64))
    }

    /// Bytes of shared memory that the segments other than RAM occupy at most.
    #[must_use]
    pub fn overhead_bytes(&self) -> u64 {
        (self.tlb.len() + self.console.segment().len() + self.devices.len() + CONTROL_BYTES) as u64
    }
}

/// What of a machine is filled and set up when it starts, and nothing else of it.
#[derive(Debug)]
pub struct ToBoot {
    /// The control block.
    pub vm: Vm,
    /// Guest memory.
    pub ram: GuestRam,
    tlb: Arc<Segment>,
}

impl ToBoot {
    /// Attaches to a machine that another process has made.
    ///
    /// # Errors
    /// [`SegmentError`] when it is not there, or is not this configuration's.
    pub fn attach(grants: &BootGrants, config: &MachineConfig) -> Result<Self, SegmentError> {
        let tlb = Arc::new(Segment::attach(&grants.tlb, SegmentKind::Tlb)?);
        tlb.slice::<HartTlb>(0, usize::from(config.harts))?;
        let (vm, ram) = (Vm::attach(&grants.control)?, GuestRam::attach(&grants.ram, RAM_BASE)?);
        Ok(Self { vm, ram, tlb })
    }

    /// The translation caches, one per hart.
    #[must_use]
    pub fn tlbs(&self) -> &[HartTlb] {
        let harts = usize::try_from(self.vm.harts.get()).unwrap_or(0);
        self.tlb.slice(0, harts).unwrap_or(&[])
    }
}

/// Makes the packet rings of a VM's network card.
///
/// # Errors
/// See [`Segment::create`].
pub fn create_port(vm: &str) -> Result<Segment, SegmentError> {
    Segment::create(&segment_name(vm, "port0"), SegmentKind::Port, size_of::<PortSegment>(), 1)
}

/// Makes the dirty maps of a disk.
///
/// # Errors
/// See [`Segment::create`].
pub fn create_disk_maps(vm: &str, slot: u8, bytes: u64) -> Result<Segment, SegmentError> {
    let len = usize::try_from(maps_bytes(bytes.next_multiple_of(PAGE_BYTES))).unwrap_or(usize::MAX);
    Segment::create(&segment_name(vm, &format!("disk{slot}")), SegmentKind::Maps, len, 1)
}

/// The process that made a segment of this file name, if it is one of ours.
fn creator(file_name: &str) -> Option<u32> {
    file_name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Whether a process is there and has not ended: one that nobody has waited for yet is gone all the same.
fn is_alive(pid: u32) -> bool {
    watch::observe(pid).is_some()
}

fn remove_where(directory: &Path, unwanted: impl Fn(&str, u32) -> bool) -> std::io::Result<Vec<String>> {
    let mut removed = vec![];
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if creator(&name).is_some_and(|pid| unwanted(&name, pid))
            && std::fs::remove_file(entry.path()).is_ok()
        {
            removed.push(name);
        }
    }
    Ok(removed)
}

/// Removes the names of segments in `directory` whose creator is gone: killed while it made them. Returns them.
///
/// # Errors
/// When the directory cannot be read.
pub fn remove_stale(directory: &Path) -> std::io::Result<Vec<String>> {
    remove_where(directory, |_, pid| !is_alive(pid))
}

/// Removes this process' own segments, before it ends: a thread may just be making one.
///
/// # Errors
/// When the directory cannot be read.
pub fn remove_own(directory: &Path) -> std::io::Result<Vec<String>> {
    remove_where(directory, |_, pid| pid == std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_creator() {
        assert_eq!(creator("quasar-123-web-ram"), Some(123));
        assert_eq!(creator("quasar-test-5-x"), None);
        assert_eq!(creator("sem.quasar-1-a"), None);
        assert_eq!(creator(&segment_name("web", "ram")[1..]), Some(std::process::id()));
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = std::process::Command::new("true").spawn().expect("spawn");
        let stat = format!("/proc/{}/stat", child.id());
        while !std::fs::read_to_string(&stat).expect("stat").contains(") Z") {
            std::thread::yield_now();
        }
        assert!(!is_alive(child.id()) && is_alive(std::process::id()));
        child.wait().expect("wait");
    }

    #[test]
    fn only_segments_of_dead_processes_are_removed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mine = format!("quasar-{}-a-ram", std::process::id());
        // Above the kernel's largest possible process id.
        let dead = "quasar-4194999-a-ram";
        for name in [mine.as_str(), dead, "quasar-test-1-a", "other"] {
            std::fs::write(dir.path().join(name), "").expect("write");
        }
        assert_eq!(remove_stale(dir.path()).expect("remove"), [dead]);
        assert!(dir.path().join(&mine).exists() && dir.path().join("other").exists());
        assert_eq!(remove_own(dir.path()).expect("remove"), [mine]);
        assert!(dir.path().join("other").exists());
    }
}
