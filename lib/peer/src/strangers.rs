//! Places for those who have not proved who they are.

use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;

/// Places for strangers in all.
const ALL: usize = 64;
/// Places of one address. Hosts behind one address translator share them.
const EACH: usize = 16;
/// Places for those whose address was a host's before, beside the strangers'.
const KNOWN: usize = 64;
/// Addresses of hosts that are kept in mind.
const REMEMBERED: usize = 1024;

/// Where someone comes from: an IPv4 address, or the 64 bits of IPv6 that whoever has one of its addresses has all of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Source(u64);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u32::from(v4).into()),
            // No network that is handed out has 32 zero bits in front.
            IpAddr::V6(v6) => {
                Self(v6.segments()[..4].iter().fold(0, |network, word| (network << 16) | u64::from(*word)))
            }
        }
    }
}

/// Someone in front of the door.
struct Present<S> {
    source: Source,
    known: bool,
    socket: S,
}

/// Who is in front of the door, in the order in which they came.
struct Row<S> {
    next: u64,
    present: BTreeMap<u64, Present<S>>,
    /// Addresses of hosts, with when they were last seen as a number that grows.
    known: HashMap<Source, u64>,
}

impl<S> Default for Row<S> {
    fn default() -> Self {
        Self { next: 0, present: BTreeMap::new(), known: HashMap::new() }
    }
}

impl<S> Row<S> {
    /// Who has to go so that one more of `source` has a place.
    fn in_excess(&self, source: Source, known: bool) -> Option<u64> {
        let mut crowds = BTreeMap::<Source, (usize, u64)>::new();
        let kind = || self.present.iter().filter(|(_, present)| present.known == known);
        for (id, present) in kind() {
            crowds.entry(present.source).or_insert((0, *id)).0 += 1;
        }
        let (own, all) = (crowds.get(&source).copied(), if known { KNOWN } else { ALL });
        let crowded = own.filter(|(count, _)| *count >= EACH);
        let full = || {
            // Of crowds of one size the one that is there longest; the numbers grow.
            let largest = crowds.values().copied().max_by_key(|(count, first)| (*count, u64::MAX - first));
            largest.filter(|_| kind().count() >= all)
        };
        crowded.or_else(full).map(|(_, first)| first)
    }

    /// Gives someone a place; returns its number, and whoever made room for it.
    fn admit(&mut self, source: Source, socket: S) -> (u64, Option<S>) {
        let known = self.known.contains_key(&source);
        let leaves = self.in_excess(source, known).and_then(|id| self.present.remove(&id));
        self.next += 1;
        self.present.insert(self.next, Present { source, known, socket });
        (self.next, leaves.map(|present| present.socket))
    }

    fn know(&mut self, source: Source) {
        self.next += 1;
        self.known.insert(source, self.next);
        if self.known.len() > REMEMBERED
            && let Some(oldest) = self.known.iter().min_by_key(|(_, seen)| **seen).map(|(source, _)| *source)
        {
            self.known.remove(&oldest);
        }
    }
}

/// Who is in front of a door.
#[derive(Default)]
pub struct Strangers(Mutex<Row<TcpStream>>);

impl Strangers {
    fn row(&self) -> MutexGuard<'_, Row<TcpStream>> {
        self.0.lock()
    }

    /// Gives a connection a place as long as the answer lives; whoever has to go for it is hung up on.
    ///
    /// # Errors
    /// When the socket is closed already.
    pub fn admit(self: &Arc<Self>, socket: &TcpStream) -> std::io::Result<Visit> {
        let source = socket.peer_addr()?.ip().into();
        let (id, leaves) = self.row().admit(source, socket.try_clone()?);
        if let Some(leaves) = leaves {
            // It may have gone by itself.
            drop(leaves.shutdown(Shutdown::Both));
        }
        Ok(Visit { strangers: Arc::clone(self), source, id })
    }

    /// Keeps in mind that a host is there: it has proved it, or we call it ourselves.
    pub fn know(&self, address: IpAddr) {
        self.row().know(address.into());
    }
}

/// A place in front of a door.
pub struct Visit {
    strangers: Arc<Strangers>,
    source: Source,
    id: u64,
}

impl Visit {
    /// It has proved to be a host; its place is free. False when it has lost it before.
    pub fn proved(self) -> bool {
        let mut row = self.strangers.row();
        row.know(self.source);
        row.present.remove(&self.id).is_some()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.strangers.row().present.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn one_network_is_one_source() {
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }

    #[test]
    fn the_longest_there_makes_room_where_there_are_most() {
        let mut row = Row::default();
        let crowd = source("10.0.0.1");
        for n in 0..EACH {
            assert_eq!(row.admit(crowd, (crowd, n)).1, None);
        }
        assert_eq!(row.admit(crowd, (crowd, EACH)).1, Some((crowd, 0)));
        // From here on from everywhere: the crowd gives way down to the size of the others, whoever comes.
        for n in 0..200u32 {
            let from = source(&format!("10.1.{}.{}", n / 100, n % 100));
            let gone = row.admit(from, (from, 0)).1;
            let there = row.present.len();
            assert!(there <= ALL && (gone.is_some() == (n as usize + EACH >= ALL)), "{n}: {there}");
            assert!(gone.is_none_or(|(who, _)| who == crowd) || n as usize > ALL - 2);
        }
    }

    #[test]
    fn hosts_have_places_of_their_own() {
        let mut row = Row::default();
        let host = source("10.0.0.9");
        row.know(host);
        row.admit(host, host);
        for n in 0..1000u32 {
            let from = source(&format!("10.2.{}.{}", n / 200, n % 200));
            assert_ne!(row.admit(from, from).1, Some(host));
        }
        // One that misbehaves takes its own places.
        let other = source("10.0.0.8");
        row.know(other);
        assert!((0..100).all(|_| row.admit(other, other).1 != Some(host)));
        for n in 0..2 * REMEMBERED {
            row.know(Source(n as u64 + (1 << 40)));
        }
        assert_eq!(row.known.len(), REMEMBERED);
    }
}
