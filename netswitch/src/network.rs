//! One network: its ports, its address table, and the way of a frame.
//!
//! Loops cannot arise, however hosts are linked: what came over a link goes to this host's ports alone. The one
//! exception is a frame that another host sent here on purpose for a VM that has left: it goes one link further, as
//! a message that only the VM's card takes.

use crate::announce::{Addresses, sender_address};
use crate::ethernet::{Header, Mac};
use crate::gate::{PortGate, Stage};
use crate::link::LinkPort;
use crate::link::wire::Message;
use crate::port::Port;
use crate::service::leases::Leases;
use crate::service::{self, Client, Verdict};
use crate::table::{AddressTable, PortId};
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use quasar_abi::report::PortKind;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a VM that left is remembered: late frames for it are sent after it.
pub const REMEMBERED: Duration = Duration::from_secs(60);
/// How long it is repeated to new links that a VM has ended here.
pub const ENDED_REPEATED: Duration = Duration::from_secs(600);
/// How long a frame of this host waits for a receiver that has no room: it holds up its own sender alone.
const PATIENCE: Duration = Duration::from_millis(500);
/// The same for a frame that came over a link, which holds up every sender behind the link.
const LINK_PATIENCE: Duration = Duration::from_millis(50);
/// How long another host's word that a VM of ours runs there already is believed before it is moved here.
const FORESEEN: Duration = Duration::from_secs(10);

/// What a port has carried. "In" is from the port into the switch.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames in.
    pub frames_in: AtomicU64,
    /// Bytes in.
    pub bytes_in: AtomicU64,
    /// Frames out.
    pub frames_out: AtomicU64,
    /// Bytes out.
    pub bytes_out: AtomicU64,
    /// Frames refused: malformed or not from the port's address.
    pub refused: AtomicU64,
    /// Frames dropped because the port did not take them in time.
    pub dropped: AtomicU64,
}

/// A VM's card.
pub struct VmCard {
    /// Its address: the only source accepted from it.
    pub mac: Mac,
    /// Whether the switch answers it, and whether its VM has a way out.
    pub served: Option<Client>,
    /// Where frames wait while the VM is on its way.
    pub gate: PortGate,
    /// IPv4 addresses that it uses.
    pub addresses: Mutex<Addresses>,
    /// A link over which the VM was said to run there, and when.
    pub there_already: Mutex<Option<(PortId, Instant)>>,
    /// It is here before its old place is known to leave it out of floods: those that come over links are not for
    /// it until then.
    pub overlap: Mutex<Option<Instant>>,
}

impl VmCard {
    /// A card behind a gate.
    #[must_use]
    pub fn new(mac: Mac, served: Option<Client>, stage: Stage) -> Self {
        Self {
            mac,
            served,
            gate: PortGate::new(stage),
            addresses: Mutex::default(),
            there_already: Mutex::default(),
            overlap: Mutex::default(),
        }
    }

    /// The link over which the VM was said to be elsewhere, a moment ago.
    pub fn foreseen(&self, now: Instant) -> Option<PortId> {
        let said = *self.there_already.lock();
        said.filter(|(_, at)| now.saturating_duration_since(*at) < FORESEEN).map(|(link, _)| link)
    }
}

/// What a port leads to.
pub enum Role {
    /// A VM.
    Card(Arc<VmCard>),
    /// Out of the network: for everyone, or for one VM alone.
    Uplink(Option<Mac>),
    /// Another host's part of the network.
    Link(Arc<LinkPort>),
}

/// A port in its network.
pub struct AttachedPort {
    /// Its name.
    pub name: String,
    /// Its kind, for people.
    pub kind: PortKind,
    /// What it leads to.
    pub role: Role,
    /// What it carried.
    pub counters: Counters,
    /// The port itself.
    pub port: Arc<dyn Port>,
}

impl AttachedPort {
    /// The card, if it is one.
    pub fn card(&self) -> Option<&Arc<VmCard>> {
        match &self.role {
            Role::Card(card) => Some(card),
            Role::Uplink(_) | Role::Link(_) => None,
        }
    }

