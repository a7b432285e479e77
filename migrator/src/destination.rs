//! The destination's role on the wire: a straight list of phases.
//!
//! 1. *negotiate*: the newest common version; the supervisor makes the VM, paused, and says where it is.
//! 2. *rounds*: pages are written where they belong, and hashed as they are.
//! 3. *last pages and state*: taken in as before, but nothing is put in force yet.
//! 4. *verify*: the hash over everything that came must be the source's.
//! 5. *accept*: the promise to run the VM when, and only when, it is handed over.
//! 6. *run*: after the hand-over alone. Until then every failure leaves nothing: the supervisor drops the VM.

use crate::connection::{Peer, decode};
use crate::frame::{FrameReader, Kind};
use crate::lanes::Doorway;
use crate::message::{
    self, Accepted, Door, Final, HandOver, Machine, Offer, RoundEnd, Running, StatePayload,
};
use crate::pump::{Area, Inlet};
use crate::source::AttachedVm;
use crate::state::{Ticks, apply, restart_clock};
use anyhow::{Context, bail};
use parking_lot::{Condvar, Mutex};
use quasar_abi::control::migrator::{LocalVm, MigrationEvent};
use quasar_abi::files;
use quasar_abi::hash;
use quasar_abi::vm::{Vm, pause};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time for a source to say what it brings: until then it holds a place that others may need.
const NEGOTIATION: Duration = Duration::from_secs(20);
/// How long the answer to a round is held back for an obstacle that may go: less than a source waits for it.
const DETOUR: Duration = Duration::from_secs(10);
/// State payloads a VM can have; more are an attack.
const MOST_PAYLOADS: usize = 1000;

/// What stands in the way of running the VM here, as the supervisor sees it: its network does not reach this host.
#[derive(Default)]
pub struct Obstacle {
    reason: Mutex<Option<String>>,
    changed: Condvar,
}

impl Obstacle {
    /// There is something, or there is nothing any more.
    pub fn set(&self, reason: Option<String>) {
        *self.reason.lock() = reason;
        self.changed.notify_all();
    }

    /// Waits until nothing stands in the way.
    ///
    /// # Errors
    /// What still does, when so much time has passed.
    fn pass(&self, patience: Duration) -> anyhow::Result<()> {
        let mut reason = self.reason.lock();
        self.changed.wait_while_for(&mut reason, |reason| reason.is_some(), patience);
        match &*reason {
            Some(reason) => bail!("{reason}"),
            None => Ok(()),
        }
    }
}

/// Receives a VM, by further connections through `doorway` as well. `prepare` has the supervisor make it.
///
/// # Errors
/// Whatever went wrong before the VM ran; nothing of it may be kept.
pub fn receive(
    peer: &mut Peer,
    doorway: Option<Doorway>,
    prepare: impl FnOnce(&Machine) -> anyhow::Result<LocalVm>,
    obstacle: &Obstacle,
    tell: &mut dyn FnMut(MigrationEvent),
) -> anyhow::Result<()> {
    let result = receive_whole(peer, doorway, prepare, obstacle, tell);
    if let Err(error) = &result {
        peer.refuse(&quasar_abi::words::whole(error.as_ref()));
    }
    result
}

fn receive_whole(
    peer: &mut Peer,
    doorway: Option<Doorway>,
    prepare: impl FnOnce(&Machine) -> anyhow::Result<LocalVm>,
    obstacle: &Obstacle,
    tell: &mut dyn FnMut(MigrationEvent),
) -> anyhow::Result<()> {
    tell(MigrationEvent::Phase("negotiate".into()));
    peer.finish_by(Some(Instant::now() + NEGOTIATION));
    let offer: Offer = peer.expect(Kind::Offer)?;
    let agreement = offer.agree()?;
    peer.tell(Kind::Agreement, &agreement)?;
    let machine: Machine = peer.expect(Kind::Machine)?;
    peer.finish_by(None);
    let local = prepare(&machine)?;
    let mut attached = AttachedVm::open(&local, true)?;
    if attached.machine(&local) != machine {
        // The description may be the supervisor's own; sizes may not differ.
        let ours = Machine { description: machine.description.clone(), ..attached.machine(&local) };
        if ours != machine {
            bail!("the VM made here ({ours:?}) is not the one that comes");
        }
    }
    let areas = Arc::new(std::mem::take(&mut attached.areas));
    let inlet = Arc::new(Inlet::new(Arc::clone(&areas)));
    let mut _listener = None;
    if agreement.version >= message::LANES_SINCE {
        let door = doorway.as_ref().map_or(Door { port: 0, key: [0; 16] }, Doorway::door);
        _listener = doorway.map(|doorway| doorway.open(&inlet));
        peer.tell(Kind::Ready, &door)?;
    } else {
        peer.tell(Kind::Ready, &())?;
    }
    tell(MigrationEvent::Phase("rounds".into()));
    let out = &mut peer.out;
    let stream = take_stream(&mut peer.input, &inlet, |end| {
        if !end.last {
            // So that little is left to be made durable while the guest stands still. An error shows then, too.
            areas.iter().filter(|a| a.store.area() != 0).for_each(|a| drop(a.store.sync()));
            // The guest runs meanwhile.
            obstacle.pass(DETOUR)?;
            out.write(Kind::RoundTaken, &[])?;
            out.flush()?;
        }
        Ok(())
    })?;
    tell(MigrationEvent::Phase("verify".into()));
    let (hash, ticks) = put_in_force(&attached, &areas, stream)?;
    obstacle.pass(Duration::ZERO)?;
    keep_disks(&local)?;
    let accepted = Instant::now();
    peer.tell(Kind::Accepted, &Accepted { hash })?;
    tell(MigrationEvent::Phase("accept".into()));
    let hand_over: HandOver = peer.expect(Kind::HandOver).context("accepted, but never handed over")?;
    // The hand-over was sent half a round trip ago; what the source measured ends there.
    let travel = accepted.elapsed() / 2;
    let downtime = run(&attached.vm, ticks, hand_over, travel);
    // It runs: from here on nothing may take it down, a broken connection least of all.
    if let Err(error) = peer.tell(Kind::Running, &Running { downtime_ns: nanos(downtime) }) {
        log::warn!("the VM runs here, but the source could not be told: {error}");
    }
    tell(MigrationEvent::Running { downtime_us: nanos(downtime) / 1000 });
    Ok(())
}

