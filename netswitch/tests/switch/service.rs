//! Addresses and names: what VMs are answered, on one host and on several.

use crate::hosts::{BROADCAST, Card, Host, SURELY, mesh, until};
use parking_lot::Mutex;
use quasar_abi::address_plan::{RESOLVER, SWITCH_MAC, gateway_mac};
use quasar_abi::control::netswitch::{NetswitchCommand, NetworkEvent, Uplink};
use quasar_netswitch::ethernet::Mac;
use quasar_netswitch::service::packet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

const UNSPECIFIED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);

/// Sends a datagram as the guest's network stack would.
fn say(card: &Card, to_mac: [u8; 6], from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
    let mut frame = packet::frame(Mac(to_mac), from, to, payload).expect("a frame");
    frame[6..12].copy_from_slice(&card.mac);
    card.send_frame(&frame);
}

/// The payload of the next datagram to this port.
fn hear(card: &Card, port: u16) -> Vec<u8> {
    loop {
        let frame = card.frame_within(SURELY).expect("an answer");
        if let Some(datagram) = packet::datagram(&frame).filter(|datagram| datagram.to.port() == port) {
            assert_eq!(*datagram.from.ip(), RESOLVER);
            return datagram.payload.to_vec();
        }
    }
}

fn dhcp(card: &Card, kind: u8, options: &[u8]) -> (u8, Ipv4Addr) {
    let mut message = vec![0; 236];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&card.mac);
    message.extend([99, 130, 83, 99, 53, 1, kind]);
    message.extend(options);
    message.push(255);
    say(card, BROADCAST, UNSPECIFIED, SocketAddrV4::new(Ipv4Addr::BROADCAST, 67), &message);
    let answer = hear(card, 68);
    assert_eq!(answer[240..242], [53, 1]);
    (answer[242], Ipv4Addr::from(*answer[16..].first_chunk::<4>().expect("an address")))
}

/// The address that a guest is given: it discovers, and requests what it was offered.
fn lease(card: &Card) -> Ipv4Addr {
    let (kind, offered) = dhcp(card, 1, &[]);
    assert_eq!(kind, 2);
    let [a, b, c, d] = offered.octets();
    assert_eq!(dhcp(card, 3, &[50, 4, a, b, c, d, 54, 4, 10, 0, 2, 3]), (5, offered));
    offered
}

/// The addresses of a name, as a guest is answered; nothing when there is no such name.
fn resolve(card: &Card, address: Ipv4Addr, name: &str) -> Option<Vec<Ipv4Addr>> {
    let labels =
        name.split('.').flat_map(|l| [&[u8::try_from(l.len()).expect("short")], l.as_bytes()].concat());
    let mut question = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(labels);
    question.extend([0, 0, 1, 0, 1]);
    say(card, SWITCH_MAC, SocketAddrV4::new(address, 5000), SocketAddrV4::new(RESOLVER, 53), &question);
    let answer = hear(card, 5000);
    let found = |n: u16| {
        let at = question.len() + 16 * usize::from(n) + 12;
        Ipv4Addr::from(*answer[at..].first_chunk::<4>().expect("an address"))
    };
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    (answer[3] & 0x0f == 0).then(|| (0..count).map(found).collect())
}

/// What a host's switch tells of its VMs' addresses.
fn told(host: &Host) -> Arc<Mutex<Vec<(String, Ipv4Addr)>>> {
    let heard = Arc::<Mutex<Vec<_>>>::default();
    let list = Arc::clone(&heard);
    host.switch.listen_to(Box::new(move |event| {
        if let NetworkEvent::Leased { port, address } = event {
            list.lock().push((port, Ipv4Addr::from(address)));
        }
    }));
    heard
}

#[test]
fn vms_of_one_host_have_addresses_and_names_that_outlive_the_switch() {
    let host = Host::default();
    let heard = told(&host);
    let (a, b) = (Card::served(&host, "pair", 1, "a", None), Card::served(&host, "pair", 2, "b", None));
    let (of_a, of_b) = (lease(&a), lease(&b));
    assert_ne!(of_a, of_b);
    assert_eq!(*heard.lock(), [("pair/1".into(), of_a), ("pair/2".into(), of_b)]);
    assert_eq!(resolve(&a, of_a, "b"), Some(vec![of_b]));
    assert_eq!(resolve(&b, of_b, "a.internal"), Some(vec![of_a]));
    assert_eq!(resolve(&a, of_a, "c"), None);
    host.switch.close();

    // Another one in its place, told in another order what its keeper knows.
    let host = Host::default();
    b.serve_at(&host, "b", Some(of_b.octets()));
    a.serve_at(&host, "a", Some(of_a.octets()));
    let [x, y, z, w] = of_a.octets();
    assert_eq!(dhcp(&a, 3, &[50, 4, x, y, z, w]), (5, of_a), "a guest that renews notices nothing");
    assert_eq!(dhcp(&b, 3, &[50, 4, x, y, z, w]).0, 6, "and none is granted another's");
    assert_eq!(resolve(&a, of_a, "b"), Some(vec![of_b]));
    host.say(NetswitchCommand::DetachPort { port: b.name.clone() });
    assert_eq!(resolve(&a, of_a, "b"), None);
}

