//! The source's role on the wire: a straight list of phases.
//!
//! 1. *negotiate*: offers are exchanged before anything else, so that two builds that cannot talk find out
//!    at once; then the machine is described, and the destination makes it.
//! 2. *rounds*: writes are logged from before the first page is read, so that nothing written during a
//!    round is missed; every round is closed by an acknowledged epoch before its pages are copied.
//! 3. *pause*: every party parks; from here on the guest notices.
//! 4. *last pages and state*, with the hash over everything.
//! 5. *hand over*: only after the destination has accepted. Up to here every failure ends in
//!    [`Attempt::back`] and the guest goes on here; from here on it never runs here again.
//! 6. *release*: the destination says that it runs.

mod rounds;

use self::rounds::{Converged, Pages, both, drain};
use crate::connection::{Peer, PeerError};
use crate::delta::Copies;
use crate::frame::Kind;
use crate::lanes::{Connect, Lanes};
use crate::message::{self, Accepted, Agreement, Door, Final, HandOver, Machine, Offer, RoundEnd, Running};
use crate::pages::BATCH_PAGES;
use crate::pump::{Area, Guest, Outlet, PumpError};
use crate::state::{StateSegments, gather};
use crate::store::{DiskStore, RamStore};
use anyhow::Context;
use procfs::{Current, Meminfo};
use quasar_abi::control::migrator::{Limits, LocalVm, MigrationEvent, RoundReport};
use quasar_abi::dirty::PageMaps;
use quasar_abi::hash;
use quasar_abi::machine::RAM_BASE;
use quasar_abi::ram::PAGE_BYTES;
use quasar_abi::vm::{Vm, pause, request};
use quasar_abi::{GuestRam, Segment, SegmentKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long parties may take to acknowledge an epoch or to park.
const SAFEPOINT: Duration = Duration::from_secs(5);

pub use self::rounds::close_epoch;

/// How a migration ended.
#[derive(Debug)]
pub enum Outcome {
    /// It runs there.
    Completed(MigrationEvent),
    /// It runs here, whole; nothing has happened.
    StaysHere(anyhow::Error),
    /// It is paused here and may run there.
    Unclear(anyhow::Error),
}

/// A VM on this host, attached.
pub struct AttachedVm {
    /// Control block.
    pub vm: Vm,
    /// RAM, then disks.
    pub areas: Vec<Area>,
    devices: Segment,
    console: Segment,
}

impl AttachedVm {
    /// Attaches to a VM. With `writable` disks are opened to be filled, otherwise to be read with their maps.
    ///
    /// # Errors
    /// When a segment or disk is missing or another than described.
    pub fn open(local: &LocalVm, writable: bool) -> anyhow::Result<Self> {
        let grants = &local.grants;
        let vm = Vm::attach(&grants.control)?;
        let ram = GuestRam::attach(&grants.ram, RAM_BASE)?;
        let maps = PageMaps::attach(&grants.maps, RAM_BASE, ram.len())?;
        let mut areas = vec![Area::new(Box::new(RamStore::new(ram, maps).context("the memory's file")?))];
        for disk in &local.disks {
            let maps = if writable {
                None
            } else {
                Some(PageMaps::attach(&disk.maps, 0, disk.bytes.next_multiple_of(PAGE_BYTES))?)
            };
            let store = DiskStore::open(&disk.path, disk.slot, disk.bytes, maps);
            areas.push(Area::new(Box::new(store.with_context(|| format!("disk {}", disk.path.display()))?)));
        }
        Ok(Self {
            vm,
            areas,
            devices: Segment::attach(&grants.devices, SegmentKind::Devices)?,
            console: Segment::attach(&grants.console, SegmentKind::Console)?,
        })
    }

    /// The segments that hold state.
    #[must_use]
    pub fn state_segments(&self) -> StateSegments<'_> {
        StateSegments { devices: &self.devices, console: &self.console }
    }

    /// The machine as the other side must make it.
    #[must_use]
    pub fn machine(&self, local: &LocalVm) -> Machine {
        Machine {
            description: local.description.clone(),
            ram_bytes: self.areas[0].store.bytes(),
            harts: self.vm.harts.get(),
            disks: local.disks.iter().map(|d| (d.slot, d.bytes)).collect(),
        }
    }
}

