//! DHCP (RFC 2131): what a VM's client is answered. Nothing is kept: a VM's address is known before it asks, so that the
//! switch may be replaced, and the VM may move to another host's, between any two messages.

use crate::ethernet::Mac;
use quasar_abi::address_plan::{DOMAIN, GATEWAY, MASK, RESOLVER};
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress,
};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Seconds for which an address is given.
pub const LEASE_S: u32 = 3600;
/// Seconds after which a client asks again (T1). An address that another VM turned out to have is taken back then.
pub const RENEW_S: u32 = 120;
/// Seconds after which it asks everyone (T2).
pub const REBIND_S: u32 = 3000;

const OPTION_HOSTNAME: u8 = 12;
const OPTION_DOMAIN: u8 = 15;
const OPTION_T1: u8 = 58;
const OPTION_T2: u8 = 59;

/// What a VM is to be told.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Its card.
    pub mac: Mac,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its name.
    pub name: &'a str,
    /// It has a way out.
    pub way_out: bool,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The card that it is for: the client's, or all.
    pub mac: Mac,
    /// Where it goes.
    pub to: SocketAddrV4,
    /// The message.
    pub message: Vec<u8>,
}

const ALL: Mac = Mac([0xff; 6]);

/// Whether the client is to have its address (RFC 2131, 4.3.2); nothing when it speaks with another server.
fn judge(request: &DhcpRepr<'_>, address: Ipv4Addr) -> Option<bool> {
    match (request.server_identifier, request.requested_ip) {
        (Some(server), _) if server != RESOLVER => None,
        // Selecting, and after a restart.
        (_, Some(wanted)) => Some(wanted == address),
        // Renewing and rebinding.
        (_, None) => Some(request.client_ip == address),
    }
}

fn reply<'a>(request: &DhcpRepr<'_>, kind: DhcpMessageType) -> DhcpRepr<'a> {
    DhcpRepr {
        message_type: kind,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: request.client_hardware_address,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: request.client_identifier,
        server_identifier: Some(RESOLVER),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

fn encode(message: &DhcpRepr<'_>) -> Option<Vec<u8>> {
    // Clients of old take no message shorter than BOOTP's (RFC 1542, 2.1).
    let mut out = vec![0; message.buffer_len().max(300)];
    message.emit(&mut DhcpPacket::new_unchecked(&mut out[..])).ok()?;
    Some(out)
}

/// Answers a client's message; nothing when none is due.
#[must_use]
pub fn answer(message: &[u8], offer: Offer<'_>) -> Option<Answer> {
    let packet = DhcpPacket::new_checked(message).ok()?;
    let request = DhcpRepr::parse(&packet).ok()?;
    // A relay would be told another network's address, and a card is told its own alone.
    if request.client_hardware_address != EthernetAddress(offer.mac.0)
        || !request.relay_agent_ip.is_unspecified()
    {
        return None;
    }
    let kind = match request.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request if judge(&request, offer.address)? => DhcpMessageType::Ack,
        DhcpMessageType::Request => DhcpMessageType::Nak,
        DhcpMessageType::Inform => DhcpMessageType::Ack,
        _ => return None,
    };
    let everyone = SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_CLIENT_PORT);
    let mut answer = reply(&request, kind);
    if kind == DhcpMessageType::Nak {
        // It may have no address that it could be reached by.
        return Some(Answer { mac: ALL, to: everyone, message: encode(&answer)? });
    }
    let (t1, t2) = (RENEW_S.to_be_bytes(), REBIND_S.to_be_bytes());
    let names = [
        DhcpOption { kind: OPTION_HOSTNAME, data: offer.name.as_bytes() },
        DhcpOption { kind: OPTION_DOMAIN, data: DOMAIN.as_bytes() },
    ];
    let times = [DhcpOption { kind: OPTION_T1, data: &t1 }, DhcpOption { kind: OPTION_T2, data: &t2 }];
    let all = [&names[..], &times[..]].concat();
    answer.client_ip = request.client_ip;
    answer.subnet_mask = Some(MASK);
    answer.router = offer.way_out.then_some(GATEWAY);
    answer.dns_servers = Some([RESOLVER].into_iter().collect());
    if request.message_type == DhcpMessageType::Inform {
        answer.additional_options = &names;
    } else {
        answer.your_ip = offer.address;
        answer.lease_duration = Some(LEASE_S);
        answer.additional_options = &all;
    }
    let (mac, to) = if !request.client_ip.is_unspecified() {
        (offer.mac, SocketAddrV4::new(request.client_ip, DHCP_CLIENT_PORT))
    } else if request.broadcast {
        (ALL, everyone)
    } else {
        (offer.mac, SocketAddrV4::new(offer.address, DHCP_CLIENT_PORT))
    };
    Some(Answer { mac, to, message: encode(&answer)? })
}

