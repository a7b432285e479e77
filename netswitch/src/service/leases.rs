//! Who has which address and which name on a network, here and at other hosts. Tables alone; who tells whom is
//! [`crate::network`]'s.
//!
//! Every switch gives addresses to the VMs of its own host and hears over the links what others gave. An address follows
//! from the card's address, or from the next one that is free as far as is known, so that the same VM is given the same
//! one again. Two hosts that had no link may have given one address twice: of the two VMs, the one whose card's address
//! is the lower keeps it. Both switches see that alike, and the other one's is given another.

use crate::ethernet::Mac;
use crate::table::PortId;
use quasar_abi::address_plan::{SHARED, is_assignable};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How long a VM is remembered whose host is not heard of any more.
const REMEMBERED: Duration = Duration::from_secs(600);
/// VMs of other hosts that are remembered at most.
const MOST: usize = 1024;
/// Longest name: a DNS label (RFC 1035, 2.3.4).
pub const LONGEST_NAME: usize = 63;

/// Whose word an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The VM is attached here.
    Here,
    /// The host behind a link has it.
    Link(PortId),
    /// It has left, or its host's link has gone; forgotten then.
    Until(Instant),
}

/// A VM as its network knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its name, in small letters.
    pub name: String,
    source: Source,
    /// What was known before it was attached here: it may come and not arrive.
    before: Option<Source>,
}

impl Lease {
    /// Whether its VM is attached to this switch.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.source == Source::Here
    }
}

/// All that is known on one network.
#[derive(Debug, Default)]
pub struct Leases {
    known: BTreeMap<Mac, Lease>,
}

/// Whether something from outside can be a VM's name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(good)
}

/// The address from which the search for a free one begins: FNV-1a over the card's address.
fn first_choice(mac: Mac) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    mac.0.iter().fold(0x811c_9dc5, step)
}

impl Leases {
    fn is_free(&self, address: Ipv4Addr, mac: Mac) -> bool {
        !self.known.iter().any(|(other, lease)| *other != mac && lease.address == address)
    }

    fn choose(&self, mac: Mac) -> Option<Ipv4Addr> {
        let (first, last) = (SHARED.0.to_bits(), SHARED.1.to_bits());
        let count = last - first + 1;
        let begin = first_choice(mac) % count;
        let all = (0..count).map(|n| Ipv4Addr::from_bits(first + (begin + n) % count));
        all.into_iter().find(|address| self.is_free(*address, mac))
    }

    /// A VM is attached here. Its address: the one that is wished for or that it is known to have, if nobody else has
    /// it; another one otherwise. Nothing when there is none left.
    pub fn attach(&mut self, mac: Mac, name: &str, wish: Option<Ipv4Addr>, now: Instant) -> Option<Ipv4Addr> {
        self.forget_old(now);
        let before = self.known.get(&mac).filter(|lease| !lease.is_here());
        let (known, source) = (before.map(|lease| lease.address), before.map(|lease| lease.source));
        let good = |address: &Ipv4Addr| is_assignable(*address) && self.is_free(*address, mac);
        let address = wish.filter(good).or(known.filter(good)).or_else(|| self.choose(mac))?;
        let lease = Lease { address, name: name.to_ascii_lowercase(), source: Source::Here, before: source };
        self.known.insert(mac, lease);
        Some(address)
    }

    /// A VM that was attached runs here: from now on nothing is known that was known before.
    pub fn arrive(&mut self, mac: Mac) {
        if let Some(lease) = self.known.get_mut(&mac) {
            lease.before = None;
        }
    }

    /// A VM's port goes. What was known before it was attached is known again, when it has not arrived.
    pub fn detach(&mut self, mac: Mac) {
        let Some(lease) = self.known.get_mut(&mac).filter(|lease| lease.is_here()) else { return };
        match lease.before.take() {
            Some(source) => lease.source = source,
            None => drop(self.known.remove(&mac)),
        }
    }

    /// A VM has left for another host, which will say so.
    pub fn depart(&mut self, mac: Mac, now: Instant) {
        if let Some(lease) = self.known.get_mut(&mac) {
            lease.source = Source::Until(now + REMEMBERED);
        }
    }

