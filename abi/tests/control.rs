//! The contract that every transport of the control plane must keep, and what the socket survives.

use nix::sys::socket::MsgFlags;
use quasar_abi::control::netswitch::{LeaseWish, Netswitch, NetswitchCommand, NetswitchReply};
use quasar_abi::control::seqpacket::SeqPacket;
use quasar_abi::control::{
    ChannelError, Child, CommandSender, Event, EventReceiver, Parent, ProcessKind, Transport,
};
use quasar_abi::{AtomicLe64, Grant, Segment, SegmentKind, eintr, grants};
use rustix::net::SendFlags;
use std::os::fd::AsFd;
use std::time::Duration;

type Command = NetswitchCommand;
const SOON: Option<Duration> = Some(Duration::from_secs(10));

/// Both ends, connected; the child's runs `serve` on its own thread.
fn connected(
    transport: Transport,
    serve: impl FnOnce(Child<Netswitch>) + Send + 'static,
) -> (CommandSender<Netswitch>, EventReceiver<Netswitch>, std::thread::JoinHandle<()>) {
    let (parent, fd) = Parent::new().expect("channel");
    let child = std::thread::spawn(move || {
        serve(Child::connect(fd, "1.2.3", transport).expect("connect"));
    });
    let (hello, commands, events) = parent.greet::<Netswitch>(SOON).expect("greet").expect("in time");
    assert_eq!((hello.kind, hello.version.as_str()), (ProcessKind::Netswitch, "1.2.3"));
    assert_eq!(hello.ipc_server.is_some(), transport == Transport::Ipc);
    (commands, events, child)
}

fn each_transport(test: impl Fn(Transport)) {
    test(Transport::Ipc);
    test(Transport::Socket);
}

#[test]
fn commands_arrive_in_order_and_are_answered_by_number() {
    each_transport(|transport| {
        let (mut commands, events, child) = connected(transport, |child| {
            loop {
                let Some(envelope) = child.commands.recv(SOON).expect("command") else { continue };
                let done = envelope.command == Command::Shutdown;
                let reply = NetswitchReply::Listening { address: format!("{:?}", envelope.command) };
                child.events.send(&Event::Done { id: envelope.id, reply }).expect("event");
                if done {
                    break;
                }
            }
        });
        for n in 0..50 {
            let command = Command::DetachPort { port: format!("web/{n}") };
            let id = commands.send(command.clone()).expect("send");
            let event = events.recv(SOON).expect("event").expect("in time");
            let reply = NetswitchReply::Listening { address: format!("{command:?}") };
            assert_eq!(event, Event::Done { id, reply });
        }
        commands.send(Command::Shutdown).expect("send");
        child.join().expect("child");
    });
}

#[test]
fn a_receiver_gives_up_after_its_timeout_and_goes_on() {
    each_transport(|transport| {
        let (mut commands, _events, child) = connected(transport, |child| {
            // The first command is what opens an ipc-channel; the time-out is tried after it.
            assert!(child.commands.recv(SOON).expect("first").is_some());
            assert_eq!(child.commands.recv(Some(Duration::from_millis(5))).expect("nothing"), None);
            child.events.send(&Event::Notice("waited".into())).expect("event");
            assert!(child.commands.recv(SOON).expect("second").is_some());
        });
        commands.send(Command::Stats).expect("send");
        assert_eq!(_events.recv(SOON).expect("event"), Some(Event::Notice("waited".into())));
        commands.send(Command::Stats).expect("send");
        child.join().expect("child");
    });
}

#[test]
fn the_death_of_either_end_is_an_ordinary_answer() {
    each_transport(|transport| {
        let (mut commands, events, child) = connected(transport, |child| {
            assert!(child.commands.recv(SOON).expect("first").is_some());
        });
        commands.send(Command::Stats).expect("send");
        child.join().expect("child");
        assert!(matches!(events.recv(SOON), Err(ChannelError::Closed)));
        // A send may still be taken by a buffer; the end shows at the latest with the next ones.
        assert!((0..1000).any(|_| matches!(commands.send(Command::Stats), Err(ChannelError::Closed))));

        let (mut commands, events, child) = connected(transport, |child| {
            assert!(child.commands.recv(SOON).expect("first").is_some());
            assert!(matches!(child.commands.recv(SOON), Err(ChannelError::Closed)));
        });
        commands.send(Command::Stats).expect("send");
        drop((commands, events));
        child.join().expect("child");
    });
}

#[test]
fn whatever_a_child_sends_the_supervisor_lives_and_reads_on() {
    let (ours, theirs) = SeqPacket::pair().expect("pair");
    let raw = |bytes: &[u8]| {
        eintr::send(&theirs.as_fd(), bytes, MsgFlags::empty()).expect("send");
    };
    let hostile: [&[u8]; 7] = [
        &[1],
        &[0xff; 8],
        &[4, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3],
        &[1, 0, 0, 0, 9, 0, 0, 0, 0],
        // Event::Notice with a text of 2^62 bytes.
        &[10, 0, 0, 0, 2, 0, 0, 0, 2, 253, 0, 0, 0, 0, 0, 0, 0, 64],
        // A valid Notice with a byte too many.
        &[4, 0, 0, 0, 2, 0, 0, 0, 2, 1, 65, 66],
        &[0; 140_000],
    ];
    for bytes in hostile {
        raw(bytes);
        assert!(ours.recv::<Event<Netswitch>>(2, SOON).is_err(), "{:?}", &bytes[..bytes.len().min(16)]);
    }
    theirs.send(2, &Event::<Netswitch>::Notice("fine".into())).expect("send");
    assert_eq!(ours.recv::<Event<Netswitch>>(2, SOON).expect("event"), Some(Event::Notice("fine".into())));
}

