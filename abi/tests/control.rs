//! The contract that every transport of the control plane must keep, and what the socket survives.

use nix::sys::socket::MsgFlags;
use quasar_abi::control::netswitch::{LeaseWish, Netswitch, NetswitchCommand, NetswitchReply};
use quasar_abi::control::seqpacket::SeqPacket;
use quasar_abi::control::{
    ChannelError, Child, CommandSender, Event, EventReceiver, Parent, ProcessKind, Transport,
};
use quasar_abi::eintr;
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

#[test]
fn encodings_are_the_same_for_ever() {
    let command = Command::AttachPort {
        network: "lan".into(),
        port: "web/0".into(),
        segment: "/q".into(),
        mac: [1; 6],
        lease: Some(LeaseWish { name: "web".into(), address: Some([10, 0, 2, 15]), way_out: true }),
    };
    let bytes = quasar_abi::control::codec::encode(&command).expect("encode");
    assert_eq!(
        bytes,
        b"\x00\x03lan\x05web/0\x02/q\x01\x01\x01\x01\x01\x01\x01\x03web\x01\x0a\x00\x02\x0f\x01"
    );
}
