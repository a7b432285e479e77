//! Datagrams in Ethernet frames: taken out, checked, and put in.

use crate::ethernet::Mac;
use quasar_abi::address_plan::SWITCH_MAC;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};
use std::net::{Ipv4Addr, SocketAddrV4};

/// A UDP datagram.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Where it comes from.
    pub from: SocketAddrV4,
    /// Where it goes.
    pub to: SocketAddrV4,
    /// What it carries.
    pub payload: &'a [u8],
}

/// The IPv4 UDP datagram in a frame, if there is a whole one. Fragments are none.
#[must_use]
pub fn datagram(frame: &[u8]) -> Option<Datagram<'_>> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    if packet.version() != 4
        || packet.next_header() != IpProtocol::Udp
        || packet.more_frags()
        || packet.frag_offset() != 0
    {
        return None;
    }
    let udp = UdpPacket::new_checked(packet.payload()).ok()?;
    Some(Datagram {
        from: SocketAddrV4::new(packet.src_addr(), udp.src_port()),
        to: SocketAddrV4::new(packet.dst_addr(), udp.dst_port()),
        payload: udp.payload(),
    })
}

/// A datagram of the switch in a frame; nothing when it is longer than a datagram can be.
#[must_use]
pub fn frame(to_mac: Mac, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
    let udp = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let ip = Ipv4Repr {
        src_addr: *from.ip(),
        dst_addr: *to.ip(),
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(SWITCH_MAC),
        dst_addr: EthernetAddress(to_mac.0),
        ethertype: EthernetProtocol::Ipv4,
    };
    let headers = EthernetFrame::<&[u8]>::header_len() + ip.buffer_len();
    u16::try_from(ip.buffer_len() + ip.payload_len).ok()?;
    let mut out = vec![0; headers + ip.payload_len];
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut out));
    let mut packet = Ipv4Packet::new_unchecked(&mut out[EthernetFrame::<&[u8]>::header_len()..]);
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &(*from.ip()).into(),
        &(*to.ip()).into(),
        payload.len(),
        |space| space.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    Some(out)
}

/// What an ARP message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// It asks.
    pub request: bool,
    /// Whose address the sender claims; unspecified when it claims none.
    pub sender: Ipv4Addr,
    /// Whose address is asked for.
    pub target: Ipv4Addr,
}

/// The ARP message in a frame.
#[must_use]
pub fn arp(frame: &[u8]) -> Option<Arp> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(frame.payload()).ok()?;
    let ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. } =
        ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    Some(Arp {
        request: operation == ArpOperation::Request,
        sender: source_protocol_addr,
        target: target_protocol_addr,
    })
}

/// The answer that `address` is at `at`.
#[must_use]
pub fn arp_reply(to_mac: Mac, asked_by: Ipv4Addr, address: Ipv4Addr, at: [u8; 6]) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(at),
        source_protocol_addr: address,
        target_hardware_addr: EthernetAddress(to_mac.0),
        target_protocol_addr: asked_by,
    };
    let header = EthernetFrame::<&[u8]>::header_len();
    let mut out = vec![0; (header + arp.buffer_len()).max(60)];
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(at),
        dst_addr: EthernetAddress(to_mac.0),
        ethertype: EthernetProtocol::Arp,
    };
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut out));
    arp.emit(&mut ArpPacket::new_unchecked(&mut out[header..]));
    out
}
