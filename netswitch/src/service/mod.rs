//! What the switch itself answers to the VMs of its host: addresses (DHCP), names (DNS), and who the gateway is (ARP).
//!
//! Each switch serves the cards that are attached to it, so that no question goes over a link, and a VM that moves finds
//! the same server, at the same address, wherever it is. [`leases`] knows the VMs of all hosts.
//!
//! A guest cannot stand in for the switch: what it sends as a DHCP server, and ARP messages in which it claims the
//! switch's, the gateway's or another VM's address, go nowhere.

pub mod dhcp;
pub mod dns;
pub mod leases;
pub mod packet;

use crate::ethernet::{HEADER_BYTES, Mac};
use leases::Leases;
use parking_lot::MappedMutexGuard;
use quasar_abi::address_plan::{GATEWAY, MASK, RESOLVER, SWITCH_MAC, gateway_mac};
use std::net::{Ipv4Addr, SocketAddrV4};

const DHCP_SERVER: u16 = 67;
const DNS: u16 = 53;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const UDP: u8 = 17;

/// A card that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub mac: Mac,
    /// Its VM has a way out.
    pub way_out: bool,
}

/// What becomes of a frame of a served card.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes its way.
    Pass,
    /// It was for the switch; this goes back to the card.
    Reply(Vec<u8>),
    /// This goes its way instead.
    Instead(Vec<u8>),
    /// It was for the switch, which has nothing to say.
    Taken,
    /// No guest may say that.
    Refused,
}

/// Whether a frame is worth a closer look. It is asked of every frame of a guest.
fn concerns_us(frame: &[u8]) -> bool {
    let Some((header, payload)) = frame.split_first_chunk::<HEADER_BYTES>() else { return false };
    let [d0, d1, d2, d3, d4, d5, .., t0, t1] = *header;
    if [d0, d1, d2, d3, d4, d5] == SWITCH_MAC || [t0, t1] == ETHERTYPE_ARP {
        return true;
    }
    // A DHCP message, of a client or of a server.
    let Some(&[version, _, _, _, _, _, _, _, _, protocol, ..]) = payload.first_chunk::<20>() else {
        return false;
    };
    let udp = usize::from(version & 0x0f) * 4;
    let ports = payload.get(udp..udp + 4).and_then(|ports| ports.first_chunk::<4>());
    let server = DHCP_SERVER.to_be_bytes();
    [t0, t1] == ETHERTYPE_IPV4
        && protocol == UDP
        && ports.is_some_and(|[s0, s1, p0, p1]| [*s0, *s1] == server || [*p0, *p1] == server)
}

/// Looks at a frame of a served card. The tables are asked for, and locked, when it is worth it.
#[must_use]
pub fn look<'n>(
    frame: &[u8],
    client: Client,
    network: &str,
    leases: impl FnOnce() -> MappedMutexGuard<'n, Leases>,
) -> Verdict {
    if concerns_us(frame) { decide(frame, client, network, &leases()) } else { Verdict::Pass }
}

/// Whether a frame of its VM goes to an uplink that is one VM's. The program behind it takes every address of the network for
/// its own to answer for, those of other VMs too.
#[must_use]
pub fn is_for_way_out(frame: &[u8]) -> bool {
    packet::arp(frame).is_none_or(|arp| arp.target & MASK != GATEWAY & MASK || arp.target == GATEWAY)
}

fn decide(frame: &[u8], client: Client, network: &str, leases: &Leases) -> Verdict {
    if let Some(message) = packet::arp(frame) {
        return resolve(message, client, leases);
    }
    let ours = frame.starts_with(&SWITCH_MAC);
    let Some(datagram) = packet::datagram(frame) else {
        // What reaches the gateway by our address finds it; all else that is for us means nothing to us.
        return if ours { outside(frame, client) } else { Verdict::Pass };
    };
    if datagram.from.port() == DHCP_SERVER {
        return Verdict::Refused;
    }
    if datagram.to.port() == DHCP_SERVER {
        return dhcp(datagram.payload, client, leases);
    }
    if !ours {
        return Verdict::Pass;
    }
    if datagram.to != SocketAddrV4::new(RESOLVER, DNS) {
        return outside(frame, client);
    }
    match dns::answer(datagram.payload, network, leases, client.way_out) {
        dns::Verdict::Answer(answer) => packet::frame(client.mac, datagram.to, datagram.from, &answer)
            .map_or(Verdict::Taken, Verdict::Reply),
        dns::Verdict::Outside => outside(frame, client),
        dns::Verdict::Nonsense => Verdict::Taken,
    }
}

