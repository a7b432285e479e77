//! The switch as its counters show it.

use crate::ethernet::Mac;
use crate::gate::Stage;
use crate::link::LinkReport;
use crate::network::{Attached, Network, lock};
use crate::switch::Switch;
use serde::Serialize;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[derive(Serialize)]
struct PortReport {
    name: String,
    kind: &'static str,
    state: &'static str,
    held: usize,
    ipv4: Vec<Ipv4Addr>,
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

#[derive(Serialize)]
struct Report {
    networks: Vec<NetworkReport>,
    links: Vec<LinkReport>,
}

fn port(attached: &Attached) -> PortReport {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (card, counters) = (attached.card(), &attached.counters);
    PortReport {
        name: attached.name.clone(),
        kind: attached.kind,
        state: match card.map_or(Stage::Open, |card| card.gate.stage()) {
            Stage::Open => "open",
            Stage::Expecting => "expecting",
            Stage::Holding => "holding",
        },
        held: card.map_or(0, |card| card.gate.held()),
        ipv4: card.map_or_else(Vec::new, |card| lock(&card.addresses).list()),
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
    let address = |(mac, id, pinned)| AddressReport { mac, port: named(id), pinned };
    inside.is_live().then(|| NetworkReport {
        name: name.to_owned(),
        ports: inside.ports.values().map(|p| port(p)).collect(),
        addresses: inside.table.list(now).into_iter().map(address).collect(),
    })
}

impl Switch {
    /// Networks, ports, addresses, links and counters as a JSON object.
    #[must_use]
    pub fn report(&self) -> String {
        let now = Instant::now();
        let of = |(name, state): (&String, &_)| network(name, std::sync::Arc::as_ref(state), now);
        let mut networks: Vec<_> = lock(&self.networks).iter().filter_map(of).collect();
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        let report = Report { networks, links: self.links.report() };
        serde_json::to_string(&report).unwrap_or_else(|_| "{}".to_owned())
    }
}
