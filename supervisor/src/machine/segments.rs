//! A machine's shared memory, owned by this process and removed with it.

use quasar_abi::console::ConsoleSegment;
use quasar_abi::dirty::{PageMaps, maps_bytes};
use quasar_abi::frames::PortSegment;
use quasar_abi::machine::{RAM_BASE, VmSegments};
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

/// The segments of one VM and the views of them that the supervisor needs. Dropping it removes their names.
#[derive(Debug)]
pub struct Machine {
    /// Names, as the children are told.
    pub names: VmSegments,
    /// The control block.
    pub vm: Vm,
    /// Guest memory.
    pub ram: GuestRam,
    tlb: Segment,
    console: View<ConsoleSegment>,
    devices: Segment,
    maps: PageMaps,
}

/// A segment's name: `/quasar-<pid>-<vm>-<kind>`, so that a later daemon knows whose it was.
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
        let console = View::new(Arc::new(console), 0)?;
        tlb.slice::<HartTlb>(0, usize::from(config.harts))?;
        let names = VmSegments {
            vm: id.to_owned(),
            control: name("control"),
            ram: name("ram"),
            tlb: name("tlb"),
            maps: name("maps"),
            devices: name("devices"),
            console: name("console"),
        };
        let vm = Vm::new(Arc::new(control))?;
        vm.ram_bytes.set(config.memory);
        vm.harts.set(config.harts.into());
        let ram = GuestRam::new(Arc::new(ram), RAM_BASE);
        let maps = PageMaps::new(Arc::new(maps), RAM_BASE, config.memory)?;
        Ok(Self { names, vm, ram, tlb, console, devices, maps })
    }

    /// Attaches to a machine that another process has made.
    ///
    /// # Errors
    /// [`SegmentError`] when it is not there, or is not this configuration's.
    pub fn attach(names: &VmSegments, config: &MachineConfig) -> Result<Self, SegmentError> {
        let tlb = Segment::attach(&names.tlb, SegmentKind::Tlb)?;
        tlb.slice::<HartTlb>(0, usize::from(config.harts))?;
        let console = Segment::attach(&names.console, SegmentKind::Console)?;
        let console = View::new(Arc::new(console), 0)?;
        let devices = Segment::attach(&names.devices, SegmentKind::Devices)?;
        let vm = Vm::new(Arc::new(Segment::attach(&names.control, SegmentKind::Control)?))?;
        let ram = GuestRam::attach(&names.ram, RAM_BASE)?;
        let maps = PageMaps::attach(&names.maps, RAM_BASE, config.memory)?;
        Ok(Self { names: names.clone(), vm, ram, tlb, console, devices, maps })
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

    /// The translation caches, one per hart.
    #[must_use]
    pub fn tlbs(&self) -> &[HartTlb] {
        let harts = usize::try_from(self.vm.harts.get()).unwrap_or(0);
        self.tlb.slice(0, harts).unwrap_or(&[])
    }

    /// The devices' saved states, by slot.
    pub(super) fn saved_devices(&self) -> &[DeviceSlot] {
        self.devices.slice(0, DEVICE_SLOTS).unwrap_or(&[])
    }

    /// The file that holds RAM, and where in it RAM begins: reading it leaves holes holes.
    pub(super) fn ram_file(&self) -> std::io::Result<(File, u64)> {
        let file = File::open(Path::new("/dev/shm").join(self.names.ram.trim_start_matches('/')))?;
        Ok((file, HEADER_BYTES as u64))
    }

    /// Bytes of shared memory that the segments other than RAM occupy at most.
    #[must_use]
    pub fn overhead_bytes(&self) -> u64 {
        (self.tlb.len() + self.console.segment().len() + self.devices.len() + CONTROL_BYTES) as u64
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
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let state = stat.as_deref().ok().and_then(|s| s.rsplit_once(") ")?.1.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
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

/// Removes the segments in `directory` whose creator is gone; returns their names.
///
/// # Errors
/// When the directory cannot be read.
pub fn remove_stale(directory: &Path) -> std::io::Result<Vec<String>> {
    remove_where(directory, |_, pid| !is_alive(pid))
}

/// Removes this process' own segments, before it ends: someone may still be looking at one (a console that is
/// attached), and would take it along without removing its name.
///
/// # Errors
/// When the directory cannot be read.
pub fn remove_own(directory: &Path) -> std::io::Result<Vec<String>> {
    remove_where(directory, |_, pid| pid == std::process::id())
}

/// Removes what killed processes have left of their machine `id`, before this one makes its own: it may have been
/// given the process id of one of them. Machines of other names are the daemon's to take care of.
///
/// # Errors
/// When the directory cannot be read.
pub fn remove_left(directory: &Path, id: &str) -> std::io::Result<Vec<String>> {
    remove_where(directory, |name, pid| {
        // A name of more parts is that of a machine with a hyphen in its own name.
        let parts: Vec<&str> = name.split('-').collect();
        parts.len() == 4 && parts[2] == id && (pid == std::process::id() || !is_alive(pid))
    })
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
        let (of_killed, of_namesake) = ("quasar-4194999-isa-ram", &segment_name("isa", "ram")[1..]);
        let other = "quasar-4194999-isa-b.1-ram";
        for name in [of_killed, of_namesake, dead, other] {
            std::fs::write(dir.path().join(name), "").expect("write");
        }
        let mut left = remove_left(dir.path(), "isa").expect("remove");
        left.sort_by_key(|name| name != of_killed);
        assert_eq!(left, [of_killed, of_namesake]);
        assert!(dir.path().join(dead).exists() && dir.path().join(other).exists());
        assert!(dir.path().join(&mine).exists());
        assert_eq!(remove_own(dir.path()).expect("remove"), [mine]);
        assert!(dir.path().join("other").exists());
    }
}
