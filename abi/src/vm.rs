//! The control block of a VM: parties, pauses, epochs, requests, mailboxes, counters.
//!
//! The interfaces whose mailboxes lie in it have files of their own ([`crate::hart_mmu`], [`crate::hart_devices`]), and so
//! have those with segments of their own: cards and switch ([`crate::frames`]), consoles ([`crate::console`]).

use crate::clock::VmClock;
#[cfg(not(loom))]
use crate::grants::Grant;
use crate::hart::{HartControl, HartCounters, PmpBlock, PublishedHart};
use crate::hart_devices::MmioMailbox;
use crate::hart_mmu::{MmuCounters, MmuMailbox};
use crate::le::{AtomicLe32, AtomicLe64};
use crate::machine::VIRTIO_SLOTS;
use crate::mailbox::Mailbox;
use crate::party::{MAX_HARTS, MAX_PARTIES, Party, PartyId, attention, status};
#[cfg(not(loom))]
use crate::segment::SegmentKind;
use crate::segment::{Segment, SegmentError, View};
use crate::shm_struct;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Who holds the VM paused: bits of [`VmControl::pause_mask`]. It runs while all are zero.
pub mod pause {
    /// The user (`quasar pause`).
    pub const USER: u32 = 1 << 0;
    /// The migrator, for the switch.
    pub const MIGRATOR: u32 = 1 << 1;
    /// The supervisor, while it starts, swaps or restarts a process.
    pub const SUPERVISOR: u32 = 1 << 2;
    /// The guest asked for poweroff or reboot, or a bare program ended ([`super::request`]).
    pub const GUEST: u32 = 1 << 3;
    /// A process of the VM failed and cannot be restarted.
    pub const FAILED: u32 = 1 << 4;
    /// A hart reached its instruction limit; or there is one, and in deterministic mode nothing can wake the hart.
    pub const LIMIT: u32 = 1 << 5;
    /// The supervisor, while it copies the VM.
    pub const COPY: u32 = 1 << 6;
    /// A disk has no room on the host ([`super::VmControl::full_disks`]). Lifted by the devices when there is room, or
    /// by the user, who has it tried again.
    pub const DISK: u32 = 1 << 7;
    /// A process that the guest needs dies again and again, or has no room on the host.
    pub const TROUBLE: u32 = 1 << 8;
}

/// Why a disk's file takes no more: the bytes of [`VmControl::full_disks`], zero for none.
pub mod full {
    /// Its file system is full.
    pub const FILE_SYSTEM: u8 = 1;
    /// The user's quota is used up.
    pub const QUOTA: u8 = 2;
    /// The file would become longer than this system or process may make it.
    pub const FILE_SIZE: u8 = 3;
}

/// Values of [`VmControl::guest_request`].
pub mod request {
    /// Nothing asked.
    pub const NONE: u32 = 0;
    /// Power off.
    pub const POWEROFF: u32 = 1;
    /// Reset and start again.
    pub const REBOOT: u32 = 2;
    /// Power off and report a failure (`guest_request_code`).
    pub const FAILURE: u32 = 3;
    /// A bare program wrote `tohost` with the value in `guest_request_code` (HTIF exit).
    pub const HTIF_EXIT: u32 = 4;
}

