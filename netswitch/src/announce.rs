//! What a guest's frames tell of its addresses, and the frames that tell others where it is.

use crate::ethernet::Mac;
use std::net::Ipv4Addr;

const ARP: [u8; 2] = [0x08, 0x06];
const RARP: [u8; 2] = [0x80, 0x35];
const IPV4: [u8; 2] = [0x08, 0x00];
/// Ethernet hardware, IPv4 protocol, 6 and 4 bytes of address (RFC 826).
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Shortest Ethernet frame without its checksum (IEEE 802.3, 4.2.3.3).
const SHORTEST: usize = 60;
/// Addresses remembered for a port.
pub const MOST_ADDRESSES: usize = 16;

/// Where a sender's address was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// An ARP message: the sender owns the address.
    Arp(Ipv4Addr),
    /// An IPv4 packet: the sender owns the address unless it is a router.
    Packet(Ipv4Addr),
}

fn plausible(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback())
}

/// The IPv4 address from which a frame says to come.
#[must_use]
pub fn sender_address(frame: &[u8]) -> Option<Said> {
    let kind = frame.get(12..14)?;
    let four = |at: usize| frame.get(at..at + 4)?.first_chunk::<4>().map(|b| Ipv4Addr::from(*b));
    let said = if kind == ARP && frame.get(14..20)? == ETHERNET_IPV4 {
        Said::Arp(four(28)?)
    } else if kind == IPV4 && frame.get(14)? >> 4 == 4 {
        Said::Packet(four(26)?)
    } else {
        return None;
    };
    let (Said::Arp(address) | Said::Packet(address)) = said;
    plausible(address).then_some(said)
}

/// IPv4 addresses that a port's frames have named. ARP is believed; an address from a packet's header stands
/// in only while no ARP was heard, so that a router's traffic is not taken for its own.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    owned: Vec<Ipv4Addr>,
    guessed: Option<Ipv4Addr>,
}

impl Addresses {
    /// Takes note of one.
    pub fn hear(&mut self, said: Said) {
        match said {
            Said::Arp(address) => self.add(address),
            Said::Packet(address) => self.guessed = Some(address),
        }
    }

    /// Adds an address that is known otherwise. Beyond [`MOST_ADDRESSES`] the oldest is forgotten.
    pub fn add(&mut self, address: Ipv4Addr) {
        if self.owned.contains(&address) || !plausible(address) {
            return;
        }
        if self.owned.len() >= MOST_ADDRESSES {
            self.owned.remove(0);
        }
        self.owned.push(address);
    }

    /// All that are believed.
    #[must_use]
    pub fn list(&self) -> Vec<Ipv4Addr> {
        if self.owned.is_empty() { self.guessed.into_iter().collect() } else { self.owned.clone() }
    }
}

fn resolution(mac: Mac, kind: [u8; 2], operation: u8, ip: Ipv4Addr, target: [u8; 6]) -> Vec<u8> {
    let ip = ip.octets();
    let mut frame =
        [&[0xff; 6][..], &mac.0, &kind, &ETHERNET_IPV4, &[0, operation], &mac.0, &ip, &target, &ip].concat();
    frame.resize(SHORTEST, 0);
    frame
}

/// A gratuitous ARP: a request whose sender and target are the address announced (RFC 5227, 2.3).
#[must_use]
pub fn gratuitous_arp(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    resolution(mac, ARP, 1, ip, [0; 6])
}

/// Asks who has an address, without an address of one's own: everyone who owns it answers, and nobody learns a wrong
/// thing from the question (an ARP probe, RFC 5227, 2.1.1).
#[must_use]
pub fn arp_probe(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = resolution(mac, ARP, 1, ip, [0; 6]);
    frame[28..32].fill(0);
    frame
}

/// A reverse ARP request for one's own address (RFC 903): it needs no IP address, and every switch on its
/// way learns from it.
#[must_use]
pub fn reverse_arp(mac: Mac) -> Vec<u8> {
    resolution(mac, RARP, 3, Ipv4Addr::UNSPECIFIED, mac.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

    #[test]
    fn announcements_have_exactly_these_bytes() {
        #[rustfmt::skip]
        let arp = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 1, 2, 3, 0x08, 0x06,
            0, 1, 0x08, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 1, 2, 3, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 15,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(gratuitous_arp(MAC, IP), arp);
        let mut probe = arp;
        probe[28..32].fill(0);
        assert_eq!(arp_probe(MAC, IP), probe);
        #[rustfmt::skip]
        let rarp = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 1, 2, 3, 0x80, 0x35,
            0, 1, 0x08, 0, 6, 4, 0, 3, 0x52, 0x54, 0, 1, 2, 3, 0, 0, 0, 0, 0x52, 0x54, 0, 1, 2, 3, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(reverse_arp(MAC), rarp);
    }

    #[test]
    fn arp_is_believed_before_packets_and_nonsense_never() {
        let mut addresses = Addresses::default();
        let mut packet = [&[2; 12][..], &IPV4, &[0x45; 12], &[8, 8, 8, 8], &[0; 10]].concat();
        addresses.hear(sender_address(&packet).expect("an address"));
        assert_eq!(addresses.list(), [Ipv4Addr::new(8, 8, 8, 8)]);
        addresses.hear(sender_address(&gratuitous_arp(MAC, IP)).expect("an address"));
        assert_eq!(addresses.list(), [IP]);
        packet[26..30].fill(0);
        assert_eq!(sender_address(&packet), None);
        assert_eq!(sender_address(&reverse_arp(MAC)), None);
        for n in 0..40 {
            addresses.add(Ipv4Addr::new(10, 1, 1, n));
        }
        assert_eq!(addresses.list().len(), MOST_ADDRESSES);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_looked_at(frame in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(sender_address(&frame).is_none() || frame.len() >= 30);
        }
    }
}
