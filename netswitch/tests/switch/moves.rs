//! VMs that go from host to host while frames come for them.

use crate::hosts::{BROADCAST, Card, Host, SURELY, mesh, until};
use quasar_abi::control::migrator::Security;
use quasar_abi::control::netswitch::{NetswitchCommand, NetswitchReply, Uplink};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn hold(host: &Host, card: &Card) {
    let hold = NetswitchCommand::HoldPort { port: card.name.clone() };
    assert_eq!(host.say(hold.clone()), NetswitchReply::Done);
    assert_eq!(host.say(hold), NetswitchReply::Done);
}

fn expect(host: &Host, card: &Card) {
    hold(host, card);
    card.attach_to(host);
    assert_eq!(host.port(&card.name)["state"], "expecting");
}

fn leave(host: &Host, card: &Card) -> Vec<Ipv4Addr> {
    let leave = || match host.say(NetswitchCommand::MovePort { port: card.name.clone() }) {
        NetswitchReply::Moved { addresses } => addresses,
        other => panic!("{other:?}"),
    };
    let addresses = leave();
    assert_eq!(card.rings().link_up.load(Ordering::Acquire), 0);
    assert!(leave().is_empty(), "once");
    addresses
}

fn release(host: &Host, card: &Card, addresses: &[Ipv4Addr]) {
    let addresses = addresses.iter().map(Ipv4Addr::octets).collect();
    let release = NetswitchCommand::ReleasePort { port: card.name.clone(), addresses };
    assert_eq!(host.say(release), NetswitchReply::Done);
    assert_eq!(host.port(&card.name)["state"], "open");
}