shm_struct! {
    /// Everything of a VM that is not memory, translations, maps, device state or consoles.
    pub struct VmControl: 52_224 => {
        /// Bytes of RAM.
        pub ram_bytes: AtomicLe64,
        /// Number of harts.
        pub harts: AtomicLe32,
        /// [`pause`] bits; change them through [`VmControl::pause`] and [`VmControl::unpause`].
        pub pause_mask: AtomicLe32,
        /// [`request`]; set by whoever serves the guest's wish, cleared by the supervisor.
        pub guest_request: AtomicLe32,
        /// Non-zero while writes are logged ([`crate::dirty`]).
        pub log_active: AtomicLe32,
        /// What came with the request.
        pub guest_request_code: AtomicLe64,
        /// The current epoch ([`crate::dirty`]).
        pub epoch: AtomicLe64,
        /// Non-zero while pages may be absent.
        pub residency_active: AtomicLe32,
        /// Zero.
        pub reserved0: AtomicLe32,
        /// HTIF: guest-physical address of `tohost`, 0 when the VM is not a bare program.
        pub tohost: AtomicLe64,
        /// HTIF: guest-physical address of `fromhost`.
        pub fromhost: AtomicLe64,
        /// HTIF: a command waits in `htif_value`; the hart that posted it waits for the supervisor's answer.
        pub htif: Mailbox,
        /// HTIF: the value written to `tohost`.
        pub htif_value: AtomicLe64,
        /// A hart parks with [`pause::LIMIT`] when it has executed this many instructions, those that trapped
        /// included; 0 for no limit.
        pub instruction_limit: AtomicLe64,
        /// The disks that wait for room on the host: byte n is virtio slot n's, a value of [`full`].
        pub full_disks: AtomicLe64,
        /// Zero.
        pub reserved1: [AtomicLe64; 3],
        /// Queue notifications posted by harts: bit q of slot n is queue q of virtio slot n.
        pub notifications: [AtomicLe64; VIRTIO_SLOTS],
        /// Guest time.
        pub clock: VmClock,
        /// The mmu process's counters.
        pub mmu_counters: MmuCounters,
        /// By [`PartyId::slot`].
        pub parties: [Party; MAX_PARTIES],
        /// Per hart: what others do to it.
        pub hart_control: [HartControl; MAX_HARTS],
        /// Per hart: requests to the mmu.
        pub mmu_mail: [MmuMailbox; MAX_HARTS],
        /// Per hart: requests to the devices.
        pub mmio_mail: [MmioMailbox; MAX_HARTS],
        /// Per hart: counters.
        pub counters: [HartCounters; MAX_HARTS],
        /// Per hart: architectural state.
        pub hart_state: [PublishedHart; MAX_HARTS],
        /// Per hart: what the mmu checks its accesses by.
        pub pmp: [PmpBlock; MAX_HARTS],
        /// Zero.
        pub reserved2: [AtomicLe64; 16],
    }
}

/// Payload bytes of the control segment.
pub const CONTROL_BYTES: usize = size_of::<VmControl>();

/// The control block as attached by this process. Cheap to clone; derefs to [`VmControl`].
#[derive(Clone, Debug)]
pub struct Vm {
    control: View<VmControl>,
}

impl std::ops::Deref for Vm {
    type Target = VmControl;
    fn deref(&self) -> &VmControl {
        &self.control
    }
}

impl Vm {
    /// Attaches to a VM's control segment.
    ///
    /// # Errors
    /// See [`Segment::attach`].
    #[cfg(not(loom))]
    pub fn attach(grant: &Grant) -> Result<Self, SegmentError> {
        Self::new(Arc::new(Segment::attach(grant, SegmentKind::Control)?))
    }

    /// Takes an attached or created segment.
    ///
    /// # Errors
    /// [`SegmentError::Range`] when it is too small.
    pub fn new(segment: Arc<Segment>) -> Result<Self, SegmentError> {
        Ok(Self { control: View::new(segment, 0)? })
    }
}

/// Parties did not come to rest in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} did not reach a safepoint within {waited:?}; is the process hung or gone?",
    .who.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
)]
pub struct NotParked {
    /// Who is still running.
    pub who: Vec<PartyId>,
    /// How long was waited.
    pub waited: Duration,
}

impl VmControl {
    /// A party's slot.
    #[must_use]
    pub fn party(&self, id: PartyId) -> &Party {
        &self.parties[id.slot()]
    }

    /// The parties that change guest memory or state on their own: the harts there are, and the devices.
    /// The mmu acts only for a waiting hart and is at rest when they are.
    pub fn actors(&self) -> impl Iterator<Item = PartyId> {
        let harts = self.harts.get().min(u32::try_from(MAX_HARTS).unwrap_or(u32::MAX));
        (0..u8::try_from(harts).unwrap_or(0)).map(PartyId::Hart).chain([PartyId::Devices])
    }

    /// Asks everyone to park, for the reason given by [`pause`] bits. Returns at once.
    pub fn pause(&self, why: u32) {
        self.pause_mask.fetch_or(why, Ordering::SeqCst);
        for id in self.actors() {
            self.party(id).call(attention::PAUSE);
        }
    }

