//! Whose address is whose, for an uplink that does not resolve addresses.
//!
//! passt sends to the one neighbour that spoke last, and to the broadcast address while none has spoken; a system
//! drops TCP from a broadcast frame. So a guest with a static address that has said nothing yet would not be reached,
//! and of two guests only the one that spoke last. A packet for an address that nobody has named waits, as a router
//! would let it, while its owner is asked for.

use crate::announce::{Said, arp_probe, sender_address};
use crate::ethernet::Mac;
use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const IPV4: [u8; 2] = [0x08, 0x00];
/// Addresses remembered; a guest that invents more only spoils its own network's memory.
const MOST: usize = 4096;
/// Packets that wait for the owners of their addresses (RFC 1122, 2.3.2.2, asks for one an address).
const MOST_WAITING: usize = 64;
/// How long they wait.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the same question is put.
const PAUSE: Duration = Duration::from_millis(500);

/// What is known of the network's VMs.
#[derive(Debug, Default)]
pub struct Neighbours {
    present: BTreeSet<Mac>,
    addresses: HashMap<Ipv4Addr, Mac>,
    waiting: Vec<(Ipv4Addr, Instant, Vec<u8>)>,
    asked: HashMap<Ipv4Addr, Instant>,
}

/// What becomes of a frame that came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Directed {
    /// It goes on.
    Known,
    /// It waits, and its addressee's owner is to be asked for by this frame, if it is not being asked for already.
    Waits(Option<Vec<u8>>),
}

impl Neighbours {
    /// A VM has joined.
    pub fn introduce(&mut self, mac: Mac) {
        self.present.insert(mac);
    }

    /// A VM has left. Its IP address still belongs to it: it may have moved to another host.
    pub fn forget(&mut self, mac: Mac) {
        self.present.remove(&mac);
    }

    /// Listens to a frame that goes out.
    pub fn hear(&mut self, frame: &[u8]) {
        let Some(&[.., _, _, _, _, _, _, s0, s1, s2, s3, s4, s5]) = frame.first_chunk::<12>() else { return };
        if let Some(Said::Arp(address) | Said::Packet(address)) = sender_address(frame)
            && (self.addresses.len() < MOST || self.addresses.contains_key(&address))
        {
            self.addresses.insert(address, Mac([s0, s1, s2, s3, s4, s5]));
        }
    }

    /// Corrects the destination of a frame that came in: to the owner of the IPv4 address, or, while nobody has
    /// named it, to the network's only VM. Where there are several it waits.
    pub fn direct(&mut self, frame: &mut [u8], now: Instant) -> Directed {
        let Some((header, packet)) = frame.split_at_mut_checked(14) else { return Directed::Known };
        let Some(address) = packet.get(16..20).and_then(|b| b.first_chunk::<4>()) else {
            return Directed::Known;
        };
        let to = Ipv4Addr::from(*address);
        if header[12..14] != IPV4 || to.is_multicast() || to.is_broadcast() {
            return Directed::Known;
        }
        let only = self.present.first().filter(|_| self.present.len() == 1);
        let unnamed = header[0] & 1 != 0;
        if let Some(mac) = self.addresses.get(&to).or(only.filter(|_| unnamed)) {
            header[..6].copy_from_slice(&mac.0);
            return Directed::Known;
        }
        self.waiting.retain(|(_, since, _)| now.duration_since(*since) < PATIENCE);
        self.asked.retain(|_, at| now.duration_since(*at) < PAUSE);
        let full = self.addresses.len() >= MOST || self.waiting.len() >= MOST_WAITING;
        let Some(from) = header[6..].first_chunk().filter(|_| only.is_none() && !full) else {
            return Directed::Known;
        };
        let from = Mac(*from);
        self.waiting.push((to, now, frame.to_vec()));
        let again = self.asked.contains_key(&to);
        self.asked.entry(to).or_insert(now);
        Directed::Waits((!again).then(|| arp_probe(from, to)))
    }

    /// Frames whose addressees have been heard of since, in the order in which they came.
    pub fn answered(&mut self) -> Vec<Vec<u8>> {
        let addresses = &self.addresses;
        let known = self.waiting.extract_if(.., |(to, ..)| addresses.contains_key(to));
        let direct = |(to, _, mut frame): (Ipv4Addr, Instant, Vec<u8>)| {
            frame[..6].copy_from_slice(&addresses[&to].0);
            frame
        };
        known.map(direct).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn packet(to: [u8; 6], from: Mac, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&from.0);
        frame[12..14].copy_from_slice(&IPV4);
        frame[14] = 0x45;
        frame[26..30].copy_from_slice(&source);
        frame[30..34].copy_from_slice(&destination);
        frame
    }