    fn link(&self) -> Option<&Arc<LinkPort>> {
        match &self.role {
            Role::Link(link) => Some(link),
            Role::Uplink(_) | Role::Card(_) => None,
        }
    }

    /// Whether it takes a frame from this sender, wherever that goes.
    fn takes(&self, source: Mac, frame: &[u8]) -> bool {
        match self.role {
            Role::Uplink(Some(owner)) => owner == source && service::is_for_way_out(frame),
            Role::Uplink(None) | Role::Link(_) | Role::Card(_) => true,
        }
    }

    fn deliver(&self, frame: &[u8], patience: Duration, directed: bool) {
        let taken = match &self.role {
            Role::Card(card) => card.gate.pass(frame, |frame| self.port.send(frame, patience)),
            Role::Link(link) => link.frame(frame, directed),
            Role::Uplink(_) => self.port.send(frame, patience),
        };
        self.sent(frame, taken);
    }

    /// Counts a frame that went out or did not.
    pub fn sent(&self, frame: &[u8], taken: bool) {
        if taken {
            self.counters.frames_out.fetch_add(1, Ordering::Relaxed);
            self.counters.bytes_out.fetch_add(frame.len() as u64, Ordering::Relaxed);
        } else {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A VM that has left.
pub struct Departed {
    /// When it is forgotten.
    pub until: Instant,
    /// The link over which its new host said that it takes the VM's frames.
    pub at: Option<PortId>,
}

/// What changes under the lock.
#[derive(Default)]
pub struct Inside {
    /// Who is where.
    pub table: AddressTable,
    /// Ports.
    pub ports: BTreeMap<PortId, Arc<AttachedPort>>,
    /// VMs that have left a while ago at most.
    pub departed: HashMap<Mac, Departed>,
    /// VMs that have ended here, until when that is told.
    pub ended: HashMap<Mac, Instant>,
    /// Names and addresses of its VMs, at all hosts.
    pub leases: Leases,
}

/// One network.
pub struct Network {
    /// Its number on this host's links.
    pub id: u32,
    name: String,
    inside: Mutex<Inside>,
    /// Frames pass under the read half; who turns the way of a VM's frames takes the write half, so that each frame
    /// takes the old way whole or the new way whole.
    passage: RwLock<()>,
}

/// Where a frame goes.
#[derive(Default)]
struct Ways {
    targets: Vec<Arc<AttachedPort>>,
    /// Whether the address table named the one target.
    directed: bool,
    /// Links that get the frame as one for a VM that has left.
    after: Vec<(Arc<LinkPort>, Mac)>,
}

impl Inside {
    /// The links among the ports.
    pub fn links(&self) -> impl Iterator<Item = &Arc<LinkPort>> {
        self.ports.values().filter_map(|p| p.link())
    }

    /// The port of a card.
    pub fn port_of(&self, mac: Mac) -> Option<(PortId, Arc<AttachedPort>)> {
        let is = |p: &AttachedPort| p.card().is_some_and(|card| card.mac == mac);
        self.ports.iter().find(|(_, p)| is(p)).map(|(id, p)| (*id, Arc::clone(p)))
    }

    /// Tells another host of a VM that is here.
    pub fn tell_of(&self, link: &LinkPort, mac: Mac) {
        link.say(|network| Message::Here { network, mac });
        self.tell_lease(link, mac);
    }

    /// Tells another host how a VM that is here is known.
    pub fn tell_lease(&self, link: &LinkPort, mac: Mac) {
        if let Some(lease) = self.leases.of(mac).filter(|lease| lease.is_here()) {
            link.lease(mac, Some((lease.address, &lease.name)));
        }
    }

    fn link_of(&self, id: PortId) -> Option<Arc<LinkPort>> {
        self.ports.get(&id)?.link().cloned()
    }

    /// Ports of this host that a flood reaches. A VM that is about to go or has just come is reached at one of its two
    /// places.
    fn local_flood(&self, from: PortId, over_link: bool, now: Instant) -> Vec<Arc<AttachedPort>> {
        let takes_part = |p: &&Arc<AttachedPort>| match &p.role {
            Role::Link(_) => false,
            Role::Uplink(_) => true,
            Role::Card(card) => {
                let there = over_link && card.overlap.lock().is_some_and(|until| now < until);
                card.gate.stage() != Stage::Expecting && card.foreseen(now).is_none() && !there
            }
        };
        self.ports.iter().filter(|(id, _)| **id != from).map(|(_, p)| p).filter(takes_part).cloned().collect()
    }

    fn ways_from_here(&self, from: PortId, to: Mac, now: Instant) -> Ways {
        let known = if to.is_group() { None } else { self.table.lookup(to, now) };
        match known.and_then(|id| self.ports.get(&id).filter(|_| id != from)) {
            Some(target) => Ways { targets: vec![Arc::clone(target)], directed: true, after: vec![] },
            None if known == Some(from) => Ways::default(),
            None => {
                let mut targets = self.local_flood(from, false, now);
                targets.extend(self.ports.values().filter(|p| p.link().is_some()).cloned());
                Ways { targets, ..Ways::default() }
            }
        }
    }

    fn ways_from_link(&self, from: PortId, to: Mac, directed: bool, now: Instant) -> Ways {
        let mut ways = Ways::default();
        let known = if to.is_group() { None } else { self.table.lookup(to, now) };
        let link = known.and_then(|id| self.link_of(id));
        match (known, link) {
            (_, Some(link)) if directed => ways.after.push((link, to)),
            (_, Some(_)) => {}
            (Some(id), None) => {
                ways.targets.extend(self.ports.get(&id).cloned());
                ways.directed = true;
            }
            (None, None) if directed && self.departed.contains_key(&to) => {
                ways.after.extend(self.links().map(|link| (Arc::clone(link), to)));
            }
            (None, None) => ways.targets = self.local_flood(from, true, now),
        }
        if !directed {
            // The VM's new host may have flooded this before it knew that the VM has left here, and so have left
            // its card out; it hears that before what it said after.
            let unclear = |(mac, d): &(&Mac, &Departed)| d.at.is_none() && (to.is_group() || **mac == to);
            let back = self.departed.iter().filter(unclear);
            ways.after.extend(back.filter_map(|(mac, _)| Some((self.link_of(from)?, *mac))));
        }
        ways
    }

    /// Forgets VMs that left or ended long ago.
    pub fn forget(&mut self, now: Instant) {
        self.departed.retain(|_, departed| departed.until > now);
        self.ended.retain(|_, until| *until > now);
    }

    /// Whether anything of this host is in it.
    pub fn is_live(&self) -> bool {
        !self.departed.is_empty() || !self.ended.is_empty() || self.ports.values().any(|p| p.link().is_none())
    }
}

impl Network {
    /// An empty network.
    #[must_use]
    pub fn new(id: u32, name: &str) -> Self {
        Self { id, name: name.to_owned(), inside: Mutex::default(), passage: RwLock::default() }
    }

    /// Its tables.
    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock()
    }

    /// Lets no frame pass while it is held.
    pub fn halt(&self) -> RwLockWriteGuard<'_, ()> {
        self.passage.write()
    }

    /// A port joins.
    pub fn join(&self, id: PortId, port: AttachedPort) {
        let mut inside = self.inside();
        if let Some(card) = port.card()
            && card.gate.stage() == Stage::Open
        {
            inside.table.pin(card.mac, id);
            inside.departed.remove(&card.mac);
            inside.ended.remove(&card.mac);
            inside.leases.arrive(card.mac);
            for link in inside.links() {
                inside.tell_of(link, card.mac);
            }
        }
        inside.ports.insert(id, Arc::new(port));
    }

    /// A port leaves.
    pub fn leave(&self, id: PortId) -> Option<Arc<AttachedPort>> {
        let mut inside = self.inside();
        inside.table.forget_port(id);
        let gone = inside.ports.remove(&id);
        match gone.as_ref().map(|port| &port.role) {
            Some(Role::Card(card)) => {
                inside.leases.detach(card.mac);
                if inside.leases.of(card.mac).is_none() {
                    inside.links().for_each(|link| link.lease(card.mac, None));
                }
            }
            Some(Role::Link(_)) => inside.leases.lose_link(id, Instant::now()),
            Some(Role::Uplink(_)) | None => {}
        }
        gone
    }

    fn pass(&self) -> RwLockReadGuard<'_, ()> {
        self.passage.read()
    }

