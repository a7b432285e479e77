//! Networks of ports.

use crate::announce::MOST_ADDRESSES;
use crate::ethernet::Mac;
use crate::gate::Stage;
use crate::link::{LinkError, LinkPort, Links, Networks, Way};
use crate::network::{AttachedPort, Counters, Network, Role, VmCard};
use crate::port::{Ingress, Port, PortError};
use crate::service::Client;
use crate::table::PortId;
use parking_lot::Mutex;
use quasar_abi::control::netswitch::{LeaseWish, NetworkEvent};
use quasar_abi::report::PortKind;
use quasar_abi::words::whole;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// The switch: any number of networks that share nothing, and the links to other hosts.
#[derive(Default)]
pub struct Switch {
    /// Networks by name. Made and removed by commands alone, which come one after another.
    pub(crate) networks: Mutex<HashMap<String, Arc<Network>>>,
    next_port: AtomicU64,
    next_network: AtomicU32,
    /// Ports that are to be attached for a VM that is not here yet.
    expected: Mutex<HashSet<String>>,
    /// Links to other hosts.
    pub links: Arc<Links>,
    /// Who hears what the switch tells by itself.
    news: OnceLock<News>,
}

/// Hears what a switch tells by itself.
pub type News = Box<dyn Fn(NetworkEvent) + Send + Sync>;

/// A command could not be carried out; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The name is taken.
    #[error("a port named {name} is already attached to network {network}; detach it first")]
    NameTaken {
        /// The port.
        name: String,
        /// Where it is.
        network: String,
    },
    /// A port could not be opened.
    #[error("port {name}: {}", whole(source))]
    Open {
        /// The port.
        name: String,
        /// Why.
        source: PortError,
    },
    /// There is no such port.
    #[error("there is no port named {0}; attach it first")]
    NoPort(String),
    /// The port is no VM's.
    #[error("port {0} belongs to no VM: it can be neither held nor moved")]
    NotACard(String),
    /// The network is gone.
    #[error("network {0} is not here any more")]
    NoNetwork(String),
    /// All addresses are given away.
    #[error("network {0} has no address left for another VM")]
    Full(String),
    /// A link could not be made, or a listener.
    #[error("{}", whole(.0))]
    Link(#[from] LinkError),
}

/// Whose a port is.
pub enum Whose {
    /// A VM's: its card's address is pinned, and the only one accepted from the port. With a lease it is served.
    Vm(Mac, Option<LeaseWish>),
    /// A way out, for everyone or for the VM with this card.
    Uplink(Option<Mac>),
}

/// A link's way into a network.
struct LinkWay {
    network: Arc<Network>,
    id: PortId,
}

impl Way for LinkWay {
    fn frame(&self, frame: &[u8], directed: bool) {
        self.network.frame_of_link(self.id, frame, directed);
    }

    fn frame_after(&self, mac: Mac, frame: &[u8]) {
        self.network.frame_after(mac, frame);
    }

    fn moved(&self, mac: Mac, addresses: &[Ipv4Addr]) {
        self.network.heard_moved(mac, addresses);
    }

    fn ended(&self, mac: Mac) -> bool {
        self.network.heard_ended(self.id, mac)
    }

    fn here(&self, mac: Mac) {
        self.network.heard_here(self.id, mac);
    }

    fn lease(&self, mac: Mac, lease: Option<(Ipv4Addr, &str)>) -> Vec<(String, Ipv4Addr)> {
        self.network.heard_lease(self.id, mac, lease)
    }

    fn introduce(&self) {
        self.network.introduce(self.id);
    }

    fn leave(&self) {
        self.network.leave(self.id);
    }
}

impl Networks for Switch {
    fn live(&self) -> BTreeMap<String, u32> {
        let (networks, now) = (self.networks.lock(), Instant::now());
        let live = networks.iter().filter(|(_, network)| {
            let mut inside = network.inside();
            inside.forget(now);
            inside.is_live()
        });
        live.map(|(name, network)| (name.clone(), network.id)).collect()
    }

    fn join(&self, network: (&str, u32), name: &str, link: Arc<LinkPort>) -> Option<Arc<dyn Way>> {
        let found = self.networks.lock().get(network.0).filter(|n| n.id == network.1).cloned()?;
        let id = PortId(self.next_port.fetch_add(1, Ordering::Relaxed));
        let attached = AttachedPort {
            name: name.to_owned(),
            kind: PortKind::Link,
            role: Role::Link(Arc::clone(&link)),
            counters: Counters::default(),
            port: link,
        };
        found.join(id, attached);
        Some(Arc::new(LinkWay { network: found, id }))
    }

    fn tell(&self, event: NetworkEvent) {
        if let Some(news) = self.news.get() {
            news(event);
        }
    }
}

impl Switch {
    /// Says who hears what the switch tells by itself. The first one stays.
    pub fn listen_to(&self, news: News) {
        drop(self.news.set(news));
    }

    fn network(&self, name: &str) -> Arc<Network> {
        let new = || Arc::new(Network::new(self.next_network.fetch_add(1, Ordering::Relaxed), name));
        Arc::clone(self.networks.lock().entry(name.to_owned()).or_insert_with(new))
    }

