//! Those who may not link, and what they are told.

use crate::hosts::{Authority, Card, Host, until};
use quasar_abi::control::migrator::Security;
use quasar_abi::control::netswitch::NetswitchCommand;
use quasar_netswitch::link::secure::HOST_NAME;
use quasar_netswitch::link::wire::{Message, encode};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Sends bytes and waits until the switch hangs up.
fn say_and_be_refused(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(crate::hosts::SURELY)).expect("timeout");
    // The switch may hang up before all is said.
    let _ = stream.write_all(bytes);
    let mut rest = vec![];
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the switch hung up");
    }
}

fn is_told(host: &Host, link: &str, why: &str) {
    until(&format!("link {link} says {why:?}: {}", host.link_state(link)), || {
        host.link_state(link).contains(why)
    });
    assert_eq!(host.carried("strange"), 0);
}

#[test]
fn strangers_are_refused_with_a_reason_and_harm_nobody() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let good = ours.issue("good", HOST_NAME);
    let (host, stranger, friend) = (Host::default(), Host::default(), Host::default());
    let (one, two) = (Card::attach(&host, "strange", 1), Card::attach(&friend, "strange", 2));
    let _spy = Card::attach(&stranger, "strange", 3);
    let address = host.listen(&good);

    let garbage: Vec<u8> = (0..4000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let hello = encode(&Message::Hello { oldest: 1, newest: 1, instance: [9; 16] });
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &garbage, &hello] {
        say_and_be_refused(&address, bytes);
    }
    // Without TLS, of another authority, with a stolen authority's certificate but another's key, and a name that
    // is no host's: the last is for the caller to see, so that the roles are turned.
    let other = theirs.issue("evil", HOST_NAME);
    let Security::MutualTls { certificate, key, .. } = other.clone() else { panic!("it is TLS") };
    let half = Security::MutualTls { authority: ours.certificate(), certificate, key };
    stranger.link("plain", &address, &Security::Insecure);
    stranger.link("other", &address, &other);
    stranger.link("half", &address, &half);
    let visitor = ours.issue("visitor", "visitor");
    let visited = stranger.listen(&visitor);
    friend.link("visitor", &visited, &good);
    is_told(&stranger, "plain", "perhaps it takes links with TLS alone");
    is_told(&stranger, "other", "did not prove to be a host of our authority");
    is_told(&stranger, "half", "does not take us for a host of its authority");
    is_told(&friend, "visitor", "did not prove to be a host of our authority");

    friend.link("host", &address, &ours.issue("friend", HOST_NAME));
    friend.spans("strange", 1);
    host.spans("strange", 1);
    two.send(one.mac, b"still served");
    assert_eq!(one.receive(), b"still served");
}

#[test]
fn what_no_switch_says_ends_the_connection_and_no_more() {
    let (host, friend) = (Host::default(), Host::default());
    let (one, two) = (Card::attach(&host, "odd", 1), Card::attach(&friend, "odd", 2));
    let address = host.listen(&Security::Insecure);
    friend.link("host", &address, &Security::Insecure);
    friend.spans("odd", 1);
    let hello = encode(&Message::Hello { oldest: 1, newest: 1, instance: [9; 16] });
    let future = encode(&Message::Hello { oldest: 40, newest: 50, instance: [9; 16] });
    let networks = encode(&Message::Networks(vec![(0, "odd".into())]));
    let after_hello = |bytes: &[u8]| [&hello[..], &networks, bytes].concat();
    let cases: [Vec<u8>; 8] = [
        b"SSH-2.0-nobody\r\n".to_vec(),
        vec![0xff; 4096],
        future,
        after_hello(&[0, 0, 0, 0]),
        after_hello(&[1, 0, 0, 0, 99]),
        after_hello(&u32::MAX.to_le_bytes()),
        // A frame of nothing, and a hello again.
        after_hello(&[6, 0, 0, 0, 3, 0, 0, 0, 0, 0]),
        after_hello(&hello),
    ];
    for bytes in cases {
        say_and_be_refused(&address, &bytes);
        two.send(one.mac, b"on");
        assert_eq!(one.receive(), b"on");
    }
    // Unknown networks, cards and addresses are passed over.
    let card = quasar_netswitch::ethernet::Mac([2, 9, 9, 9, 9, 9]);
    let mut odd = TcpStream::connect(&address).expect("connect");
    for message in [
        Message::Networks(vec![(7, "odd".into()), (7, "odder".into())]),
        Message::Frame { network: 99, directed: true, frame: &[1; 60] },
        Message::Frame { network: 7, directed: true, frame: &[1; 5] },
        Message::Moved { network: 7, mac: card, addresses: vec![] },
        Message::Here { network: 99, mac: card },
        Message::Forward { network: 7, mac: card, frame: &[2; 60] },
    ] {
        if matches!(message, Message::Networks(_)) {
            odd.write_all(&hello).expect("write");
        }
        odd.write_all(&encode(&message)).expect("write");
        two.send(one.mac, b"on");
        assert_eq!(one.receive(), b"on");
    }
}