    /// A frame of a VM's card: checked, and listened to.
    pub fn frame_of_card(&self, from: PortId, card: &VmCard, frame: &[u8]) {
        if Header::parse(frame).is_none_or(|header| header.source != card.mac) {
            if let Some(port) = self.inside().ports.get(&from) {
                port.counters.refused.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        if let Some(said) = sender_address(frame) {
            card.addresses.lock().hear(said);
        }
        // It speaks, so it is here, whatever we have not heard yet.
        if card.gate.stage() == Stage::Expecting {
            self.arrive(from, false);
        }
        let verdict = match card.served {
            Some(client) => service::look(frame, client, &self.name, || {
                MutexGuard::map(self.inside(), |inside| &mut inside.leases)
            }),
            None => Verdict::Pass,
        };
        match verdict {
            Verdict::Pass => self.frame_of_port(from, frame),
            Verdict::Instead(frame) => self.frame_of_port(from, &frame),
            answer => self.answer_card(from, frame, answer),
        }
    }

    /// A card's frame was for the switch.
    fn answer_card(&self, from: PortId, frame: &[u8], answer: Verdict) {
        let Some(port) = self.inside().ports.get(&from).cloned() else { return };
        if answer == Verdict::Refused {
            port.counters.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        port.counters.frames_in.fetch_add(1, Ordering::Relaxed);
        port.counters.bytes_in.fetch_add(frame.len() as u64, Ordering::Relaxed);
        if let Verdict::Reply(reply) = answer {
            // It asks again when it has no room now.
            let _passing = self.pass();
            port.deliver(&reply, Duration::ZERO, false);
        }
    }

    /// One frame's way from a port of this host: checked, learnt from, and sent where the table says, or
    /// everywhere else.
    pub fn frame_of_port(&self, from: PortId, frame: &[u8]) {
        self.frame(from, frame, PATIENCE, |inside, to, now| inside.ways_from_here(from, to, now));
    }

    /// One frame's way from a link.
    pub fn frame_of_link(&self, from: PortId, frame: &[u8], directed: bool) {
        self.frame(from, frame, LINK_PATIENCE, |inside, to, now| {
            inside.ways_from_link(from, to, directed, now)
        });
    }

    fn frame(
        &self,
        from: PortId,
        frame: &[u8],
        patience: Duration,
        ways: impl FnOnce(&Inside, Mac, Instant) -> Ways,
    ) {
        let _passing = self.pass();
        // The tables are locked for the decision alone: sending may wait for the receiver.
        let (mut ways, source) = {
            let now = Instant::now();
            let mut inside = self.inside();
            let Some(port) = inside.ports.get(&from) else { return };
            let Some(header) = Header::parse(frame) else {
                port.counters.refused.fetch_add(1, Ordering::Relaxed);
                return;
            };
            port.counters.frames_in.fetch_add(1, Ordering::Relaxed);
            port.counters.bytes_in.fetch_add(frame.len() as u64, Ordering::Relaxed);
            inside.table.learn(header.source, from, now);
            (ways(&inside, header.destination, now), header.source)
        };
        ways.targets.retain(|port| port.takes(source, frame));
        let patience = if ways.targets.len() == 1 { patience } else { Duration::ZERO };
        for target in ways.targets {
            target.deliver(frame, patience, ways.directed);
        }
        for (link, mac) in ways.after {
            link.forward_late(mac, frame);
        }
    }

    /// A frame that another host sends after a VM that has left it. It is for the card alone.
    pub fn frame_after(&self, mac: Mac, frame: &[u8]) {
        let _passing = self.pass();
        let found = self.inside().port_of(mac);
        if let Some((_, port)) = found {
            port.deliver(frame, LINK_PATIENCE, false);
        }
    }
}
