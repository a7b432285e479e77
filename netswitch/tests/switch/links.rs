//! Networks that span hosts.

use crate::hosts::{Authority, BROADCAST, Card, Host, mesh, until};
use parking_lot::Mutex;
use quasar_abi::control::migrator::Security;
use quasar_abi::control::netswitch::{NetswitchCommand, NetswitchReply};
use quasar_netswitch::link::secure::HOST_NAME;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Sends numbered frames until one arrives, and takes the rest: for the moments in which a loss is allowed.
fn works_again(from: &Card, to: &Card) {
    until("frames pass", || {
        from.send(to.mac, b"there?");
        to.frame_within(Duration::from_millis(20)).is_some()
    });
    while to.frame_within(Duration::from_millis(50)).is_some() {}
}

fn speaks(a: &Card, b: &Card) {
    for n in 0..50u8 {
        a.send(b.mac, &[n; 40]);
        assert_eq!(b.receive(), [n; 40]);
        b.send(a.mac, &[n; 1400]);
        assert_eq!(a.receive(), [n; 1400]);
    }
}

#[test]
fn a_network_spans_two_hosts_and_others_do_not() {
    let (a, b) = (Host::default(), Host::default());
    let (one, two) = (Card::attach(&a, "span", 1), Card::attach(&b, "span", 2));
    let (bystander, alien) = (Card::attach(&b, "span", 3), Card::attach(&b, "span-b", 4));
    let apart = Card::attach(&a, "span-a", 5);
    mesh(&[&a, &b], "span");
    assert_eq!((a.carried("span-a"), a.carried("span-b")), (0, 0));
    speaks(&one, &two);
    assert!(bystander.frame_within(Duration::ZERO).is_none(), "directed frames reach their card alone");
    one.send(BROADCAST, b"all");
    assert_eq!((two.receive(), bystander.receive()), (b"all".to_vec(), b"all".to_vec()));
    apart.send(BROADCAST, b"mine");
    speaks(&one, &two);
    assert!(alien.frame_within(Duration::ZERO).is_none() && one.frame_within(Duration::ZERO).is_none());
    // A network that begins later is carried as soon as both have it, and ends with its last port.
    let later = Card::attach(&a, "span-b", 6);
    a.spans("span-b", 1);
    b.spans("span-b", 1);
    speaks(&later, &alien);
    b.say(NetswitchCommand::DetachPort { port: alien.name.clone() });
    a.spans("span-b", 0);
}

#[test]
fn three_hosts_hear_a_broadcast_once_each() {
    let hosts = [Host::default(), Host::default(), Host::default()];
    let cards: Vec<_> = hosts.iter().zip(1..).map(|(host, n)| Card::attach(host, "mesh", n)).collect();
    mesh(&hosts.each_ref(), "mesh");
    for n in 0..100u8 {
        cards[usize::from(n) % 3].send(BROADCAST, &[n; 50]);
        for (m, card) in cards.iter().enumerate().filter(|(m, _)| *m != usize::from(n) % 3) {
            assert_eq!(card.receive(), [n; 50], "card {m}");
        }
    }
    for (n, m) in [(0, 1), (1, 2), (2, 0)] {
        speaks(&cards[n], &cards[m]);
    }
    for card in &cards {
        assert!(card.frame_within(Duration::from_millis(20)).is_none(), "nothing came twice");
    }
}