#[test]
fn links_without_tls_stay_on_the_loopback_and_mistakes_are_named() {
    let host = Host::default();
    let missing = Security::MutualTls {
        authority: PathBuf::from("/nowhere/ca.pem"),
        certificate: PathBuf::from("/nowhere/host.pem"),
        key: PathBuf::from("/nowhere/host.key"),
    };
    let listen = |address: &str, security: &Security| {
        let listen = NetswitchCommand::Listen { address: address.into(), security: security.clone() };
        host.try_say(listen).expect_err("refused")
    };
    let error = listen("0.0.0.0:0", &Security::Insecure);
    assert!(error.contains("loopback alone") && error.contains("quasar pki"), "{error}");
    let error = listen("127.0.0.1:0", &missing);
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
    let error = listen("192.0.2.1:1", &Security::Insecure);
    assert!(error.contains("192.0.2.1:1"), "{error}");

    let address = host.listen(&Security::Insecure);
    let again = Authority::new().issue("x", HOST_NAME);
    assert!(listen("127.0.0.1:0", &again).contains("other certificates"));
    host.link("self", &address, &Security::Insecure);
    until("it sees itself", || host.link_state("self").contains("this very switch"));
    host.link("far", "192.0.2.1:9", &Security::Insecure);
    let moved = NetswitchCommand::AddLink {
        name: "far".into(),
        to: "192.0.2.2:9".into(),
        security: Security::Insecure,
    };
    assert!(host.try_say(moved).expect_err("refused").contains("remove it first"));
}

#[test]
fn links_come_up_however_many_strangers_hold_the_line() {
    let ours = Authority::new();
    let (host, friend) = (Host::default(), Host::default());
    let (one, two) = (Card::attach(&host, "crowd", 1), Card::attach(&friend, "crowd", 2));
    let address = host.listen(&ours.issue("host", HOST_NAME));
    // Until the test ends: a byte every now and then, of what might become a handshake of any length.
    let done = Arc::new(AtomicBool::new(false));
    let mut crowd: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(&address).expect("connect")).collect();
    let drip = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            for byte in [22u8, 3, 1, 64, 0].into_iter().chain(std::iter::repeat(0)) {
                for stranger in &mut crowd {
                    drop(stranger.write_all(&[byte]));
                }
                std::thread::sleep(Duration::from_millis(100));
                if done.load(Ordering::Acquire) {
                    return;
                }
            }
        })
    };
    friend.link("host", &address, &ours.issue("friend", HOST_NAME));
    friend.spans("crowd", 1);
    host.spans("crowd", 1);
    two.send(one.mac, b"through");
    assert_eq!(one.receive(), b"through");
    done.store(true, Ordering::Release);
    drip.join().expect("strangers");
}

#[test]
fn a_hello_has_a_deadline_however_slowly_it_comes() {
    let host = Host::default();
    let mut slow = TcpStream::connect(host.listen(&Security::Insecure)).expect("connect");
    let mut mouth = slow.try_clone().expect("clone");
    let hello = encode(&Message::Hello { oldest: 1, newest: 1, instance: [9; 16] });
    let length = hello.len();
    let talk = std::thread::spawn(move || {
        let mut said = |byte: &u8| {
            std::thread::sleep(Duration::from_millis(300));
            mouth.write_all(&[*byte]).is_ok()
        };
        hello.iter().take_while(|byte| said(byte)).count()
    });
    let mut rest = vec![];
    // The end, or a reset because something is on its way still.
    drop(slow.read_to_end(&mut rest));
    let said = talk.join().expect("thread");
    assert!(said < length, "all {said} bytes of a hello were waited for");
}