    fn find(&self, name: &str) -> Option<(String, Arc<Network>, PortId, Arc<AttachedPort>)> {
        self.networks.lock().iter().find_map(|(of, network)| {
            let inside = network.inside();
            let (id, port) = inside.ports.iter().find(|(_, p)| p.name == name)?;
            Some((of.clone(), Arc::clone(network), *id, Arc::clone(port)))
        })
    }

    fn find_card(&self, name: &str) -> Result<(Arc<Network>, PortId, Arc<AttachedPort>), SwitchError> {
        let (_, network, id, port) = self.find(name).ok_or_else(|| SwitchError::NoPort(name.to_owned()))?;
        match port.card() {
            Some(_) => Ok((network, id, port)),
            None => Err(SwitchError::NotACard(name.to_owned())),
        }
    }

    /// Removes networks that are empty, and tells links of what is new.
    fn tidy(self: &Arc<Self>) {
        self.links.reconcile(&**self);
        let now = Instant::now();
        self.networks.lock().retain(|_, network| {
            let mut inside = network.inside();
            inside.forget(now);
            inside.is_live() || !inside.ports.is_empty()
        });
    }

    /// Attaches a port and starts to serve it. Attaching a name that is on the same network already changes nothing.
    ///
    /// `open` makes the port; it is given the way into the switch for the frames that come from it.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn attach(
        self: &Arc<Self>,
        network: &str,
        name: &str,
        kind: PortKind,
        whose: Whose,
        open: impl FnOnce(Ingress) -> Result<Arc<dyn Port>, PortError>,
    ) -> Result<(), SwitchError> {
        if let Some((at, ..)) = self.find(name) {
            let taken = SwitchError::NameTaken { name: name.to_owned(), network: at.clone() };
            return if at == network { Ok(()) } else { Err(taken) };
        }
        let id = PortId(self.next_port.fetch_add(1, Ordering::Relaxed));
        let (of, network) = (network, self.network(network));
        let expected = self.expected.lock().contains(name);
        let stage = if expected { Stage::Expecting } else { Stage::Open };
        let (card, lease) = match &whose {
            Whose::Uplink(_) => (None, None),
            Whose::Vm(mac, lease) => {
                let client = lease.as_ref().map(|lease| Client { mac: *mac, way_out: lease.way_out });
                (Some(Arc::new(VmCard::new(*mac, client, stage))), lease.as_ref().map(|lease| (*mac, lease)))
            }
        };
        let mut address = None;
        if let Some((mac, wish)) = lease {
            let wished = wish.address.map(Ipv4Addr::from);
            let given = network.inside().leases.attach(mac, &wish.name, wished, Instant::now());
            address = Some(given.ok_or_else(|| SwitchError::Full(of.to_owned()))?);
        }
        let ingress = {
            let (network, card) = (Arc::downgrade(&network), card.clone());
            Ingress::new(move |frame: &[u8]| match (network.upgrade(), &card) {
                (Some(network), Some(card)) => network.frame_of_card(id, card, frame),
                (Some(network), None) => network.frame_of_port(id, frame),
                (None, _) => {}
            })
        };
        let port = open(ingress).map_err(|source| {
            if let Some((mac, _)) = lease {
                network.inside().leases.detach(mac);
            }
            SwitchError::Open { name: name.to_owned(), source }
        })?;
        self.expected.lock().remove(name);
        let role = match (card, whose) {
            (Some(card), _) => Role::Card(card),
            (None, Whose::Uplink(owner)) => Role::Uplink(owner),
            (None, Whose::Vm(..)) => unreachable!("a VM's port has a card"),
        };
        let attached = AttachedPort {
            name: name.to_owned(),
            kind,
            role,
            counters: Counters::default(),
            port: Arc::clone(&port),
        };
        network.join(id, attached);
        if let Some(address) = address {
            self.tell(NetworkEvent::Leased { port: name.to_owned(), address: address.octets() });
        }
        port.start();
        self.tidy();
        Ok(())
    }

    /// Detaches a port; nothing happens when there is none of that name.
    pub fn detach(self: &Arc<Self>, name: &str) {
        self.expected.lock().remove(name);
        if self.remove(name) {
            self.tidy();
        }
    }

    /// Detaches the port of a VM that has ended, and tells other hosts so.
    pub fn end(self: &Arc<Self>, name: &str) {
        if let Ok((network, id, _)) = self.find_card(name) {
            network.end(id);
        }
        self.detach(name);
    }

    fn remove(&self, name: &str) -> bool {
        let Some((_, network, id, _)) = self.find(name) else { return false };
        let gone = network.leave(id);
        if let Some(gone) = &gone {
            gone.port.stop();
        }
        gone.is_some()
    }

    /// Detaches every port and ends every link.
    pub fn close(self: &Arc<Self>) {
        self.links.close();
        let networks: Vec<_> = self.networks.lock().drain().map(|(_, network)| network).collect();
        for network in networks {
            let ids: Vec<PortId> = network.inside().ports.keys().copied().collect();
            for port in ids.into_iter().filter_map(|id| network.leave(id)) {
                port.port.stop();
            }
        }
    }

    /// The VM of a port is on its way here.
    ///
    /// # Errors
    /// When the port is there and no VM's.
    pub fn hold(&self, name: &str) -> Result<(), SwitchError> {
        match self.find_card(name) {
            Ok((network, id, _)) => network.expect(id),
            Err(SwitchError::NoPort(_)) => drop(self.expected.lock().insert(name.to_owned())),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The VM of a port runs here.
    ///
    /// # Errors
    /// When there is no such port, or it is no VM's.
    pub fn release(&self, name: &str, addresses: &[[u8; 4]]) -> Result<(), SwitchError> {
        let (network, id, port) = self.find_card(name)?;
        let addresses: Vec<_> = addresses.iter().take(MOST_ADDRESSES).map(|a| Ipv4Addr::from(*a)).collect();
        network.release(id, &port, &addresses);
        Ok(())
    }

    /// The VM of a port has left. Answers its addresses.
    ///
    /// # Errors
    /// When the port is no VM's.
    pub fn move_away(self: &Arc<Self>, name: &str) -> Result<Vec<Ipv4Addr>, SwitchError> {
        let (network, id, port) = match self.find_card(name) {
            Ok(found) => found,
            Err(SwitchError::NoPort(_)) => return Ok(vec![]),
            Err(error) => return Err(error),
        };
        let addresses = network.depart(id, &port);
        port.port.stop();
        self.tidy();
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::report::NetworksReport;

    #[derive(Default)]
    struct Probe(Mutex<Vec<Vec<u8>>>);

    impl Port for Probe {
        fn start(self: Arc<Self>) {}
        fn send(&self, frame: &[u8], _: std::time::Duration) -> bool {
            self.0.lock().push(frame.to_vec());
            true
        }
        fn settle(&self) {}
        fn take_back(&self) -> Vec<Vec<u8>> {
            std::mem::take(&mut self.0.lock())
        }
        fn stop(&self) {}
    }

    fn frame(to: u8, from: u8) -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0];
        if to == 0xff {
            f[..6].fill(0xff);
        }
        f
    }

    fn attach(switch: &Arc<Switch>, network: &str, n: u8, pinned: bool) -> (Arc<Probe>, Ingress) {
        let probe = Arc::new(Probe::default());
        let mut way_in = None;
        let port: Arc<dyn Port> = Arc::<Probe>::clone(&probe);
        let mac = Mac([2, 0, 0, 0, 0, n]);
        let whose = if pinned { Whose::Vm(mac, None) } else { Whose::Uplink(None) };
        let name = format!("{network}/{n}");
        switch
            .attach(network, &name, PortKind::Tap, whose, |ingress| {
                way_in = Some(ingress);
                Ok(port)
            })
            .expect("attach");
        (probe, way_in.expect("opened"))
    }

    #[test]
    fn unicast_goes_to_one_port_broadcast_to_all_others_and_networks_are_apart() {
        let switch = Arc::new(Switch::default());
        let (a, from_a) = attach(&switch, "lan", 1, true);
        let (b, _) = attach(&switch, "lan", 2, true);
        let (c, from_c) = attach(&switch, "lan", 3, false);
        let (other, _) = attach(&switch, "dmz", 4, true);
        from_a.frame(&frame(2, 1));
        from_a.frame(&frame(0xff, 1));
        from_a.frame(&frame(9, 1));
        assert_eq!((a.0.lock().len(), b.0.lock().len(), c.0.lock().len()), (0, 3, 2));
        from_c.frame(&frame(1, 9));
        from_a.frame(&frame(9, 1));
        assert_eq!((a.0.lock().len(), b.0.lock().len(), c.0.lock().len()), (1, 3, 3));
        assert!(other.0.lock().is_empty());
    }

    #[test]
    fn a_port_of_a_vm_speaks_with_its_own_address_alone() {
        let switch = Arc::new(Switch::default());
        let (_, from_a) = attach(&switch, "lan", 1, true);
        let (b, _) = attach(&switch, "lan", 2, true);
        from_a.frame(&frame(2, 7));
        from_a.frame(&[0; 5]);
        assert!(b.0.lock().is_empty());
        let refused: u64 = switch.report().networks[0].ports.iter().map(|port| port.refused).sum();
        assert_eq!(refused, 2);
    }

    #[test]
    fn detached_ports_are_forgotten_and_names_are_unique() {
        let switch = Arc::new(Switch::default());
        let (_, from_a) = attach(&switch, "lan", 1, true);
        let (b, from_b) = attach(&switch, "lan", 2, true);
        let clash = switch
            .attach("dmz", "lan/2", PortKind::Tap, Whose::Uplink(None), |_| Ok(Arc::new(Probe::default())));
        assert!(matches!(clash, Err(SwitchError::NameTaken { .. })));
        switch.detach("lan/2");
        from_a.frame(&frame(2, 1));
        from_b.frame(&frame(1, 2));
        assert!(b.0.lock().is_empty());
        switch.close();
        assert_eq!(switch.report(), NetworksReport::default());
    }
}