fn arp(card: &Card, ip: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let head = [&BROADCAST[..], &card.mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    [&head[..], &card.mac, &ip, &[0; 6], &target, &[0; 18]].concat()
}

#[test]
fn frames_are_held_from_the_departure_on_and_delivered_in_order_after_it() {
    let (a, b) = (Host::default(), Host::default());
    let (near, far) = (Card::attach(&a, "held", 1), Card::attach(&b, "held", 2));
    let vm = Card::attach(&a, "held", 9);
    mesh(&[&a, &b], "held");
    vm.send_frame(&arp(&vm, [10, 0, 0, 9], [10, 0, 0, 1]));
    until("the VM's address is known", || a.port("held/9")["ipv4"][0] == "10.0.0.9");
    let there = Card::new("held", 9);
    expect(&b, &there);
    // It runs at its old place still.
    far.send(vm.mac, &[1]);
    assert_eq!(vm.receive(), [1]);
    // It is at rest now, and does not take these.
    for n in 2..=20 {
        [&near, &far][usize::from(n % 2)].send(vm.mac, &[n]);
        until("it waits in the card's ring", || vm.rings().to_card.has_frames());
        until("it came in", || a.port("held/9")["frames_out"].as_u64() >= Some(u64::from(n)));
    }
    assert_eq!(leave(&a, &vm), [Ipv4Addr::new(10, 0, 0, 9)]);
    until("what it had not taken waits there", || b.port("held/9")["held"] == 19);
    assert_eq!(b.port("held/9")["state"], "holding");
    for n in 21..=40 {
        [&near, &far][usize::from(n % 2)].send(vm.mac, &[n]);
        until("it waits there", || b.port("held/9")["held"] == n - 1);
    }
    assert!(there.frame_within(Duration::ZERO).is_none());
    release(&b, &there, &[]);
    for n in 2..=40 {
        assert_eq!(there.receive(), [n]);
    }
    // The address came over the link, and is announced from the new place several times.
    for card in [&near, &far] {
        let (mut arps, mut rarps) = (0, 0);
        while arps < 5 || rarps < 5 {
            let frame = card.frame_within(SURELY).expect("an announcement");
            assert_eq!((&frame[..6], &frame[6..12]), (&BROADCAST[..], &vm.mac[..]));
            arps += usize::from(frame[12..14] == [8, 6] && frame[28..32] == [10, 0, 0, 9]);
            rarps += usize::from(frame[12..14] == [0x80, 0x35]);
        }
        card.send(vm.mac, b"to the new place");
        assert_eq!(there.receive(), b"to the new place");
    }
    assert!(there.frame_within(Duration::from_millis(20)).is_none());
}

/// Ends the senders, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The sender and the number in a frame of [`move_to_and_fro`].
fn numbered(frame: &[u8]) -> Option<(usize, u32)> {
    let number = frame.get(15..19)?.first_chunk().map(|n| u32::from_le_bytes(*n))?;
    (frame[12..14] == [0x88, 0xb5]).then_some((usize::from(frame[14]), number))
}

/// The VM runs until what was under way at its last move has come, and a while longer. Then it rests.
fn run_on(vm: &Card, counts: &[AtomicU32], got: &mut [Vec<u32>]) {
    let due: Vec<_> = counts.iter().map(|n| n.load(Ordering::Relaxed) as usize + 10).collect();
    while got.iter().zip(&due).any(|(got, due)| got.len() < *due) {
        let frame = vm.frame_within(SURELY).expect("a frame");
        if let Some((k, number)) = numbered(&frame) {
            got[k].push(number);
        }
    }
}

/// Takes numbered frames until as many came as were sent, and a little longer.
fn take_the_rest(vm: &Card, sent: &[u32], got: &mut [Vec<u32>]) {
    let all: usize = sent.iter().map(|n| *n as usize).sum();
    let by = Instant::now() + SURELY;
    loop {
        let missing = got.iter().map(Vec::len).sum::<usize>() < all && Instant::now() < by;
        match vm.frame_within(Duration::from_millis(if missing { 1000 } else { 100 })) {
            Some(frame) => {
                if let Some((k, number)) = numbered(&frame) {
                    got[k].push(number);
                }
            }
            None if missing => {}
            None => return,
        }
    }
}

/// Each number came once, in whatever order.
fn came_once(sent: u32, got: &[u32]) {
    let mut times = vec![0; sent as usize];
    got.iter().for_each(|n| times[*n as usize] += 1);
    let wrong: Vec<_> = times.iter().enumerate().filter(|(_, times)| **times != 1).collect();
    assert!(wrong.is_empty(), "of {sent} frames these came not at all or several times: {wrong:?}");
}

/// Two hosts between which a VM moves to and fro and a third send it numbered frames all the while. Returns what each
/// sent and what of it came, in the order in which it came.
fn move_to_and_fro(network: &str, move_first: bool) -> Vec<(u32, Vec<u32>)> {
    let hosts = [Host::default(), Host::default(), Host::default()];
    let senders: Vec<Card> = hosts.iter().zip(1..).map(|(h, n)| Card::attach(h, network, n)).collect();
    let mut vm = Card::attach(&hosts[0], network, 9);
    mesh(&hosts.each_ref(), network);
    vm.send(BROADCAST, b"hello");
    for sender in &senders {
        assert_eq!(sender.receive(), b"hello");
    }
    let (ended, mac) = (AtomicBool::new(false), vm.mac);
    let counts = [const { AtomicU32::new(0) }; 3];
    let send = |k: u8, sender: &Card| {
        let mut n = 0u32;
        while !ended.load(Ordering::Relaxed) {
            sender.send(mac, &[&[k][..], &n.to_le_bytes()].concat());
            n += 1;
            counts[usize::from(k)].store(n, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(500));
        }
        n
    };
    let mut got = vec![vec![]; senders.len()];
    let sent: Vec<u32> = std::thread::scope(|scope| {
        let _stop = Stop(&ended);
        let send = &send;
        let threads: Vec<_> = (0..).zip(&senders).map(|(k, s)| scope.spawn(move || send(k, s))).collect();
        for turn in 0..12 {
            let (from, to) = (&hosts[turn % 2], &hosts[(turn + 1) % 2]);
            let there = Card::new(network, 9);
            expect(to, &there);
            run_on(&vm, &counts, &mut got);
            if move_first {
                leave(from, &vm);
                release(to, &there, &[]);
            } else {
                release(to, &there, &[]);
                leave(from, &vm);
            }
            vm = there;
        }
        ended.store(true, Ordering::Relaxed);
        threads.into_iter().map(|t| t.join().expect("sender")).collect()
    });
    take_the_rest(&vm, &sent, &mut got);
    sent.into_iter().zip(got).collect()
}

#[test]
fn nothing_is_lost_or_doubled_in_twelve_moves() {
    for (sent, got) in move_to_and_fro("fro", true) {
        came_once(sent, &got);
    }
}

#[test]
fn nothing_is_lost_or_doubled_when_the_new_place_is_released_first() {
    for (sent, got) in move_to_and_fro("early", false) {
        came_once(sent, &got);
    }
}

#[test]
fn frames_from_the_side_that_the_vm_leaves_keep_their_order_while_it_leaves() {
    let (a, b) = (Host::default(), Host::default());
    let (near, _far) = (Card::attach(&a, "order", 1), Card::attach(&b, "order", 2));
    mesh(&[&a, &b], "order");
    for n in 10..20 {
        let (vm, there) = (Card::attach(&a, "order", n), Card::new("order", n));
        expect(&b, &there);
        let mut got = vec![];
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                for n in 0..400u32 {
                    near.send(vm.mac, &[&[0][..], &n.to_le_bytes()].concat());
                    std::thread::sleep(Duration::from_micros(100));
                }
            });
            while got.len() < 100 {
                got.extend(numbered(&vm.frame_within(SURELY).expect("a frame")));
            }
            leave(&a, &vm);
            release(&b, &there, &[]);
            sender.join().expect("sender");
        });
        while got.len() < 400 {
            got.extend(numbered(&there.frame_within(SURELY).expect("a frame")));
        }
        assert_eq!(got, (0..400).map(|n| (0, n)).collect::<Vec<_>>());
    }
}

