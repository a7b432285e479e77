//! A VM's way from one host's switch to another's.
//!
//! ```text
//! destination  HoldPort, AttachPort (expecting) ······ hears Moved: holding, says Here ··· ReleasePort: open, announces
//! source       ·································· MovePort: says Moved, sends the rest after ··· sends late frames after
//! ```
//! What the source sends to the destination (frames before the move, that it happened, frames after it) is one stream,
//! and so is what comes back. Hence between the two each frame is delivered once, and in order if it comes from the
//! source's side. A frame that was on its way from the destination's side to the source in that very moment comes back,
//! behind those that were held meanwhile. Third hosts hear of both: their frames for the VM alone come once, over one
//! host or the other; a broadcast of theirs in that moment may be lost or doubled, as on any Ethernet.

use crate::announce::{gratuitous_arp, reverse_arp};
use crate::ethernet::Mac;
use crate::gate::Stage;
use crate::link::wire::Message;
use crate::network::{AttachedPort, Departed, ENDED_REPEATED, Network, REMEMBERED, Role, VmCard};
use crate::service::may_claim;
use crate::table::PortId;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// When a new place is announced, after it was taken: the first may be lost on the way.
const ANNOUNCED: [Duration; 4] = [
    Duration::from_millis(40),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_millis(900),
];

/// How long the old place's word is waited for, by a VM that is here without it.
const OVERLAP: Duration = Duration::from_secs(1);
/// How long a released card may take to accept a frame that waited.
const DELIVERY: Duration = Duration::from_millis(100);

impl Network {
    /// The VM is not at this port yet.
    pub fn expect(&self, id: PortId) {
        let _alone = self.halt();
        let mut inside = self.inside();
        let Some(port) = inside.ports.get(&id).cloned() else { return };
        if let Some(card) = port.card()
            && card.gate.stage() == Stage::Open
        {
            card.gate.expect();
            inside.table.forget_port(id);
        }
    }

    /// The VM has left its old place (`left`) or shows that it is here: from now on its frames come to this port.
    pub fn arrive(&self, id: PortId, left: bool) {
        let _alone = self.halt();
        let mut inside = self.inside();
        let Some(port) = inside.ports.get(&id).cloned() else { return };
        let Some(card) = port.card() else { return };
        if left {
            *card.overlap.lock() = None;
        }
        if !card.gate.arrive() {
            return;
        }
        if !left {
            *card.overlap.lock() = Some(Instant::now() + OVERLAP);
        }
        inside.table.pin(card.mac, id);
        inside.departed.remove(&card.mac);
        inside.ended.remove(&card.mac);
        inside.leases.arrive(card.mac);
        for link in inside.links() {
            inside.tell_of(link, card.mac);
        }
    }