    const GATEWAY: Mac = Mac([8; 6]);

    fn inbound(to: [u8; 6], address: [u8; 4]) -> Vec<u8> {
        packet(to, GATEWAY, [10, 0, 2, 2], address)
    }

    fn directed(neighbours: &mut Neighbours, to: [u8; 6], address: [u8; 4]) -> [u8; 6] {
        let mut frame = inbound(to, address);
        assert_eq!(neighbours.direct(&mut frame, Instant::now()), Directed::Known);
        *frame.first_chunk().expect("a header")
    }

    #[test]
    fn a_silent_guest_that_is_alone_is_reached() {
        let mut neighbours = Neighbours::default();
        neighbours.introduce(GUEST);
        assert_eq!(directed(&mut neighbours, [0xff; 6], [10, 0, 2, 15]), GUEST.0);
        assert_eq!(directed(&mut neighbours, [0xff; 6], [255; 4]), [0xff; 6]);
        assert_eq!(directed(&mut neighbours, [1, 0, 0x5e, 0, 0, 1], [224, 0, 0, 1]), [1, 0, 0x5e, 0, 0, 1]);
    }

    #[test]
    fn frames_go_to_the_owner_of_the_address_whoever_spoke_last() {
        let mut neighbours = Neighbours::default();
        neighbours.introduce(GUEST);
        neighbours.introduce(OTHER);
        neighbours.hear(&packet([0xff; 6], GUEST, [10, 0, 2, 15], [10, 0, 2, 2]));
        neighbours.hear(&packet([0xff; 6], OTHER, [10, 0, 2, 16], [10, 0, 2, 2]));
        assert_eq!(directed(&mut neighbours, OTHER.0, [10, 0, 2, 15]), GUEST.0);
        assert_eq!(directed(&mut neighbours, OTHER.0, [10, 0, 2, 16]), OTHER.0);
        neighbours.forget(GUEST);
        assert_eq!(directed(&mut neighbours, OTHER.0, [10, 0, 2, 15]), GUEST.0);
    }

    #[test]
    fn one_of_several_silent_guests_is_asked_for_and_reached() {
        let mut neighbours = Neighbours::default();
        neighbours.introduce(GUEST);
        neighbours.introduce(OTHER);
        neighbours.hear(&packet([0xff; 6], OTHER, [10, 0, 2, 16], [10, 0, 2, 2]));
        let (now, address) = (Instant::now(), [10, 0, 2, 15]);
        let mut first = inbound(OTHER.0, address);
        let asked = Directed::Waits(Some(arp_probe(GATEWAY, Ipv4Addr::from(address))));
        assert_eq!(neighbours.direct(&mut first, now), asked);
        let mut second = inbound([0xff; 6], address);
        assert_eq!(neighbours.direct(&mut second, now), Directed::Waits(None));
        assert_eq!(neighbours.answered(), Vec::<Vec<u8>>::new());
        neighbours.hear(&packet(GATEWAY.0, GUEST, address, [10, 0, 2, 2]));
        assert_eq!(neighbours.answered(), [inbound(GUEST.0, address), inbound(GUEST.0, address)]);
        assert_eq!(neighbours.answered(), Vec::<Vec<u8>>::new());
        assert_eq!(directed(&mut neighbours, OTHER.0, address), GUEST.0);
    }

    #[test]
    fn who_does_not_answer_is_asked_again_and_costs_little() {
        let mut neighbours = Neighbours::default();
        let (now, address) = (Instant::now(), [10, 0, 2, 15]);
        for n in 0..MOST_WAITING {
            let waits = neighbours.direct(&mut inbound([0xff; 6], address), now);
            assert_eq!(matches!(waits, Directed::Waits(Some(_))), n == 0);
        }
        // As passt addressed it.
        assert_eq!(directed(&mut neighbours, OTHER.0, address), OTHER.0);
        let later = now + PATIENCE;
        let waits = neighbours.direct(&mut inbound([0xff; 6], address), later);
        assert!(matches!(waits, Directed::Waits(Some(_))), "{waits:?}");
        assert_eq!(neighbours.waiting.len(), 1);
    }

    #[test]
    fn short_frames_pass_as_they_are() {
        for length in 0..34 {
            let mut frame = vec![7; length];
            Neighbours::default().hear(&frame);
            assert_eq!(Neighbours::default().direct(&mut frame, Instant::now()), Directed::Known);
            assert_eq!(frame, vec![7; length]);
        }
    }
}