#[test]
fn a_peer_that_does_not_read_never_blocks_the_sender() {
    let (ours, _theirs) = SeqPacket::pair().expect("pair");
    let long = Event::<Netswitch>::Notice("x".repeat(60_000));
    assert!((0..1000).any(|_| ours.send(2, &long).is_err()));
}

fn segment(what: &str) -> Segment {
    let name = format!("/quasar-test-{}-control-{what}", std::process::id());
    Segment::create(&name, SegmentKind::Port, 64, 1).expect("segment")
}

fn attach(port: &str, rings: Grant) -> Command {
    let lease = Some(LeaseWish { name: "web".into(), address: Some([10, 0, 2, 15]), way_out: true });
    Command::AttachPort { network: "lan".into(), port: port.into(), rings, mac: [1; 6], lease }
}

/// Between commands that give nothing, in the order in which they were sent; and the other way nothing can be given.
#[test]
fn segments_are_given_by_commands_over_every_transport() {
    each_transport(|transport| {
        let (mut commands, events, child) = connected(transport, |child| {
            for n in 0u64..9 {
                let envelope = child.commands.recv(SOON).expect("a command").expect("in time");
                match envelope.command {
                    Command::AttachPort { rings, .. } if n % 3 != 0 => {
                        let rings = Segment::attach(&rings, SegmentKind::Port).expect("what was given");
                        rings.view::<AtomicLe64>(0).expect("a word").set(100 + n);
                    }
                    Command::Stats if n % 3 == 0 => {}
                    other => panic!("{n}: {other:?}"),
                }
                let done = Event::Done { id: envelope.id, reply: NetswitchReply::Done };
                child.events.send(&done).expect("event");
            }
        });
        let segments: Vec<Segment> = (0..9).map(|n| segment(&n.to_string())).collect();
        for (n, segment) in segments.iter().enumerate() {
            let command = if n % 3 == 0 { Command::Stats } else { attach(&n.to_string(), segment.grant()) };
            commands.send(command).expect("send");
        }
        for _ in 0..9 {
            let event = events.recv(SOON).expect("event").expect("in time");
            assert!(matches!(event, Event::Done { .. }), "{transport}: {event:?}");
        }
        child.join().expect("child");
        for (n, segment) in (0u64..).zip(&segments) {
            let wanted = if n % 3 == 0 { 0 } else { 100 + n };
            assert_eq!(segment.view::<AtomicLe64>(0).expect("a word").get(), wanted, "{transport}: {n}");
        }
    });
}

#[test]
fn a_child_cannot_fill_its_supervisor_with_descriptors() {
    let (ours, theirs) = SeqPacket::pair().expect("pair");
    theirs.send(2, &attach("web/0", segment("pushed").grant())).expect("send");
    let error = ours.recv::<Command>(2, SOON).expect_err("nothing was given").to_string();
    assert!(error.contains("did not come with the message"), "{error}");
    // A message that says nothing of what came with it is none of ours.
    let mine = segment("hidden");
    let notice = quasar_abi::control::codec::encode(&Event::<Netswitch>::Notice("x".into())).expect("encode");
    let mut record = u32::try_from(notice.len()).expect("short").to_le_bytes().to_vec();
    record.extend(2u32.to_le_bytes());
    record.extend(&notice);
    let grant = mine.grant();
    eintr::send_with(&theirs, &record, &[grant.as_fd()], SendFlags::empty()).expect("send");
    eintr::send_with(&theirs, &record, &[grant.as_fd()], SendFlags::empty()).expect("send");
    assert_eq!(ours.recv::<Event<Netswitch>>(2, SOON).expect("event"), Some(Event::Notice("x".into())));
    assert!(ours.recv_given::<Event<Netswitch>>(2, SOON).is_err());
    let many = vec![grant; eintr::MOST_DESCRIPTORS + 1];
    assert!(theirs.send(2, &many).is_err());
    let all: Vec<_> = many.iter().map(AsFd::as_fd).collect();
    eintr::send_with(&theirs, &record, &all, SendFlags::empty()).expect("send");
    assert!(ours.recv_given::<Event<Netswitch>>(2, SOON).is_err());
    theirs.send(2, &Event::<Netswitch>::Notice("fine".into())).expect("send");
    assert_eq!(
        ours.recv_given::<Event<Netswitch>>(2, SOON).expect("event"),
        Some(Event::Notice("fine".into()))
    );
}

#[test]
fn encodings_are_the_same_for_ever() {
    let rings = segment("golden");
    let command = attach("web/0", rings.grant());
    let (bytes, given) = grants::beside(|| quasar_abi::control::codec::encode(&command).expect("encode"));
    // The name, and which of the descriptors beside the message it is.
    let name =
        [&[u8::try_from(rings.name().len()).expect("short")], rings.name().as_bytes(), b"\x00"].concat();
    let after = b"\x01\x01\x01\x01\x01\x01\x01\x03web\x01\x0a\x00\x02\x0f\x01";
    assert_eq!(bytes, [b"\x00\x03lan\x05web/0".as_slice(), &name, after].concat());
    assert_eq!(given, [rings.grant()]);
}
