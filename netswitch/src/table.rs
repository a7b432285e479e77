//! The address table: which port leads to which address.

use crate::ethernet::Mac;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a learnt address is believed without a frame from it (IEEE 802.1Q, 8.8.3: 300 s).
pub const AGEING: Duration = Duration::from_secs(300);
/// Addresses a network remembers. A sender of random addresses cannot make it grow beyond.
pub const CAPACITY: usize = 4096;

/// A port's number within a switch; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct PortId(pub u64);

#[derive(Clone, Copy, Debug)]
struct Entry {
    port: PortId,
    /// When the address was last seen; nothing for an address that the configuration gave.
    seen: Option<Instant>,
}

/// Addresses of one network.
#[derive(Debug, Default)]
pub struct AddressTable {
    entries: HashMap<Mac, Entry>,
}

impl AddressTable {
    /// Binds an address to a port until the port goes.
    pub fn pin(&mut self, mac: Mac, port: PortId) {
        self.entries.insert(mac, Entry { port, seen: None });
    }

    /// Learns from a frame's source. A pinned address is never moved by a frame.
    pub fn learn(&mut self, mac: Mac, port: PortId, now: Instant) {
        if mac.is_group() {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&mac) {
            if entry.seen.is_some() {
                *entry = Entry { port, seen: Some(now) };
            }
            return;
        }
        if self.entries.len() >= CAPACITY {
            self.expire(now);
        }
        if self.entries.len() < CAPACITY {
            self.entries.insert(mac, Entry { port, seen: Some(now) });
        }
    }

    /// The port that leads to an address, unless it is unknown or too old.
    #[must_use]
    pub fn lookup(&self, mac: Mac, now: Instant) -> Option<PortId> {
        let entry = self.entries.get(&mac)?;
        entry.seen.is_none_or(|seen| now.saturating_duration_since(seen) < AGEING).then_some(entry.port)
    }

    /// Forgets what has aged.
    pub fn expire(&mut self, now: Instant) {
        self.entries
            .retain(|_, entry| entry.seen.is_none_or(|seen| now.saturating_duration_since(seen) < AGEING));
    }

    /// Forgets every address of a port.
    pub fn forget_port(&mut self, port: PortId) {
        self.entries.retain(|_, entry| entry.port != port);
    }

    /// All addresses with their ports and whether they are pinned, sorted by address.
    #[must_use]
    pub fn list(&self, now: Instant) -> Vec<(Mac, PortId, bool)> {
        let live = self.entries.iter().filter(|(mac, _)| self.lookup(**mac, now).is_some());
        let mut list: Vec<_> = live.map(|(mac, entry)| (*mac, entry.port, entry.seen.is_none())).collect();
        list.sort_unstable_by_key(|(mac, ..)| *mac);
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mac(n: u16) -> Mac {
        let [a, b] = n.to_be_bytes();
        Mac([2, 0, 0, 0, a, b])
    }

    #[test]
    fn addresses_move_age_and_leave_with_their_port() {
        let mut table = AddressTable::default();
        let start = Instant::now();
        table.learn(mac(1), PortId(1), start);
        table.learn(mac(1), PortId(2), start);
        assert_eq!(table.lookup(mac(1), start), Some(PortId(2)));
        assert_eq!(table.lookup(mac(1), start + AGEING), None);
        table.pin(mac(2), PortId(3));
        table.learn(mac(2), PortId(1), start);
        assert_eq!(table.lookup(mac(2), start + AGEING), Some(PortId(3)));
        table.forget_port(PortId(3));
        assert_eq!(table.lookup(mac(2), start), None);
        table.learn(Mac([0xff; 6]), PortId(1), start);
        assert_eq!(table.lookup(Mac([0xff; 6]), start), None);
    }

    #[test]
    fn a_flood_of_addresses_does_not_grow_the_table_and_ages_out() {
        let mut table = AddressTable::default();
        let start = Instant::now();
        for n in 0..=u16::MAX {
            table.learn(mac(n), PortId(1), start);
        }
        assert_eq!(table.entries.len(), CAPACITY);
        let later = start + AGEING;
        table.learn(mac(60_000), PortId(2), later);
        assert_eq!(table.lookup(mac(60_000), later), Some(PortId(2)));
        assert_eq!(table.list(later).len(), 1);
    }

    proptest! {
        /// The table answers what a list of all frames, searched from the newest, would answer.
        #[test]
        fn agrees_with_the_history(frames in prop::collection::vec((0u16..20, 0u64..4, 0u64..200), 0..60)) {
            let start = Instant::now();
            let mut table = AddressTable::default();
            let mut now = start;
            let mut history = vec![];
            for (m, port, pass) in frames {
                now += Duration::from_secs(pass);
                table.learn(mac(m), PortId(port), now);
                history.push((m, port, now));
                for probe in 0..20 {
                    let expected = history.iter().rev().find(|(m, ..)| *m == probe)
                        .filter(|(.., seen)| now - *seen < AGEING).map(|(_, port, _)| PortId(*port));
                    prop_assert_eq!(table.lookup(mac(probe), now), expected);
                }
            }
        }
    }
}
