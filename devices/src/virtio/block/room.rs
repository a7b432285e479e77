//! A host that has no room for a guest's write: the VM stands still, the request stays where it is, and is tried again.

use super::backing::Backing;
use crate::virtio::shared::Shared;
use nix::errno::Errno;
use quasar_abi::vm::{full, pause};
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often it is looked whether the VM was let go on.
const LOOK: Duration = Duration::from_millis(20);
/// How often it is looked whether there is room.
const PROBE: Duration = Duration::from_millis(500);

/// What there was no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// A value of [`full`].
    pub why: u8,
    /// First byte of the disk.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl NoRoom {
    /// Of an error in writing this range; `None` when it is another kind of error.
    #[must_use]
    pub fn of(error: &io::Error, offset: u64, len: u64) -> Option<Self> {
        let why = match Errno::from_raw(error.raw_os_error()?) {
            Errno::ENOSPC => full::FILE_SYSTEM,
            Errno::EDQUOT => full::QUOTA,
            Errno::EFBIG => full::FILE_SIZE,
            _ => return None,
        };
        Some(Self { why, offset, len })
    }
}

/// Worker, without a pass: pauses the VM and waits until there is room, or somebody lets the VM go on, or the card sends
/// the worker home. Then the request is to be tried again, by a later process if need be.
pub fn wait(card: &Shared, backing: &Backing, what: NoRoom) {
    let (vm, slot) = (&card.host.vm, card.slot);
    log::warn!(
        "disk {}: the host has no room for {} bytes at {}; the VM is paused until there is",
        backing.path().display(),
        what.len,
        what.offset
    );
    vm.wait_for_room(slot, what.why);
    let mut probed = Instant::now();
    while vm.pause_mask.load(Ordering::SeqCst) & pause::DISK != 0 {
        if card.stopped() {
            return;
        }
        if probed.elapsed() >= PROBE {
            if backing.has_room(what.offset, what.len) {
                break;
            }
            probed = Instant::now();
        }
        std::thread::sleep(LOOK);
    }
    vm.try_room(slot);
}

/// Worker, first of all: what a process before this one waited for is tried again.
pub fn resume(card: &Shared) {
    if card.host.vm.full_disk(card.slot).is_some() {
        card.host.vm.try_room(card.slot);
    }
}