/// Where answers come from.
pub const SERVER: SocketAddrV4 = SocketAddrV4::new(RESOLVER, DHCP_SERVER_PORT);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 77);
    const OFFER: Offer<'static> = Offer { mac: MAC, address: ADDRESS, name: "web", way_out: true };

    fn ask(kind: DhcpMessageType, change: impl FnOnce(&mut DhcpRepr<'_>)) -> Vec<u8> {
        let nothing = DhcpRepr {
            transaction_id: 7,
            client_hardware_address: EthernetAddress(MAC.0),
            ..reply(&DhcpRepr::parse(&DhcpPacket::new_unchecked(&bare()[..])).expect("a message"), kind)
        };
        let mut message = DhcpRepr { server_identifier: None, ..nothing };
        change(&mut message);
        encode(&message).expect("a message")
    }

    /// The shortest discovery.
    fn bare() -> Vec<u8> {
        let mut message = vec![0; 240];
        message[..4].copy_from_slice(&[1, 1, 6, 0]);
        message[236..].copy_from_slice(&[99, 130, 83, 99]);
        message.extend([53, 1, 1, 255]);
        message
    }

    type Options = Vec<(u8, Vec<u8>)>;

    fn answered(message: &[u8], offer: Offer<'_>) -> Option<(Answer, Options)> {
        let answer = answer(message, offer)?;
        let packet = DhcpPacket::new_checked(&answer.message[..]).expect("a message");
        let options = packet.options().map(|option| (option.kind, option.data.to_vec())).collect();
        Some((answer, options))
    }

    fn option(options: &[(u8, Vec<u8>)], kind: u8) -> Option<&[u8]> {
        options.iter().find(|(of, _)| *of == kind).map(|(_, data)| &data[..])
    }

    #[test]
    fn a_discovery_is_offered_the_vms_own_address_with_all_it_needs() {
        let (answer, options) = answered(&ask(DhcpMessageType::Discover, |_| {}), OFFER).expect("an offer");
        assert_eq!((answer.mac, answer.to), (MAC, SocketAddrV4::new(ADDRESS, 68)));
        assert_eq!(answer.message[16..20], ADDRESS.octets());
        for (kind, data) in [
            (53, &[2][..]),
            (54, &[10, 0, 2, 3]),
            (1, &[255, 255, 255, 0]),
            (3, &[10, 0, 2, 2]),
            (6, &[10, 0, 2, 3]),
            (12, b"web"),
            (15, b"internal"),
            (51, &3600u32.to_be_bytes()),
            (58, &120u32.to_be_bytes()),
            (59, &3000u32.to_be_bytes()),
        ] {
            assert_eq!(option(&options, kind), Some(data), "option {kind}");
        }
        let broadcast = ask(DhcpMessageType::Discover, |m| m.broadcast = true);
        let (answer, _) = answered(&broadcast, OFFER).expect("an offer");
        assert_eq!((answer.mac, *answer.to.ip()), (ALL, Ipv4Addr::BROADCAST));
        let alone = Offer { way_out: false, ..OFFER };
        let (_, options) = answered(&broadcast, alone).expect("an offer");
        assert_eq!((option(&options, 3), option(&options, 6)), (None, Some(&[10, 0, 2, 3][..])));
    }

    #[test]
    fn requests_are_granted_refused_or_left_to_another_server() {
        let kind = |change: fn(&mut DhcpRepr<'_>)| {
            let answer = answered(&ask(DhcpMessageType::Request, change), OFFER);
            answer.map(|(answer, options)| {
                (option(&options, 53).expect("a kind")[0], answer.mac, *answer.to.ip())
            })
        };
        // Selecting; after a restart; renewing.
        let selecting = kind(|m| (m.server_identifier, m.requested_ip) = (Some(RESOLVER), Some(ADDRESS)));
        assert_eq!(selecting, Some((5, MAC, ADDRESS)));
        assert_eq!(kind(|m| m.requested_ip = Some(ADDRESS)), Some((5, MAC, ADDRESS)));
        assert_eq!(kind(|m| m.client_ip = ADDRESS), Some((5, MAC, ADDRESS)));
        // An address of another time or network.
        assert_eq!(
            kind(|m| m.requested_ip = Some(Ipv4Addr::new(10, 0, 2, 15))),
            Some((6, ALL, Ipv4Addr::BROADCAST))
        );
        assert_eq!(
            kind(|m| m.client_ip = Ipv4Addr::new(192, 168, 1, 9)),
            Some((6, ALL, Ipv4Addr::BROADCAST))
        );
        assert_eq!(kind(|_| {}), Some((6, ALL, Ipv4Addr::BROADCAST)));
        // Another server was chosen.
        assert_eq!(kind(|m| (m.server_identifier, m.requested_ip) = (Some(GATEWAY), Some(ADDRESS))), None);
    }

    #[test]
    fn who_asks_for_another_card_or_through_a_relay_or_says_farewell_is_not_answered() {
        let foreign = |m: &mut DhcpRepr<'_>| m.client_hardware_address = EthernetAddress([2; 6]);
        assert_eq!(answer(&ask(DhcpMessageType::Discover, foreign), OFFER), None);
        let relayed = ask(DhcpMessageType::Discover, |m| m.relay_agent_ip = Ipv4Addr::new(10, 0, 2, 9));
        assert_eq!(answer(&relayed, OFFER), None);
        for kind in [DhcpMessageType::Release, DhcpMessageType::Decline, DhcpMessageType::Offer] {
            assert_eq!(answer(&ask(kind, |_| {}), OFFER), None, "{kind:?}");
        }
        let (answer, options) =
            answered(&ask(DhcpMessageType::Inform, |m| m.client_ip = ADDRESS), OFFER).expect("an answer");
        assert_eq!((&answer.message[16..20], option(&options, 51)), (&[0; 4][..], None));
        assert_eq!(option(&options, 6), Some(&RESOLVER.octets()[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_well_or_not_at_all(
            bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..244, byte: u8, cut in 0usize..310
        ) {
            drop(answer(&bytes, OFFER));
            let mut message = ask(DhcpMessageType::Request, |m| m.requested_ip = Some(ADDRESS));
            message[at] = byte;
            message[240..].iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
            message.truncate(cut);
            if let Some(answer) = answer(&message, OFFER) {
                prop_assert!(answer.message.len() >= 300 && answer.message.len() < 576);
            }
        }
    }
}