/// What is for the switch's address and not for the switch: the way out's.
fn outside(frame: &[u8], client: Client) -> Verdict {
    if !client.way_out {
        return Verdict::Taken;
    }
    let mut instead = frame.to_vec();
    instead[..6].copy_from_slice(&gateway_mac(client.mac.0));
    Verdict::Instead(instead)
}

/// Whether a served VM may say that an address is its own.
#[must_use]
pub fn may_claim(address: Ipv4Addr, mac: Mac, leases: &Leases) -> bool {
    let others = leases.owner(address).is_some_and(|(owner, _)| owner != mac);
    address != GATEWAY && address != RESOLVER && !others
}

fn resolve(message: packet::Arp, client: Client, leases: &Leases) -> Verdict {
    if !may_claim(message.sender, client.mac, leases) {
        return Verdict::Refused;
    }
    let at = match message.target {
        RESOLVER => SWITCH_MAC,
        GATEWAY if client.way_out => gateway_mac(client.mac.0),
        _ => return Verdict::Pass,
    };
    if !message.request {
        return Verdict::Pass;
    }
    Verdict::Reply(packet::arp_reply(client.mac, message.sender, message.target, at))
}

fn dhcp(message: &[u8], client: Client, leases: &Leases) -> Verdict {
    let Some(lease) = leases.of(client.mac).filter(|lease| lease.is_here()) else { return Verdict::Taken };
    let offer =
        dhcp::Offer { mac: client.mac, address: lease.address, name: &lease.name, way_out: client.way_out };
    let Some(answer) = dhcp::answer(message, offer) else { return Verdict::Taken };
    packet::frame(answer.mac, dhcp::SERVER, answer.to, &answer.message).map_or(Verdict::Taken, Verdict::Reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::{arp_probe, gratuitous_arp};
    use proptest::prelude::*;
    use std::time::Instant;

    const MAC: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
    const OTHER: Mac = Mac([0x52, 0x54, 0, 1, 2, 4]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 77);
    const OTHERS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 78);
    const CLIENT: Client = Client { mac: MAC, way_out: true };

    fn leases() -> Leases {
        let mut leases = Leases::default();
        for (mac, name, address) in [(MAC, "a", ADDRESS), (OTHER, "b", OTHERS)] {
            leases.attach(mac, name, Some(address), Instant::now()).expect("an address");
        }
        leases
    }

    fn looked(frame: &[u8], client: Client) -> Verdict {
        if concerns_us(frame) { decide(frame, client, "lan", &leases()) } else { Verdict::Pass }
    }

    fn udp(to_mac: [u8; 6], from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
        let (from, to) = (SocketAddrV4::new(from.0, from.1), SocketAddrV4::new(to.0, to.1));
        let mut frame = packet::frame(Mac(to_mac), from, to, payload).expect("a frame");
        frame[6..12].copy_from_slice(&MAC.0);
        frame
    }

    #[test]
    fn the_switch_and_the_way_out_are_found_and_others_find_one_another() {
        let asks = |target| {
            let mut frame = gratuitous_arp(MAC, ADDRESS);
            frame[38..42].copy_from_slice(&Ipv4Addr::octets(&target));
            frame
        };
        for (target, at) in [(RESOLVER, SWITCH_MAC), (GATEWAY, gateway_mac(MAC.0))] {
            let Verdict::Reply(reply) = looked(&asks(target), CLIENT) else {
                panic!("no answer for {target}")
            };
            assert_eq!((&reply[..6], &reply[6..12], &reply[22..28]), (&MAC.0[..], &at[..], &at[..]));
            assert_eq!((&reply[28..32], &reply[38..42]), (&target.octets()[..], &ADDRESS.octets()[..]));
        }
        assert_eq!(looked(&asks(OTHERS), CLIENT), Verdict::Pass);
        assert_eq!(looked(&asks(GATEWAY), Client { way_out: false, ..CLIENT }), Verdict::Pass);
        assert_eq!(looked(&arp_probe(MAC, ADDRESS), CLIENT), Verdict::Pass);
    }

    #[test]
    fn the_way_out_is_asked_for_itself_and_for_what_is_not_of_the_network() {
        let asks = |target| {
            let mut frame = gratuitous_arp(MAC, ADDRESS);
            frame[38..42].copy_from_slice(&Ipv4Addr::octets(&target));
            is_for_way_out(&frame)
        };
        assert!(asks(GATEWAY) && asks(Ipv4Addr::new(192, 168, 1, 1)));
        assert!(!asks(OTHERS) && !asks(ADDRESS));
        assert!(is_for_way_out(&[0; 60]) && is_for_way_out(&[]));
    }

    #[test]
    fn a_guest_stands_in_for_nobody() {
        for address in [GATEWAY, RESOLVER, OTHERS] {
            assert_eq!(looked(&gratuitous_arp(MAC, address), CLIENT), Verdict::Refused, "{address}");
        }
        // Its own and what nobody was given.
        for address in [ADDRESS, Ipv4Addr::new(10, 0, 2, 200), Ipv4Addr::new(10, 9, 0, 1)] {
            assert_eq!(looked(&gratuitous_arp(MAC, address), CLIENT), Verdict::Pass, "{address}");
        }
        let offer = udp(OTHER.0, (ADDRESS, 67), (OTHERS, 68), &[2; 300]);
        assert_eq!(looked(&offer, CLIENT), Verdict::Refused);
    }

    #[test]
    fn names_outside_are_asked_for_at_the_way_out() {
        let question =
            [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7][..], b"example", &[3], b"org", &[0, 0, 1, 0, 1]]
                .concat();
        let frame = udp(SWITCH_MAC, (ADDRESS, 4000), (RESOLVER, 53), &question);
        let Verdict::Instead(instead) = looked(&frame, CLIENT) else { panic!("not forwarded") };
        assert_eq!((&instead[..6], &instead[6..]), (&gateway_mac(MAC.0)[..], &frame[6..]));
        let alone = Client { way_out: false, ..CLIENT };
        let Verdict::Reply(reply) = looked(&frame, alone) else { panic!("not refused") };
        let answer = packet::datagram(&reply).expect("a datagram");
        assert_eq!(
            (answer.from, answer.to),
            (SocketAddrV4::new(RESOLVER, 53), SocketAddrV4::new(ADDRESS, 4000))
        );
        // Refused.
        assert_eq!(answer.payload[3] & 0x0f, 5);
    }

    #[test]
    fn other_traffic_is_not_looked_at() {
        let frame = udp(OTHER.0, (ADDRESS, 4000), (OTHERS, 53), &[1; 40]);
        assert_eq!(looked(&frame, CLIENT), Verdict::Pass);
        for len in 0..60 {
            assert_eq!(looked(&vec![0; len], CLIENT), Verdict::Pass);
        }
    }

    proptest! {
        #[test]
        fn any_frame_can_be_looked_at(
            bytes in prop::collection::vec(any::<u8>(), 0..600), ours: bool, kind in 0usize..3, at in 0usize..60, byte: u8
        ) {
            let mut frame = udp(
                if ours { SWITCH_MAC } else { [0xff; 6] },
                (ADDRESS, 68),
                [(RESOLVER, 67), (RESOLVER, 53), (OTHERS, 9)][kind],
                &bytes,
            );
            frame[at.min(41)] = byte;
            drop(looked(&frame, CLIENT));
            frame.truncate(at);
            drop(looked(&frame, CLIENT));
            drop(looked(&bytes, CLIENT));
        }
    }
}