#[test]
fn broadcasts_between_the_two_hosts_come_once_whenever_they_are_sent() {
    let (a, b) = (Host::default(), Host::default());
    let (near, far) = (Card::attach(&a, "cast", 1), Card::attach(&b, "cast", 2));
    let mut vm = Card::attach(&a, "cast", 9);
    mesh(&[&a, &b], "cast");
    let ended = AtomicBool::new(false);
    let counts = [const { AtomicU32::new(0) }; 2];
    let send = |k: u8, sender: &Card| {
        let mut n = 0u32;
        while !ended.load(Ordering::Relaxed) {
            sender.send(BROADCAST, &[&[k][..], &n.to_le_bytes()].concat());
            while sender.frame_within(Duration::from_micros(500)).is_some() {}
            n += 1;
            counts[usize::from(k)].store(n, Ordering::Relaxed);
        }
        n
    };
    let mut got = vec![vec![]; 2];
    let sent: Vec<u32> = std::thread::scope(|scope| {
        let _stop = Stop(&ended);
        let send = &send;
        let threads = [(0, &near), (1, &far)].map(|(k, s)| scope.spawn(move || send(k, s)));
        for turn in 0..12 {
            let (from, to) = if turn % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let there = Card::new("cast", 9);
            expect(to, &there);
            run_on(&vm, &counts, &mut got);
            if turn % 4 < 2 {
                leave(from, &vm);
                release(to, &there, &[]);
            } else {
                release(to, &there, &[]);
                leave(from, &vm);
            }
            vm = there;
        }
        ended.store(true, Ordering::Relaxed);
        threads.map(|t| t.join().expect("sender")).into()
    });
    take_the_rest(&vm, &sent, &mut got);
    for (sent, got) in sent.into_iter().zip(got) {
        came_once(sent, &got);
    }
}

