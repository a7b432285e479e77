//! Networks of ports, and the way of a frame through them.

use crate::ethernet::{Header, Mac};
use crate::port::{Ingress, Port};
use crate::table::{AddressTable, PortId};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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

struct Attached {
    name: String,
    kind: &'static str,
    /// The only source address accepted, for ports of VMs.
    only_source: Option<Mac>,
    counters: Arc<Counters>,
    port: Arc<dyn Port>,
}

#[derive(Default)]
struct Network {
    table: AddressTable,
    ports: BTreeMap<PortId, Arc<Attached>>,
}

/// The switch: any number of networks that share nothing.
#[derive(Default)]
pub struct Switch {
    networks: Mutex<HashMap<String, Arc<Mutex<Network>>>>,
    next_port: AtomicU64,
}

/// A port of this name exists on another network or of another kind.
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
    #[error("port {name}: {source:#}")]
    Open {
        /// The port.
        name: String,
        /// Why.
        source: anyhow::Error,
    },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The tables stay consistent between statements, so that a panic of another thread spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Serialize)]
struct PortReport {
    name: String,
    kind: &'static str,
    frames_in: u64,
    bytes_in: u64,
    frames_out: u64,
    bytes_out: u64,
    refused: u64,
    dropped: u64,
}

#[derive(Serialize)]
struct AddressReport {
    mac: Mac,
    port: String,
    pinned: bool,
}

#[derive(Serialize)]
struct NetworkReport {
    name: String,
    ports: Vec<PortReport>,
    addresses: Vec<AddressReport>,
}

impl Switch {
    fn network(&self, name: &str) -> Arc<Mutex<Network>> {
        Arc::clone(lock(&self.networks).entry(name.to_owned()).or_default())
    }

    fn find(&self, name: &str) -> Option<(String, PortId)> {
        lock(&self.networks).iter().find_map(|(network, state)| {
            let state = lock(state);
            state.ports.iter().find(|(_, p)| p.name == name).map(|(id, _)| (network.clone(), *id))
        })
    }

    /// Attaches a port and starts to serve it. `mac` pins the address and restricts the port to it.
    /// Attaching a name that is on the same network already changes nothing.
    ///
    /// `open` makes the port; it is given the way into the switch for the frames that come from it.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn attach(
        self: &Arc<Self>,
        network: &str,
        name: &str,
        kind: &'static str,
        mac: Option<Mac>,
        open: impl FnOnce(Ingress) -> anyhow::Result<Arc<dyn Port>>,
    ) -> Result<(), SwitchError> {
        if let Some((at, _)) = self.find(name) {
            let taken = SwitchError::NameTaken { name: name.to_owned(), network: at.clone() };
            return if at == network { Ok(()) } else { Err(taken) };
        }
        let id = PortId(self.next_port.fetch_add(1, Ordering::Relaxed));
        let state = self.network(network);
        let counters = Arc::new(Counters::default());
        let ingress = {
            let (state, counters) = (Arc::downgrade(&state), Arc::clone(&counters));
            Ingress::new(move |frame: &[u8]| {
                if let Some(state) = state.upgrade() {
                    forward(&state, id, mac, &counters, frame);
                }
            })
        };
        let port = open(ingress).map_err(|source| SwitchError::Open { name: name.to_owned(), source })?;
        let attached =
            Attached { name: name.to_owned(), kind, only_source: mac, counters, port: Arc::clone(&port) };
        let mut guard = lock(&state);
        if let Some(mac) = attached.only_source {
            guard.table.pin(mac, id);
        }
        guard.ports.insert(id, Arc::new(attached));
        drop(guard);
        port.start();
        Ok(())
    }

    /// Detaches a port; nothing happens when there is none of that name.
    pub fn detach(&self, name: &str) {
        let Some((network, id)) = self.find(name) else { return };
        let state = self.network(&network);
        let mut guard = lock(&state);
        guard.table.forget_port(id);
        let gone = guard.ports.remove(&id);
        let empty = guard.ports.is_empty();
        drop(guard);
        if let Some(gone) = gone {
            gone.port.stop();
        }
        if empty {
            lock(&self.networks).remove(&network);
        }
    }

    /// Detaches every port.
    pub fn close(&self) {
        let names: Vec<String> = {
            let networks = lock(&self.networks);
            networks
                .values()
                .flat_map(|n| lock(n).ports.values().map(|p| p.name.clone()).collect::<Vec<_>>())
                .collect()
        };
        for name in names {
            self.detach(&name);
        }
    }

    /// Networks, ports, addresses and counters as a JSON array.
    #[must_use]
    pub fn report(&self) -> String {
        let now = Instant::now();
        let mut reports: Vec<NetworkReport> = vec![];
        for (name, state) in lock(&self.networks).iter() {
            let state = lock(state);
            let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let ports = state.ports.values().map(|p| PortReport {
                name: p.name.clone(),
                kind: p.kind,
                frames_in: get(&p.counters.frames_in),
                bytes_in: get(&p.counters.bytes_in),
                frames_out: get(&p.counters.frames_out),
                bytes_out: get(&p.counters.bytes_out),
                refused: get(&p.counters.refused),
                dropped: get(&p.counters.dropped),
            });
            let port_name = |id| state.ports.get(&id).map_or_else(String::new, |p| p.name.clone());
            let addresses = state.table.list(now).into_iter();
            let addresses =
                addresses.map(|(mac, id, pinned)| AddressReport { mac, port: port_name(id), pinned });
            reports.push(NetworkReport {
                name: name.clone(),
                ports: ports.collect(),
                addresses: addresses.collect(),
            });
        }
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        serde_json::to_string(&reports).unwrap_or_else(|_| "[]".to_owned())
    }
}