/// Sends the VM and says how it ended. `further` makes connections beside the first to a port of the destination's.
pub fn send(
    local: &LocalVm,
    connect: impl FnOnce() -> anyhow::Result<Peer>,
    further: Connect<'_>,
    limits: &Limits,
    cancelled: &Arc<AtomicBool>,
    tell: &mut dyn FnMut(MigrationEvent),
) -> Outcome {
    let attached = match AttachedVm::open(local, false) {
        Ok(attached) => attached,
        Err(error) => return Outcome::StaysHere(error.context("the VM cannot be read")),
    };
    let mut peer = match connect() {
        Ok(peer) => peer,
        Err(error) => return Outcome::StaysHere(error),
    };
    let mut attempt =
        Attempt { attached: &attached, limits, cancelled, start: Instant::now(), handed_over: false };
    match attempt.run(local, &mut peer, further, tell) {
        Ok(done) => {
            attempt.stop_logging();
            Outcome::Completed(done)
        }
        Err(error) if attempt.handed_over => {
            attempt.stop_logging();
            Outcome::Unclear(error)
        }
        Err(error) => {
            attempt.back();
            let heard = matches!(error.downcast_ref(), Some(PeerError::Refused(_)));
            let words = if heard || cancelled.load(Ordering::Acquire) { None } else { peer.last_words() };
            peer.refuse(&quasar_abi::words::whole(error.as_ref()));
            Outcome::StaysHere(match words {
                Some(words) => error.context(format!("the other side says: {words}")),
                None => error,
            })
        }
    }
}

struct Attempt<'a> {
    attached: &'a AttachedVm,
    limits: &'a Limits,
    cancelled: &'a Arc<AtomicBool>,
    start: Instant,
    handed_over: bool,
}