    /// The host behind a link has a VM of this name and address. Answers the VMs of this host whose address that was,
    /// and their new ones.
    pub fn hear(
        &mut self,
        link: PortId,
        mac: Mac,
        address: Ipv4Addr,
        name: &str,
        now: Instant,
    ) -> Vec<(Mac, Ipv4Addr)> {
        if !is_assignable(address) || !is_name(name) {
            return vec![];
        }
        self.forget_old(now);
        // Until it has left here it is ours; and one that is on its way here is still there.
        if let Some(lease) = self.known.get_mut(&mac).filter(|lease| lease.is_here()) {
            lease.before = lease.before.map(|_| Source::Link(link));
            return vec![];
        }
        if self.known.len() >= MOST && !self.known.contains_key(&mac) {
            return vec![];
        }
        let lease = Lease { address, name: name.to_owned(), source: Source::Link(link), before: None };
        self.known.insert(mac, lease);
        let loses = |(other, lease): (&Mac, &Lease)| {
            (lease.is_here() && lease.address == address && mac < *other).then_some(*other)
        };
        let losers: Vec<Mac> = self.known.iter().filter_map(loses).collect();
        let mut moved = vec![];
        for loser in losers {
            let Some(another) = self.choose(loser) else { continue };
            if let Some(lease) = self.known.get_mut(&loser) {
                lease.address = another;
                moved.push((loser, another));
            }
        }
        moved
    }

    /// The host behind a link does not have the VM any more.
    pub fn hear_gone(&mut self, link: PortId, mac: Mac) {
        if self.known.get(&mac).is_some_and(|lease| lease.source == Source::Link(link)) {
            self.known.remove(&mac);
        }
    }

    /// A link has gone. Its host's VMs have not: they keep their addresses for a while.
    pub fn lose_link(&mut self, link: PortId, now: Instant) {
        let until = Source::Until(now + REMEMBERED);
        for lease in self.known.values_mut() {
            for source in std::iter::once(&mut lease.source).chain(&mut lease.before) {
                if *source == Source::Link(link) {
                    *source = until;
                }
            }
        }
    }

    fn forget_old(&mut self, now: Instant) {
        self.known.retain(|_, lease| !matches!(lease.source, Source::Until(until) if until <= now));
    }

    /// What is known of a VM.
    #[must_use]
    pub fn of(&self, mac: Mac) -> Option<&Lease> {
        self.known.get(&mac)
    }