#[test]
fn two_hosts_that_link_both_ways_use_one_connection() {
    let (a, b) = (Host::default(), Host::default());
    let (one, two) = (Card::attach(&a, "ways", 1), Card::attach(&b, "ways", 2));
    let (to_a, to_b) = (a.listen(&Security::Insecure), b.listen(&Security::Insecure));
    a.link("b", &to_b, &Security::Insecure);
    b.link("a", &to_a, &Security::Insecure);
    a.spans("ways", 1);
    b.spans("ways", 1);
    until("one side stands back", || {
        [a.link_state("b"), b.link_state("a")].iter().any(|s| s == "connected by the other side")
    });
    works_again(&one, &two);
    works_again(&two, &one);
    one.send(BROADCAST, b"once");
    assert_eq!(two.receive(), b"once");
    assert!(two.frame_within(Duration::from_millis(20)).is_none());
    // The link that is left takes over when the other is removed.
    for (host, name) in [(&a, "b"), (&b, "a")] {
        if host.link_state(name) == "connected" {
            assert_eq!(host.say(NetswitchCommand::RemoveLink { name: name.into() }), NetswitchReply::Done);
            assert_eq!(host.say(NetswitchCommand::RemoveLink { name: name.into() }), NetswitchReply::Done);
            break;
        }
    }
    works_again(&one, &two);
    works_again(&two, &one);
}

/// Passes connections on, until it is told to cut them.
struct Wire {
    address: String,
    alive: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let wire =
            Self { address: listener.local_addr().expect("address").to_string(), alive: Arc::default() };
        let (to, alive) = (address.to_owned(), Arc::clone(&wire.alive));
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(&to)) else { return };
                let both = |s: &TcpStream| s.try_clone().expect("clone");
                alive.lock().extend([both(&near), both(&far)]);
                for (mut from, mut into) in [(both(&near), both(&far)), (far, near)] {
                    std::thread::spawn(move || {
                        let mut space = vec![0; 65_536];
                        while let Ok(n @ 1..) = from.read(&mut space) {
                            if into.write_all(&space[..n]).is_err() {
                                break;
                            }
                        }
                        let _ = into.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        wire
    }

    /// Connections passed on since the last cut.
    fn calls(&self) -> usize {
        self.alive.lock().len() / 2
    }

    fn cut(&self) {
        for end in self.alive.lock().drain(..) {
            // One of the two may have ended first.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn who_stands_back_does_not_go_on_calling() {
    let (a, b) = (Host::default(), Host::default());
    let _cards = (Card::attach(&a, "calls", 1), Card::attach(&b, "calls", 2));
    let wires = [&a, &b].map(|host| Wire::to(&host.listen(&Security::Insecure)));
    a.link("b", &wires[1].address, &Security::Insecure);
    b.link("a", &wires[0].address, &Security::Insecure);
    until("one side calls, the other stands back", || {
        let mut states = [a.link_state("b"), b.link_state("a")];
        states.sort();
        states == ["connected", "connected by the other side"]
    });
    let calls = wires.each_ref().map(Wire::calls);
    // Several of its pauses.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(wires.each_ref().map(Wire::calls), calls);
    // When the connection breaks, one comes again.
    wires.iter().for_each(Wire::cut);
    until("they call again", || wires.iter().map(Wire::calls).sum::<usize>() > 0);
    a.spans("calls", 1);
    b.spans("calls", 1);
}

#[test]
fn a_link_comes_back_after_each_cut_and_after_a_new_start_of_the_other_switch() {
    let authority = Authority::new();
    let (sa, sb) = (authority.issue("a", HOST_NAME), authority.issue("b", HOST_NAME));
    let (a, b) = (Host::default(), Host::default());
    let (one, two) = (Card::attach(&a, "cut", 1), Card::attach(&b, "cut", 2));
    let address = b.listen(&sb);
    let wire = Wire::to(&address);
    a.link("b", &wire.address, &sa);
    a.spans("cut", 1);
    b.spans("cut", 1);
    speaks(&one, &two);
    for _ in 0..3 {
        wire.cut();
        works_again(&one, &two);
        works_again(&two, &one);
        speaks(&one, &two);
    }
    drop(b);
    until("the loss is seen", || a.link_state("b") != "connected");
    let b = Host::default();
    two.attach_to(&b);
    until("its address is free", || {
        b.try_say(NetswitchCommand::Listen { address: address.clone(), security: sb.clone() }).is_ok()
    });
    works_again(&one, &two);
    speaks(&two, &one);
}
