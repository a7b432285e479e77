//! Disks for which the host has no room: the devices have paused the VM, and its status says why.

use super::{Controller, Step};
use quasar_abi::machine::{VIRTIO_SLOTS, VirtioDevice};
use quasar_abi::vm::{VmControl, full, pause};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// The VM's disks, and which of them wait for room.
#[derive(Debug, Default)]
pub(super) struct Disks {
    /// By virtio slot.
    paths: Vec<Option<PathBuf>>,
    /// Why each waits, as it was seen last.
    full: [u8; VIRTIO_SLOTS],
    waiting: Option<String>,
}

impl Disks {
    pub(super) fn of(virtio: &[VirtioDevice]) -> Self {
        let path = |device: &VirtioDevice| match device {
            VirtioDevice::Block { path, .. } => Some(path.clone()),
            _ => None,
        };
        Self { paths: virtio.iter().map(path).collect(), ..Self::default() }
    }

    /// What the VM waits for, in words.
    pub(super) fn waiting(&self) -> Option<String> {
        self.waiting.clone()
    }

    /// Looks again; returns whether anything changed.
    fn look(&mut self, vm: &VmControl) -> bool {
        let held = vm.pause_mask.load(Ordering::SeqCst) & pause::DISK != 0;
        let full = if held { vm.full_disks.load(Ordering::SeqCst) } else { 0 }.to_le_bytes();
        if full == self.full {
            return false;
        }
        self.full = full;
        let words = |(path, why): (&Option<PathBuf>, &u8)| {
            let why = match *why {
                0 => return None,
                full::QUOTA => "the quota of this user is used up",
                full::FILE_SIZE => "its file may not become longer (ulimit -f)",
                _ => "its file system is full",
            };
            Some(format!("no room on the host for disk {}: {why}", path.as_deref()?.display()))
        };
        let words: Vec<String> = self.paths.iter().zip(&self.full).filter_map(words).collect();
        self.waiting = (!words.is_empty())
            .then(|| format!("{}; it goes on when there is room, or by `quasar resume`", words.join(", ")));
        true
    }
}

impl Controller {
    /// Says what the VM waits for, and that it goes on.
    pub(super) fn look_at_disks(&mut self) {
        if matches!(self.step, Step::Failed | Step::Done) {
            return;
        }
        let before = self.disks.waiting();
        if !self.disks.look(&self.machine.vm) {
            return;
        }
        let now = self.disks.waiting();
        if before != now {
            match &now {
                Some(why) => self.note(&format!("the VM is paused: {why}")),
                None => self.note("the VM goes on: its disks are tried again"),
            }
            let unclear = self.unclear.clone();
            self.board.update(|status| status.reason = unclear.or(now));
        }
        self.show();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::machine::OnEnospc;
    use quasar_abi::vm::{CONTROL_BYTES, Vm};
    use quasar_abi::{Segment, SegmentKind};
    use std::sync::Arc;

    #[test]
    fn each_disk_that_waits_is_named_with_its_reason() {
        let name = format!("/quasar-test-{}-full-disks", std::process::id());
        let control = Segment::create(&name, SegmentKind::Control, CONTROL_BYTES, 1).expect("segment");
        let vm = Vm::new(Arc::new(control)).expect("control block");
        let disk = |path: &str| VirtioDevice::Block {
            path: path.into(),
            read_only: false,
            serial: String::new(),
            maps: None,
            on_enospc: OnEnospc::Pause,
        };
        let mut disks = Disks::of(&[disk("/a"), disk("/b"), VirtioDevice::Console]);
        assert!(!disks.look(&vm));
        vm.wait_for_room(1, full::QUOTA);
        assert!(disks.look(&vm) && !disks.look(&vm));
        assert!(
            disks.waiting().expect("one").starts_with(
                "no room on the host for disk /b: the quota of this user is used up; it goes on"
            )
        );
        vm.wait_for_room(0, full::FILE_SYSTEM);
        assert!(disks.look(&vm));
        assert!(
            disks
                .waiting()
                .expect("both")
                .starts_with("no room on the host for disk /a: its file system is full, no room on")
        );
        vm.try_room(1);
        assert_eq!(vm.pause_mask.get(), pause::DISK, "one waits still");
        vm.try_room(0);
        assert!(disks.look(&vm));
        assert_eq!((disks.waiting(), vm.pause_mask.get()), (None, 0));
    }
}