    /// The addresses of a name; several VMs at different hosts may have it.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<Ipv4Addr> {
        let named = self.known.values().filter(|lease| lease.name.eq_ignore_ascii_case(name));
        named.map(|lease| lease.address).collect()
    }

    /// Whose address it is.
    #[must_use]
    pub fn owner(&self, address: Ipv4Addr) -> Option<(Mac, &Lease)> {
        self.known.iter().find(|(_, lease)| lease.address == address).map(|(mac, lease)| (*mac, lease))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mac(n: u8) -> Mac {
        Mac([0x52, 0x54, 0, 0, 0, n])
    }

    const ONE: PortId = PortId(1);
    const OTHER: PortId = PortId(2);

    #[test]
    fn a_vm_is_given_the_same_address_again_and_no_two_the_same() {
        let now = Instant::now();
        let mut leases = Leases::default();
        let first = leases.attach(mac(1), "a", None, now).expect("an address");
        assert!(is_assignable(first) && first >= SHARED.0);
        assert_eq!(Leases::default().attach(mac(1), "a", None, now), Some(first));
        let second = leases.attach(mac(2), "b", Some(first), now).expect("an address");
        assert_ne!(first, second);
        leases.detach(mac(1));
        assert_eq!(leases.of(mac(1)), None);
        assert_eq!(leases.attach(mac(3), "c", Some(first), now), Some(first));
        assert_eq!(
            (leases.named("b"), leases.named("B"), leases.named("a")),
            (vec![second], vec![second], vec![])
        );
        for bad in [Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::BROADCAST] {
            assert_ne!(leases.attach(mac(4), "d", Some(bad), now), Some(bad));
        }
    }

    #[test]
    fn a_network_has_an_end() {
        let (now, mut leases) = (Instant::now(), Leases::default());
        let given = (0..=255).filter(|n| leases.attach(mac(*n), "x", None, now).is_some()).count();
        assert_eq!(given, 223);
        leases.detach(mac(7));
        assert!(leases.attach(mac(255), "x", None, now).is_some());
    }

    #[test]
    fn of_two_that_were_given_one_address_the_lower_card_keeps_it_at_both_hosts() {
        let now = Instant::now();
        let (mut a, mut b) = (Leases::default(), Leases::default());
        let shared = a.attach(mac(1), "low", None, now).expect("an address");
        assert_eq!(b.attach(mac(2), "high", Some(shared), now), Some(shared));
        assert_eq!(a.hear(ONE, mac(2), shared, "high", now), vec![]);
        let moved = b.hear(ONE, mac(1), shared, "low", now);
        let [(Mac([.., 2]), another)] = moved[..] else { panic!("{moved:?}") };
        assert_ne!(another, shared);
        a.hear(ONE, mac(2), another, "high", now);
        for host in [&a, &b] {
            assert_eq!((host.named("low"), host.named("high")), (vec![shared], vec![another]));
        }
    }

    #[test]
    fn a_vm_that_moves_keeps_its_address_and_one_that_does_not_arrive_is_known_where_it_was() {
        let now = Instant::now();
        let (mut a, mut b) = (Leases::default(), Leases::default());
        let address = a.attach(mac(1), "web", None, now).expect("an address");
        b.hear(ONE, mac(1), address, "web", now);
        // It comes, and does not arrive.
        assert_eq!(b.attach(mac(1), "web", Some(address), now), Some(address));
        b.detach(mac(1));
        assert_eq!(b.named("web"), [address]);
        b.hear_gone(OTHER, mac(1));
        assert_eq!(b.named("web"), [address]);
        // It comes and arrives; what its old host says late changes nothing.
        assert_eq!(b.attach(mac(1), "web", None, now), Some(address));
        b.arrive(mac(1));
        b.hear(ONE, mac(1), Ipv4Addr::new(10, 0, 2, 99), "web", now);
        a.depart(mac(1), now);
        assert_eq!(a.attach(mac(2), "other", Some(address), now).map(|other| other == address), Some(false));
        a.hear(ONE, mac(1), address, "web", now);
        assert_eq!((a.named("web"), b.named("web")), (vec![address], vec![address]));
        a.hear_gone(ONE, mac(1));
        assert!(a.named("web").is_empty());
    }

    #[test]
    fn vms_behind_a_broken_link_are_remembered_for_a_while() {
        let (now, mut leases) = (Instant::now(), Leases::default());
        let address = Ipv4Addr::new(10, 0, 2, 40);
        leases.hear(ONE, mac(1), address, "far", now);
        leases.lose_link(ONE, now);
        assert_ne!(leases.attach(mac(2), "near", Some(address), now), Some(address));
        let later = now + REMEMBERED;
        assert_eq!(leases.attach(mac(2), "near", Some(address), later), Some(address));
        assert!(leases.named("far").is_empty());
    }

    #[test]
    fn another_host_cannot_make_us_keep_much_or_odd() {
        let (now, mut leases) = (Instant::now(), Leases::default());
        for n in 0..2000u16 {
            let [high, low] = n.to_be_bytes();
            leases.hear(ONE, Mac([2, 0, 0, 0, high, low]), Ipv4Addr::new(10, 0, 2, 9), "far", now);
        }
        assert_eq!(leases.known.len(), MOST);
        let mut leases = Leases::default();
        for name in ["", "a.b", "A", "ä", &"x".repeat(64)] {
            leases.hear(ONE, mac(1), Ipv4Addr::new(10, 0, 2, 9), name, now);
        }
        leases.hear(ONE, mac(1), Ipv4Addr::new(10, 0, 2, 3), "resolver", now);
        assert!(leases.known.is_empty());
    }

    proptest! {
        /// However VMs come, go and are heard of, two of this host never have one address.
        #[test]
        fn addresses_of_this_host_are_its_vms_own(
            steps in prop::collection::vec((0u8..6, 0u8..12, 30u8..40), 0..80)
        ) {
            let (now, mut leases) = (Instant::now(), Leases::default());
            for (step, n, last) in steps {
                let address = Ipv4Addr::new(10, 0, 2, last);
                match step {
                    0 => drop(leases.attach(mac(n), "n", None, now)),
                    1 => drop(leases.attach(mac(n), "n", Some(address), now)),
                    2 => leases.detach(mac(n)),
                    3 => drop(leases.hear(ONE, mac(n), address, "n", now)),
                    4 => leases.depart(mac(n), now),
                    _ => leases.hear_gone(ONE, mac(n)),
                }
                let mut here: Vec<_> = leases.known.values().filter(|l| l.is_here()).map(|l| l.address).collect();
                let count = here.len();
                here.sort_unstable();
                here.dedup();
                prop_assert_eq!(here.len(), count);
            }
        }
    }
}