    /// Withdraws a reason to be paused.
    pub fn unpause(&self, why: u32) {
        self.pause_mask.fetch_and(!why, Ordering::SeqCst);
        for id in self.actors() {
            self.party(id).call(attention::PAUSE);
        }
    }

    /// Whether every actor is parked or absent.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.actors().all(|id| self.party(id).status.load(Ordering::SeqCst) != status::RUNNING)
    }

    /// Waits until every actor is parked or absent. Call [`VmControl::pause`] first.
    ///
    /// # Errors
    /// [`NotParked`] after `timeout`.
    pub fn wait_at_rest(&self, timeout: Duration) -> Result<(), NotParked> {
        let start = Instant::now();
        while !self.at_rest() {
            if start.elapsed() > timeout {
                let running = |id: &PartyId| self.party(*id).status.load(Ordering::SeqCst) == status::RUNNING;
                return Err(NotParked { who: self.actors().filter(running).collect(), waited: timeout });
            }
            if start.elapsed() < Duration::from_micros(200) {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        Ok(())
    }

    /// A party's half of the pause: declares itself running unless a pause is on. Returns whether it may run.
    ///
    /// SeqCst pairs with [`VmControl::pause`] and [`VmControl::at_rest`]: either the requester sees us
    /// running and waits, or we see its mask and park again before we have changed anything.
    #[must_use]
    pub fn try_run(&self, me: PartyId) -> bool {
        let party = self.party(me);
        party.status.store(status::RUNNING, Ordering::SeqCst);
        if self.pause_mask.load(Ordering::SeqCst) == 0 {
            return true;
        }
        party.status.store(status::PARKED, Ordering::SeqCst);
        false
    }

    /// Declares that `me` is parked: its state is published and it changes nothing until
    /// [`VmControl::try_run`] says so.
    pub fn park(&self, me: PartyId) {
        self.party(me).status.store(status::PARKED, Ordering::SeqCst);
    }

    /// Collector: starts the next epoch and calls every actor. Returns the epoch that it closes.
    pub fn next_epoch(&self) -> u64 {
        let closed = self.epoch.fetch_add(1, Ordering::SeqCst);
        for id in self.actors() {
            self.party(id).call(attention::EPOCH);
        }
        closed
    }

    /// Collector: whether every running actor has acknowledged the current epoch. Parked and absent
    /// actors hold no writable translations; they acknowledge when they go on.
    #[must_use]
    pub fn epoch_acknowledged(&self) -> bool {
        let epoch = self.epoch.load(Ordering::SeqCst);
        self.actors().all(|id| {
            let party = self.party(id);
            party.epoch_ack.load(Ordering::SeqCst) == epoch
                || party.status.load(Ordering::SeqCst) != status::RUNNING
        })
    }

    /// Devices: the disk at virtio slot `slot` has no room, for a reason of [`full`]. Pauses the VM and tells the
    /// supervisor.
    pub fn wait_for_room(&self, slot: usize, why: u8) {
        self.full_disks.fetch_or(u64::from(why) << (8 * slot), Ordering::SeqCst);
        self.pause(pause::DISK);
        self.party(PartyId::Supervisor).doorbell.ring();
    }

    /// Why the disk at virtio slot `slot` waits for room: a value of [`full`].
    #[must_use]
    pub fn full_disk(&self, slot: usize) -> Option<u8> {
        let bytes = self.full_disks.load(Ordering::SeqCst).to_le_bytes();
        bytes.get(slot).copied().filter(|why| *why != 0)
    }

    /// Devices: that disk's write is tried again. The VM goes on when no other disk waits.
    pub fn try_room(&self, slot: usize) {
        let mask = !(0xff_u64 << (8 * slot));
        if self.full_disks.fetch_and(mask, Ordering::SeqCst) & mask == 0 {
            self.unpause(pause::DISK);
        }
        self.party(PartyId::Supervisor).doorbell.ring();
    }

    /// Posts the guest's wish, pauses the VM for it and tells the supervisor.
    pub fn ask(&self, what: u32, code: u64) {
        self.guest_request_code.set(code);
        self.guest_request.store(what, Ordering::Release);
        self.pause(pause::GUEST);
        self.party(PartyId::Supervisor).doorbell.ring();
    }
}
