//! Every kind of frame, cut off, cut short and damaged on its way: at most one side runs the guest, and until the hand-over
//! it is the source, whole.

use crate::guest::{Guest, Manners, while_writing};
use crate::wire::{connected, limits, migrate, peer};
use quasar_abi::vm::pause;
use quasar_migrator::connection::Peer;
use quasar_migrator::frame::Kind;
use quasar_migrator::message::{Agreement, Codec, Offer, Refused};
use quasar_migrator::source::{Outcome, send};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const HEADER: usize = 24;

/// What happens to the first frame of a kind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    /// The connection ends instead.
    Cut,
    /// It ends in the frame's midst.
    Half,
    /// A bit of the payload, or of its hash, is another.
    Payload,
    /// It says to be of another kind.
    Kind,
    /// It says to be longer than any frame may be.
    Length,
    /// It comes twice.
    Twice,
}

const TROUBLES: [Trouble; 6] =
    [Trouble::Cut, Trouble::Half, Trouble::Payload, Trouble::Kind, Trouble::Length, Trouble::Twice];

/// Passes frames on, until one of this kind comes; then ends the connection when that is the trouble.
fn pass(from: &mut TcpStream, on: &mut TcpStream, wanted: Kind, trouble: Trouble) -> std::io::Result<()> {
    let mut done = false;
    loop {
        let mut frame = vec![0; HEADER];
        from.read_exact(&mut frame)?;
        let length = u32::from_le_bytes([frame[8], frame[9], frame[10], frame[11]]);
        frame.resize(HEADER + usize::try_from(length).expect("small"), 0);
        from.read_exact(&mut frame[HEADER..])?;
        if !done && frame[4] == wanted as u8 {
            done = true;
            match trouble {
                Trouble::Cut => return Ok(()),
                Trouble::Half => return on.write_all(&frame[..frame.len() / 2]),
                Trouble::Payload => *frame.last_mut().expect("a header") ^= 1,
                Trouble::Kind => frame[4] ^= 1,
                Trouble::Length => frame[10] = 0xff,
                Trouble::Twice => on.write_all(&frame)?,
            }
        }
        on.write_all(&frame)?;
    }
}

/// A connection on which one frame of a kind is troubled, whichever side sends it.
fn troubled(kind: Kind, trouble: Trouble) -> (TcpStream, TcpStream) {
    let (client, near) = connected();
    let (far, server) = connected();
    let clone = |socket: &TcpStream| socket.try_clone().expect("clone");
    let (answers, back) = (clone(&far), clone(&near));
    for (mut from, mut on) in [(near, far), (answers, back)] {
        std::thread::spawn(move || {
            let ended = pass(&mut from, &mut on, kind, trouble);
            // Either end may have closed it before.
            drop((ended, from.shutdown(Shutdown::Both), on.shutdown(Shutdown::Both)));
        });
    }
    (client, server)
}

const KINDS: [Kind; 12] = [
    Kind::Offer,
    Kind::Agreement,
    Kind::Machine,
    Kind::Ready,
    Kind::Pages,
    Kind::RoundEnd,
    Kind::RoundTaken,
    Kind::State,
    Kind::Final,
    Kind::Accepted,
    Kind::HandOver,
    Kind::Running,
];

#[test]
fn trouble_with_any_kind_of_frame_leaves_exactly_one_whole_guest() {
    let from = Guest::new("frames");
    while_writing(&from, Manners::Right, 200, || {
        for kind in KINDS {
            for trouble in TROUBLES {
                let case = format!("{trouble:?} at {kind:?}");
                let to = Guest::new("frames");
                let (outcome, received, _) =
                    migrate(&from, &to, troubled(kind, trouble), &limits(), &Arc::default(), |_| {});
                let runs = |guest: &Guest| guest.vm.pause_mask.load(Ordering::SeqCst) == 0;
                match outcome {
                    Outcome::StaysHere(_) => {
                        assert!(kind != Kind::HandOver && kind != Kind::Running, "{case}");
                        assert!(received.is_err(), "{case}: both sides have the guest");
                        assert!(runs(&from) && !runs(&to), "{case}");
                        assert_eq!(from.vm.log_active.load(Ordering::SeqCst), 0, "{case}");
                    }
                    Outcome::Unclear(_) => {
                        // What was handed over whole runs there, and nothing else does.
                        let there = match (kind, trouble) {
                            (Kind::Running, _) | (Kind::Accepted, Trouble::Twice) => true,
                            (Kind::HandOver, _) | (Kind::Final, Trouble::Twice) => false,
                            _ => panic!("{case}: unclear before the hand-over"),
                        };
                        assert_eq!((runs(&from), runs(&to)), (false, there), "{case}");
                        from.vm.unpause(pause::MIGRATOR);
                    }
                    // Nobody reads a second copy of the last frame of a direction.
                    Outcome::Completed(_) => {
                        assert!(trouble == Trouble::Twice, "{case}");
                        assert!(kind == Kind::HandOver || kind == Kind::Running, "{case}");
                        assert!(!runs(&from) && runs(&to), "{case}");
                        from.vm.unpause(pause::MIGRATOR);
                    }
                }
            }
        }
    });
}

/// The source against a destination that answers as `answer` does.
fn against(answer: impl FnOnce(&mut Peer) + Send) -> String {
    let (from, sockets) = (Guest::new("against"), connected());
    std::thread::scope(|scope| {
        scope.spawn(|| answer(&mut peer(sockets.1, &Arc::default())));
        let cancelled = Arc::default();
        let outcome =
            send(&from.local, || Ok(peer(sockets.0, &cancelled)), &limits(), &cancelled, &mut |_| {});
        let Outcome::StaysHere(error) = outcome else { panic!("{outcome:?}") };
        assert_eq!(from.vm.log_active.load(Ordering::SeqCst), 0);
        format!("{error:#}")
    })
}

#[test]
fn versions_that_do_not_meet_say_so() {
    let newer = against(|peer| {
        let _: Offer = peer.expect(Kind::Offer).expect("an offer");
        let agreement = Agreement { version: 77, codecs: vec![Codec::Raw], program: "9.9".into() };
        peer.tell(Kind::Agreement, &agreement).expect("told");
    });
    assert!(newer.contains("version 77, which was not offered"), "{newer}");
    let stranger = against(|peer| {
        let offer: Offer = peer.expect(Kind::Offer).expect("an offer");
        let reason =
            Offer { versions: vec![77], ..offer }.agree().expect_err("nothing in common").to_string();
        peer.tell(Kind::Refused, &Refused { reason }).expect("told");
    });
    assert!(stranger.contains("no stream version in common") && stranger.contains("[77]"), "{stranger}");
}