#[test]
fn late_frames_of_a_host_that_knows_the_old_place_alone_are_sent_after_the_vm() {
    let (a, b, c) = (Host::default(), Host::default(), Host::default());
    let (_near, _far) = (Card::attach(&a, "late", 1), Card::attach(&b, "late", 2));
    let (sender, vm) = (Card::attach(&c, "late", 3), Card::attach(&a, "late", 9));
    mesh(&[&a, &b], "late");
    // The third host has a link to the old place and none to the new one.
    c.link("a", &a.listen(&Security::Insecure), &Security::Insecure);
    c.spans("late", 1);
    a.spans("late", 2);
    vm.send(BROADCAST, b"hello");
    assert_eq!(sender.receive(), b"hello");
    let there = Card::new("late", 9);
    expect(&b, &there);
    leave(&a, &vm);
    for n in 0..50 {
        sender.send(vm.mac, &[n]);
    }
    release(&b, &there, &[]);
    for n in 0..50 {
        assert_eq!(there.receive(), [n]);
    }
}

#[test]
fn a_vm_that_moved_reaches_the_uplink_where_its_connections_began() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("passt.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let (a, b) = (Host::default(), Host::default());
    let (vm, _far) = (Card::attach(&a, "up", 9), Card::attach(&b, "up", 2));
    a.say(NetswitchCommand::AddUplink {
        network: "up".into(),
        name: "up/uplink".into(),
        uplink: Uplink::Stream { path, owner: vm.mac },
    });
    let (mut outside, _) = listener.accept().expect("the switch connects");
    mesh(&[&a, &b], "up");
    let gateway = [2, 0, 0, 0, 0, 0xfe];
    let mut seen = HashSet::new();
    let mut ask = |card: &Card, text: &[u8]| {
        card.send(gateway, text);
        loop {
            let mut length = [0; 4];
            outside.read_exact(&mut length).expect("a frame");
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            outside.read_exact(&mut frame).expect("a frame");
            seen.insert(frame[12..14].to_vec());
            if &frame[14..] == text {
                break;
            }
        }
        let answer = [&card.mac[..], &gateway, &[0x88, 0xb5], text].concat();
        outside.write_all(&u32::try_from(answer.len()).expect("short").to_be_bytes()).expect("write");
        outside.write_all(&answer).expect("write");
        assert_eq!(card.receive(), text);
    };
    ask(&vm, b"before");
    let there = Card::new("up", 9);
    expect(&b, &there);
    leave(&a, &vm);
    release(&b, &there, &[Ipv4Addr::new(10, 0, 2, 15)]);
    ask(&there, b"after");
    ask(&there, b"and after");
    assert!(seen.contains(&vec![0x80, 0x35]), "the uplink hears of the place");
    assert!(!seen.contains(&vec![8, 6]), "it would answer for the addresses of others");
    // The old host keeps its part of the network for the uplink alone.
    assert_eq!(a.port("up/uplink")["kind"], "stream");
}

#[test]
fn a_vm_that_speaks_before_its_release_is_heard_and_a_move_that_failed_leaves_nothing() {
    let (a, b) = (Host::default(), Host::default());
    let (near, _far) = (Card::attach(&a, "odds", 1), Card::attach(&b, "odds", 2));
    let vm = Card::attach(&a, "odds", 9);
    mesh(&[&a, &b], "odds");
    // A migration that fails: the port that was to take it goes, and a later one of its name is an ordinary one.
    for attached in [true, false] {
        let there = Card::new("odds", 9);
        hold(&b, &there);
        if attached {
            there.attach_to(&b);
        }
        b.say(NetswitchCommand::DetachPort { port: there.name.clone() });
        near.send(vm.mac, b"as ever");
        assert_eq!(vm.receive(), b"as ever");
    }
    let there = Card::new("odds", 9);
    expect(&b, &there);
    there.send(near.mac, b"already");
    assert_eq!(near.receive(), b"already");
    assert_eq!(b.port("odds/9")["state"], "holding");
    leave(&a, &vm);
    near.send(vm.mac, b"welcome");
    until("it waits", || b.port("odds/9")["held"] == 1);
    release(&b, &there, &[]);
    assert_eq!(there.receive(), b"welcome");
    let unknown = b.try_say(NetswitchCommand::ReleasePort { port: "odds/77".into(), addresses: vec![] });
    assert!(unknown.expect_err("no port").contains("attach it first"));
}