/// The disks are whole: from here on they may be the VM's only state, and nobody takes them for leftovers.
///
/// # Errors
/// When their marks cannot be removed.
pub fn keep_disks(local: &LocalVm) -> anyhow::Result<()> {
    let mut disks = local.disks.iter();
    disks.try_for_each(|disk| files::has_arrived(&disk.path)).context("a disk cannot be kept")
}

/// Verifies what came and puts the state into the paused VM. Returns the hash and the guest's time.
///
/// # Errors
/// When the copy is not exact, or the state is not for this build.
pub fn put_in_force(
    attached: &AttachedVm,
    areas: &[Area],
    stream: Taken,
) -> anyhow::Result<([u8; 32], Ticks)> {
    let hash = hash::whole(areas.iter().map(|a| &a.hashes), stream.encoded.iter().map(Vec::as_slice));
    if hash != stream.last.hash {
        bail!("the hash over RAM and state is not the source's: the copy is damaged and was dropped");
    }
    let ticks = apply(&attached.vm, &attached.state_segments(), stream.payloads)?;
    for area in areas.iter().filter(|a| a.store.area() != 0) {
        area.store.sync().context("a disk cannot be made durable")?;
    }
    Ok((hash, ticks))
}

/// What followed the machine: pages are in place already, the rest is here.
pub struct Taken {
    /// State, decoded.
    pub payloads: Vec<StatePayload>,
    /// The same as it came, for the hash.
    pub encoded: Vec<Vec<u8>>,
    /// The end.
    pub last: Final,
}

/// Takes in rounds and state up to [`Final`]; `taken` is called after each round.
///
/// # Errors
/// When the stream is not what it should be, or a page cannot be written.
pub fn take_stream<R: Read>(
    input: &mut FrameReader<R>,
    inlet: &Inlet,
    mut taken: impl FnMut(&RoundEnd) -> anyhow::Result<()>,
) -> anyhow::Result<Taken> {
    let (mut payloads, mut encoded) = (vec![], vec![]);
    let (mut round, mut last_round) = (0, false);
    loop {
        let (kind, payload) = input.read_into(inlet.space())?;
        match kind {
            Kind::Pages if !last_round => inlet.push(payload),
            Kind::RoundEnd if !last_round => {
                let end: RoundEnd = message::decode(&payload)?;
                let pages = inlet.settle(end.pages)?;
                if (end.round, end.pages) != (round, pages) {
                    bail!(
                        "round {round} with {pages} pages came, {} with {} was announced",
                        end.round,
                        end.pages
                    );
                }
                round += 1;
                last_round = end.last;
                taken(&end)?;
            }
            Kind::State if last_round && encoded.len() < MOST_PAYLOADS => {
                payloads.push(message::decode::<StatePayload>(&payload)?);
                encoded.push(payload);
            }
            other => {
                let last: Final = decode(other, Kind::Final, &payload)?;
                if !last_round || usize::try_from(last.payloads) != Ok(encoded.len()) {
                    bail!("{} parts of the state came, {} were announced", encoded.len(), last.payloads);
                }
                return Ok(Taken { payloads, encoded, last });
            }
        }
    }
}

fn run(vm: &Vm, ticks: Ticks, hand_over: HandOver, travel: Duration) -> Duration {
    let downtime = Duration::from_nanos(hand_over.paused_ns) + travel;
    restart_clock(&vm.clock, ticks, nanos(downtime));
    vm.unpause(pause::MIGRATOR);
    downtime
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