impl Attempt<'_> {
    fn stop_logging(&self) {
        self.attached.vm.log_active.store(0, Ordering::SeqCst);
    }

    /// The way back of every phase before the hand-over: full speed, no log, no pause.
    fn back(&self) {
        self.throttle(0);
        self.stop_logging();
        self.attached.vm.unpause(pause::MIGRATOR);
    }

    fn throttle(&self, permille: u64) {
        for hart in &self.attached.vm.hart_control {
            hart.throttle_permille.set(permille);
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.cancelled.load(Ordering::Acquire) {
            anyhow::bail!(PumpError::Cancelled);
        }
        let limit = self.limits.timeout_s;
        if limit != 0 && self.start.elapsed() > Duration::from_secs(limit) {
            anyhow::bail!("not done within the {limit} s that were allowed");
        }
        Ok(())
    }

    fn run(
        &mut self,
        local: &LocalVm,
        peer: &mut Peer,
        further: Connect<'_>,
        tell: &mut dyn FnMut(MigrationEvent),
    ) -> anyhow::Result<MigrationEvent> {
        tell(MigrationEvent::Phase("negotiate".into()));
        let (agreement, door) = self.negotiate(local, peer)?;
        let areas = &self.attached.areas;
        let mut outlet =
            Outlet::new(areas, agreement.codecs, self.limits.bandwidth, Arc::clone(self.cancelled));
        if agreement.version >= message::DIFFERENCES_SINCE {
            let copies = self.limits.delta_bytes.unwrap_or_else(|| fitting_copies(areas[0].store.bytes()));
            outlet.copies = (copies > 0).then(|| Copies::new(copies));
        }
        if agreement.version >= message::LONG_BATCHES_SINCE {
            outlet.batch_pages = BATCH_PAGES;
        }
        if let Some(door) = door {
            outlet.lanes = Lanes::new(further, door, self.limits.connections, self.cancelled);
        }
        tell(MigrationEvent::Phase("rounds".into()));
        let Converged { rounds, forecast, written } = self.rounds(peer, &outlet, tell)?;
        tell(MigrationEvent::Phase("pause".into()));
        let paused = Instant::now();
        let vm = &self.attached.vm;
        vm.pause(pause::MIGRATOR);
        vm.wait_at_rest(SAFEPOINT)?;
        if vm.guest_request.load(Ordering::Acquire) != request::NONE {
            anyhow::bail!("the guest is powering off or rebooting right now; try again when it is up");
        }
        if vm.pause_mask.load(Ordering::SeqCst) & pause::FAILED != 0 {
            anyhow::bail!(
                "a process of the VM has failed, and what it had not published is lost; see its logs"
            );
        }
        let hash = self.last(peer, &outlet, rounds, written, tell)?;
        let accepted: Accepted = peer.expect(Kind::Accepted).context("the destination did not accept")?;
        if accepted.hash != hash {
            anyhow::bail!(
                "the destination found another hash over RAM and state; the copy is not exact and was dropped"
            );
        }
        self.check()?;
        tell(MigrationEvent::HandingOver);
        // From this message on the guest never runs here again, whatever happens.
        self.handed_over = true;
        peer.commit();
        let paused_ns = u64::try_from(paused.elapsed().as_nanos()).unwrap_or(u64::MAX);
        peer.tell(Kind::HandOver, &HandOver { paused_ns })?;
        let running: Running =
            peer.expect(Kind::Running).context("the destination has not confirmed that it runs")?;
        Ok(MigrationEvent::Completed {
            total_us: micros(self.start.elapsed()),
            downtime_us: running.downtime_ns / 1000,
            forecast_us: micros(forecast),
            wire_bytes: peer.out.bytes() + outlet.lanes.bytes(),
            rounds: rounds + 1,
            hash: hash.iter().map(|b| format!("{b:02x}")).collect(),
        })
    }

    fn negotiate(&self, local: &LocalVm, peer: &mut Peer) -> anyhow::Result<(Agreement, Option<Door>)> {
        peer.tell(Kind::Offer, &Offer::ours())?;
        let agreement: Agreement = peer.expect(Kind::Agreement)?;
        if !message::VERSIONS.contains(&agreement.version) {
            anyhow::bail!(
                "the destination chose stream version {}, which was not offered",
                agreement.version
            );
        }
        peer.tell(Kind::Machine, &self.attached.machine(local))?;
        let cannot = "the destination cannot take the VM";
        if agreement.version >= message::LANES_SINCE {
            let door = peer.expect(Kind::Ready).context(cannot)?;
            return Ok((agreement, Some(door)));
        }
        let () = peer.expect(Kind::Ready).context(cannot)?;
        Ok((agreement, None))
    }

    /// The last pages, `written` ones included, and the state of the paused VM. Returns the hash over everything.
    fn last(
        &self,
        peer: &mut Peer,
        outlet: &Outlet<'_>,
        round: u32,
        written: Pages,
        tell: &mut dyn FnMut(MigrationEvent),
    ) -> anyhow::Result<[u8; 32]> {
        let (vm, areas) = (&self.attached.vm, &self.attached.areas);
        let begun = Instant::now();
        let before = peer.out.bytes() + outlet.lanes.bytes();
        let pages = both(drain(areas, close_epoch(vm)?), written);
        outlet.copies.iter().for_each(Copies::end);
        let sent = outlet.send(&mut peer.out, &pages, Guest::Paused, &mut |_| ())?;
        peer.out
            .write(Kind::RoundEnd, &message::encode(&RoundEnd { round, pages: sent.pages, last: true })?)
            .map_err(PeerError::from)?;
        let payloads = gather(vm, &self.attached.state_segments())?;
        let encoded: Vec<Vec<u8>> = payloads.iter().map(message::encode).collect::<Result<_, _>>()?;
        for payload in &encoded {
            peer.out.write(Kind::State, payload).map_err(PeerError::from)?;
        }
        let hash = hash::whole(areas.iter().map(|a| &a.hashes), encoded.iter().map(Vec::as_slice));
        let payloads = u32::try_from(encoded.len())?;
        peer.tell(Kind::Final, &Final { hash, payloads })?;
        tell(MigrationEvent::Round(RoundReport {
            round,
            pages: sent.pages,
            zero_pages: sent.zero,
            raw_bytes: (sent.pages - sent.zero) * PAGE_BYTES,
            wire_bytes: peer.out.bytes() + outlet.lanes.bytes() - before,
            connections: outlet.lanes.connections(),
            took_us: micros(begun.elapsed()),
            ..RoundReport::default()
        }));
        Ok(hash)
    }
}

/// Bytes of copies of pages when the user says nothing: half of the guest's memory, and no more than a quarter of what
/// this machine could give at once.
fn fitting_copies(ram_bytes: u64) -> u64 {
    let free = Meminfo::current().ok().and_then(|memory| memory.mem_available);
    (ram_bytes / 2).min(free.unwrap_or(0) / 4)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