    /// Delivers what waited for a VM that runs here, and announces the place.
    pub fn release(self: &Arc<Self>, id: PortId, port: &Arc<AttachedPort>, addresses: &[Ipv4Addr]) {
        let Some(card) = port.card() else { return };
        self.arrive(id, false);
        for address in addresses {
            card.addresses.lock().add(*address);
        }
        let (delivered, dropped) = card.gate.open(|frame| {
            let taken = port.port.send(frame, DELIVERY);
            if taken {
                port.sent(frame, true);
            }
            taken
        });
        port.counters.dropped.fetch_add(dropped, Ordering::Relaxed);
        log::info!("{}: is here; {delivered} frames had waited, {dropped} were not taken", port.name);
        self.announce(id, card.mac);
        let (network, mac) = (Arc::downgrade(self), card.mac);
        let again = move || {
            let begun = Instant::now();
            for at in ANNOUNCED {
                std::thread::sleep(at.saturating_sub(begun.elapsed()));
                if !network.upgrade().is_some_and(|network| network.announce(id, mac)) {
                    return;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("announce".into()).spawn(again) {
            log::error!("{}: announced once alone: {error}", port.name);
        }
    }

    /// Tells everyone where a VM is; false when it is not here any more.
    fn announce(&self, id: PortId, mac: Mac) -> bool {
        let addresses = {
            let inside = self.inside();
            let Some(port) = inside.ports.get(&id) else { return false };
            let here = |card: &&Arc<VmCard>| {
                card.gate.stage() == Stage::Open && card.foreseen(Instant::now()).is_none()
            };
            let Some(card) = port.card().filter(here) else { return false };
            for link in inside.links() {
                inside.tell_of(link, mac);
            }
            let mut addresses = card.addresses.lock().list();
            if card.served.is_some() {
                // What it claimed in vain is not said for it.
                addresses.retain(|address| may_claim(*address, mac, &inside.leases));
                let lease = inside.leases.of(mac).map(|lease| lease.address);
                addresses.extend(lease.filter(|address| !addresses.contains(address)));
            }
            addresses
        };
        for address in addresses {
            self.frame_of_port(id, &gratuitous_arp(mac, address));
        }
        self.frame_of_port(id, &reverse_arp(mac));
        true
    }

    /// The VM has left this host: its port goes, and what was for it is sent after it.
    pub fn depart(&self, id: PortId, port: &Arc<AttachedPort>) -> Vec<Ipv4Addr> {
        let Some(card) = port.card() else { return vec![] };
        // Its last words go first. Then what it has not taken, in part ahead of the lock, so that nobody who
        // waits for room in its ring keeps the passage.
        port.port.settle();
        let mut rest = port.port.take_back();
        let now = Instant::now();
        let addresses = card.addresses.lock().list();
        let _alone = self.halt();
        rest.extend(port.port.take_back());
        rest.extend(card.gate.evict());
        let mut inside = self.inside();
        let at = card.foreseen(now);
        inside.table.forget_port(id);
        inside.ports.remove(&id);
        inside.departed.insert(card.mac, Departed { until: now + REMEMBERED, at });
        inside.leases.depart(card.mac, now);
        if let Some(at) = at {
            inside.table.learn(card.mac, at, now);
        }
        for link in inside.links() {
            let addresses = addresses.clone();
            link.say(|network| Message::Moved { network, mac: card.mac, addresses });
            // Only the VM's card takes these, so that they may go to every host.
            for frame in &rest {
                link.forward(card.mac, frame);
            }
        }
        log::info!("{}: has left; {} frames are sent after it", port.name, rest.len());
        addresses
    }

    /// A link is new: its host learns at once who is here.
    pub fn introduce(&self, link: PortId) {
        let inside = self.inside();
        let Some(Role::Link(link)) = inside.ports.get(&link).map(|p| &p.role) else { return };
        for card in inside.ports.values().filter_map(|p| p.card()) {
            if card.gate.stage() != Stage::Expecting && card.foreseen(Instant::now()).is_none() {
                inside.tell_of(link, card.mac);
            }
        }
        for mac in inside.ended.keys().copied() {
            link.say(|network| Message::Ended { network, mac });
        }
    }

    /// The VM of a port has ended here: other hosts are told, also those whose links are down now.
    pub fn end(&self, id: PortId) {
        let mut inside = self.inside();
        let Some(mac) = inside.ports.get(&id).and_then(|port| Some(port.card()?.mac)) else { return };
        inside.ended.insert(mac, Instant::now() + ENDED_REPEATED);
        for link in inside.links() {
            link.say(|network| Message::Ended { network, mac });
        }
    }

    /// Another host says that a VM has ended there. Whether that can be: nobody else has it, as far as is known here.
    pub fn heard_ended(&self, from: PortId, mac: Mac) -> bool {
        let mut inside = self.inside();
        let departed = inside.departed.get(&mac).and_then(|departed| departed.at);
        let at = inside.table.lookup(mac, Instant::now()).or(departed);
        let can_be = inside.port_of(mac).is_none() && at.is_none_or(|at| at == from);
        if can_be {
            inside.leases.hear_gone(from, mac);
        }
        can_be
    }

    /// Another host says how a VM of its is known, or that it has it no more. Answers the ports of VMs here that have
    /// another address now.
    pub fn heard_lease(
        &self,
        from: PortId,
        mac: Mac,
        lease: Option<(Ipv4Addr, &str)>,
    ) -> Vec<(String, Ipv4Addr)> {
        let mut inside = self.inside();
        let Some((address, name)) = lease else {
            inside.leases.hear_gone(from, mac);
            return vec![];
        };
        let moved = inside.leases.hear(from, mac, address, name, Instant::now());
        let mut ports = vec![];
        for (mac, address) in moved {
            let Some((_, port)) = inside.port_of(mac) else { continue };
            log::warn!("{}: {name} has its address at another host too; it is given {address}", port.name);
            ports.push((port.name.clone(), address));
            // Who has not arrived is spoken of where it is.
            if port.card().is_some_and(|card| card.gate.stage() == Stage::Open) {
                inside.links().for_each(|link| inside.tell_of(link, mac));
            }
        }
        ports
    }

    /// Another host says that a VM has left it. What we know of its place stays as it is: that host sends frames after
    /// it until the new one says where it is.
    pub fn heard_moved(&self, mac: Mac, addresses: &[Ipv4Addr]) {
        let found = self.inside().port_of(mac);
        let Some((id, port)) = found else { return };
        if let Some(card) = port.card() {
            let mut known = card.addresses.lock();
            addresses.iter().for_each(|address| known.add(*address));
        }
        self.arrive(id, true);
        let inside = self.inside();
        inside.links().for_each(|link| inside.tell_lease(link, mac));
    }

    /// Another host says that a VM is there. When it is one of ours that we have not been told to move yet, floods are
    /// for its new place from now on.
    pub fn heard_here(&self, from: PortId, mac: Mac) {
        let now = Instant::now();
        let ours = self.inside().port_of(mac).is_some();
        let alone = ours.then(|| self.halt());
        let mut inside = self.inside();
        inside.table.learn(mac, from, now);
        // Another one of the same name, perhaps: that one has not ended.
        inside.ended.remove(&mac);
        if let Some(departed) = inside.departed.get_mut(&mac) {
            departed.at = Some(from);
        }
        let found = inside.port_of(mac).filter(|_| alone.is_some());
        let Some(card) = found.as_ref().and_then(|(_, port)| port.card()) else { return };
        // Until the old place says that the VM has left it, it may still say what it said before.
        let settled = card.gate.stage() == Stage::Open && card.overlap.lock().is_none();
        if !settled || card.foreseen(now) == Some(from) {
            return;
        }
        *card.there_already.lock() = Some((from, now));
        let addresses = card.addresses.lock().list();
        if let Some(Role::Link(link)) = inside.ports.get(&from).map(|port| &port.role) {
            link.say(|network| Message::Moved { network, mac, addresses });
        }
    }
}