#[test]
fn names_are_known_at_other_hosts_and_move_with_their_vms() {
    let (a, b) = (Host::default(), Host::default());
    let (near, web) = (Card::served(&a, "span", 1, "near", None), Card::served(&a, "span", 9, "web", None));
    let far = Card::served(&b, "span", 2, "far", None);
    mesh(&[&a, &b], "span");
    let (of_near, of_web, of_far) = (lease(&near), lease(&web), lease(&far));
    until("far knows web", || resolve(&far, of_far, "web") == Some(vec![of_web]));
    until("near knows far", || resolve(&near, of_near, "far") == Some(vec![of_far]));

    b.say(NetswitchCommand::HoldPort { port: web.name.clone() });
    let there = Card::new("span", 9);
    there.serve_at(&b, "web", Some(of_web.octets()));
    a.say(NetswitchCommand::MovePort { port: web.name.clone() });
    b.say(NetswitchCommand::ReleasePort { port: there.name.clone(), addresses: vec![] });
    assert_eq!(lease(&there), of_web);
    for _ in 0..20 {
        assert_eq!(resolve(&near, of_near, "web"), Some(vec![of_web]));
        assert_eq!(resolve(&far, of_far, "web"), Some(vec![of_web]));
        std::thread::sleep(Duration::from_millis(20));
    }
    b.say(NetswitchCommand::EndPort { port: there.name.clone() });
    until("near hears of the end", || resolve(&near, of_near, "web").is_none());
    assert_eq!(resolve(&near, of_near, "far"), Some(vec![of_far]));
    b.say(NetswitchCommand::DetachPort { port: far.name.clone() });
    until("near hears that far has gone", || resolve(&near, of_near, "far").is_none());
}

#[test]
fn two_hosts_that_gave_one_address_to_two_vms_agree_as_soon_as_they_are_linked() {
    let (a, b) = (Host::default(), Host::default());
    let (heard_a, heard_b) = (told(&a), told(&b));
    let twice = [10, 0, 2, 77];
    let low = Card::served(&a, "agree", 1, "low", Some(twice));
    let high = Card::served(&b, "agree", 2, "high", Some(twice));
    assert_eq!((lease(&low), lease(&high)), (twice.into(), twice.into()));
    mesh(&[&a, &b], "agree");
    until("the higher card's is told", || heard_b.lock().len() == 2);
    let another = heard_b.lock()[1].1;
    assert_ne!(another, Ipv4Addr::from(twice));
    // Its guest learns of it as it renews.
    let [x, y, z, w] = twice;
    assert_eq!(dhcp(&high, 3, &[50, 4, x, y, z, w]).0, 6);
    assert_eq!((lease(&low), lease(&high)), (twice.into(), another));
    until("low knows high", || resolve(&low, twice.into(), "high") == Some(vec![another]));
    assert_eq!(resolve(&high, another, "low"), Some(vec![twice.into()]));
    assert_eq!(heard_a.lock().len(), 1);
    // A third one that comes now is given neither.
    let third = Card::served(&a, "agree", 3, "third", Some(another.octets()));
    assert!(![another, twice.into()].contains(&lease(&third)));
}

#[test]
fn an_uplink_is_its_vms_alone() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("passt.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let host = Host::default();
    let (a, b) = (Card::attach(&host, "own", 1), Card::attach(&host, "own", 2));
    let uplink = Uplink::Stream { path, owner: a.mac };
    host.say(NetswitchCommand::AddUplink { network: "own".into(), name: "own/passt".into(), uplink });
    let (mut outside, _) = listener.accept().expect("the switch connects");
    let gateway = gateway_mac(a.mac);
    // Whoever spoke last, and to whomever the program addresses it: it is for its VM.
    for to in [[0xff; 6], b.mac, a.mac] {
        b.send(BROADCAST, b"not for outside");
        assert_eq!(a.receive(), b"not for outside");
        a.send(BROADCAST, b"to all");
        assert_eq!(b.receive(), b"to all");
        let mut length = [0; 4];
        outside.read_exact(&mut length).expect("a frame");
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        outside.read_exact(&mut frame).expect("a frame");
        assert_eq!(&frame[14..], b"to all");
        let answer = [&to[..], &gateway, &[0x88, 0xb5], b"in"].concat();
        outside.write_all(&u32::try_from(answer.len()).expect("short").to_be_bytes()).expect("write");
        outside.write_all(&answer).expect("write");
        assert_eq!(a.receive(), b"in");
    }
    assert_eq!(b.frame_within(Duration::from_millis(50)), None);
}

#[test]
fn a_guest_that_plays_the_server_is_heard_by_nobody() {
    let host = Host::default();
    let (a, bad) = (Card::served(&host, "rogue", 1, "a", None), Card::served(&host, "rogue", 2, "bad", None));
    let (of_a, of_bad) = (lease(&a), lease(&bad));
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 68);
    say(&bad, BROADCAST, SocketAddrV4::new(of_bad, 67), to, &[2; 300]);
    // It claims the address of the other.
    let mut claim = [&BROADCAST[..], &bad.mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &bad.mac].concat();
    claim.extend(of_a.octets().iter().chain(&[0; 6]).chain(&of_a.octets()));
    bad.send_frame(&claim);
    bad.send(a.mac, b"after that");
    let frame = a.frame_within(SURELY).expect("a frame");
    assert_eq!(&frame[14..], b"after that");
    assert_eq!(host.port("rogue/2")["refused"], 2);
    // Nor does the switch say it for it when it announces the place.
    host.say(NetswitchCommand::ReleasePort { port: bad.name.clone(), addresses: vec![of_a.octets()] });
    let announced = packet::arp(&a.frame_within(SURELY).expect("a frame")).expect("an announcement");
    assert_eq!(announced.sender, of_bad);
    assert_eq!(a.frame_within(SURELY).expect("a frame")[12..14], [0x80, 0x35]);
    assert_eq!(resolve(&a, of_a, "bad"), Some(vec![of_bad]));
}