/// One frame's way: checked, learnt from, and sent where the table says, or everywhere else.
fn forward(
    state: &Mutex<Network>,
    from: PortId,
    only_source: Option<Mac>,
    counters: &Counters,
    frame: &[u8],
) {
    let header = Header::parse(frame).filter(|h| only_source.is_none_or(|mac| h.source == mac));
    let Some(header) = header else {
        counters.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    counters.frames_in.fetch_add(1, Ordering::Relaxed);
    counters.bytes_in.fetch_add(frame.len() as u64, Ordering::Relaxed);
    // The lock is held for the decision alone: sending may wait for the receiver.
    let targets: Vec<Arc<Attached>> = {
        let now = Instant::now();
        let mut network = lock(state);
        if !network.ports.contains_key(&from) {
            return;
        }
        network.table.learn(header.source, from, now);
        let known =
            if header.destination.is_group() { None } else { network.table.lookup(header.destination, now) };
        match known {
            Some(port) if port == from => vec![],
            Some(port) => network.ports.get(&port).cloned().into_iter().collect(),
            None => network.ports.iter().filter(|(id, _)| **id != from).map(|(_, p)| Arc::clone(p)).collect(),
        }
    };
    let patient = targets.len() == 1;
    for target in targets {
        if target.port.send(frame, patient) {
            target.counters.frames_out.fetch_add(1, Ordering::Relaxed);
            target.counters.bytes_out.fetch_add(frame.len() as u64, Ordering::Relaxed);
        } else {
            target.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Probe(Mutex<Vec<Vec<u8>>>);

    impl Port for Probe {
        fn start(self: Arc<Self>) {}
        fn send(&self, frame: &[u8], _: bool) -> bool {
            lock(&self.0).push(frame.to_vec());
            true
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
        let mac = pinned.then_some(Mac([2, 0, 0, 0, 0, n]));
        let name = format!("{network}/{n}");
        switch
            .attach(network, &name, "probe", mac, |ingress| {
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
        assert_eq!((lock(&a.0).len(), lock(&b.0).len(), lock(&c.0).len()), (0, 3, 2));
        from_c.frame(&frame(1, 9));
        from_a.frame(&frame(9, 1));
        assert_eq!((lock(&a.0).len(), lock(&b.0).len(), lock(&c.0).len()), (1, 3, 3));
        assert!(lock(&other.0).is_empty());
    }

    #[test]
    fn a_port_of_a_vm_speaks_with_its_own_address_alone() {
        let switch = Arc::new(Switch::default());
        let (_, from_a) = attach(&switch, "lan", 1, true);
        let (b, _) = attach(&switch, "lan", 2, true);
        from_a.frame(&frame(2, 7));
        from_a.frame(&[0; 5]);
        assert!(lock(&b.0).is_empty());
        assert!(switch.report().contains("\"refused\":2"));
    }

    #[test]
    fn detached_ports_are_forgotten_and_names_are_unique() {
        let switch = Arc::new(Switch::default());
        let (_, from_a) = attach(&switch, "lan", 1, true);
        let (b, from_b) = attach(&switch, "lan", 2, true);
        let clash = switch.attach("dmz", "lan/2", "probe", None, |_| Ok(Arc::new(Probe::default())));
        assert!(matches!(clash, Err(SwitchError::NameTaken { .. })));
        switch.detach("lan/2");
        from_a.frame(&frame(2, 1));
        from_b.frame(&frame(1, 2));
        assert!(lock(&b.0).is_empty());
        switch.close();
        assert_eq!(switch.report(), "[]");
    }
}
