//! The switch as its counters show it.

use crate::ethernet::Mac;
use crate::gate::Stage;
use crate::network::{AttachedPort, Network};
use crate::switch::Switch;
use quasar_abi::report::{AddressReport, NetworkReport, NetworksReport, PortReport, PortState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

fn port(attached: &AttachedPort) -> PortReport {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (card, counters) = (attached.card(), &attached.counters);
    PortReport {
        name: attached.name.clone(),
        kind: attached.kind,
        state: match card.map_or(Stage::Open, |card| card.gate.stage()) {
            Stage::Open => PortState::Open,
            Stage::Expecting => PortState::Expecting,
            Stage::Holding => PortState::Holding,
        },
        held: card.map_or(0, |card| card.gate.held()),
        ipv4: card.map_or_else(Vec::new, |card| card.addresses.lock().list()),
        frames_in: get(&counters.frames_in),
        bytes_in: get(&counters.bytes_in),
        frames_out: get(&counters.frames_out),
        bytes_out: get(&counters.bytes_out),
        refused: get(&counters.refused),
        dropped: get(&counters.dropped),
    }
}

fn network(name: &str, network: &Network, now: Instant) -> Option<NetworkReport> {
    let inside = network.inside();
    let named = |id| inside.ports.get(&id).map_or_else(String::new, |p| p.name.clone());
    let address =
        |(mac, id, pinned): (Mac, _, _)| AddressReport { mac: mac.to_string(), port: named(id), pinned };
    inside.is_live().then(|| NetworkReport {
        name: name.to_owned(),
        ports: inside.ports.values().map(|p| port(p)).collect(),
        addresses: inside.table.list(now).into_iter().map(address).collect(),
    })
}

impl Switch {
    /// Networks, ports, addresses, links and counters.
    #[must_use]
    pub fn report(&self) -> NetworksReport {
        let now = Instant::now();
        let of = |(name, state): (&String, &_)| network(name, std::sync::Arc::as_ref(state), now);
        let mut networks: Vec<_> = self.networks.lock().iter().filter_map(of).collect();
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        NetworksReport { networks, links: self.links.report() }
    }
}
