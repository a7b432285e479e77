//! Connections that break or lie, refusals, strangers.

use crate::guest::{Guest, Manners, while_writing};
use crate::wire::{connected, limits, migrate, peer};
use quasar_abi::control::migrator::LocalVm;
use quasar_abi::vm::pause;
use quasar_migrator::destination;
use quasar_migrator::source::{Outcome, send};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A connection that is cut, or damaged, after so many bytes from source to destination.
fn troubled(after: usize, damage: bool) -> (TcpStream, TcpStream) {
    let (client, mut near) = connected();
    let (mut far, server) = connected();
    let (mut back_in, mut back_out) = (far.try_clone().expect("clone"), near.try_clone().expect("clone"));
    std::thread::spawn(move || std::io::copy(&mut back_in, &mut back_out));
    std::thread::spawn(move || {
        let (mut passed, mut chunk) = (0, vec![0; 65536]);
        while let Ok(n @ 1..) = near.read(&mut chunk) {
            if passed + n > after {
                if damage && passed <= after {
                    chunk[after - passed] ^= 0x40;
                } else if !damage {
                    let _ = far.write_all(&chunk[..after - passed]);
                    let _ = near.shutdown(std::net::Shutdown::Both);
                    let _ = far.shutdown(std::net::Shutdown::Both);
                    return;
                }
            }
            passed += n;
            if far.write_all(&chunk[..n]).is_err() {
                break;
            }
        }
        let _ = far.shutdown(std::net::Shutdown::Write);
    });
    (client, server)
}

#[test]
fn a_cut_or_damaged_connection_anywhere_leaves_exactly_one_whole_guest() {
    let from = Guest::new("trouble");
    while_writing(&from, Manners::Right, 200, || {
        for (number, after) in [0, 10, 30, 100, 300, 1000, 5_000, 40_000, 90_000].into_iter().enumerate() {
            for damage in [false, true] {
                let to = Guest::new("trouble");
                let (outcome, received, _) =
                    migrate(&from, &to, troubled(after, damage), &limits(), &Arc::default(), |_| {});
                match outcome {
                    Outcome::StaysHere(_) => {
                        assert!(received.is_err(), "case {number}: both sides have the guest");
                        assert_eq!(from.vm.pause_mask.load(Ordering::SeqCst), 0, "case {number}");
                        assert_ne!(to.vm.pause_mask.load(Ordering::SeqCst), 0, "case {number}");
                    }
                    // The stream was over before the trouble came.
                    Outcome::Completed(_) => {
                        received.expect("received");
                        from.vm.unpause(pause::MIGRATOR);
                    }
                    Outcome::Unclear(error) => panic!("case {number}: {error:#}"),
                }
            }
        }
    });
}

#[test]
fn a_refusal_reaches_the_user_with_its_reason() {
    let (from, sockets) = (Guest::new("refuse"), connected());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = peer(sockets.1, &Arc::default());
            let refuse = |_: &_| Err(anyhow::anyhow!("no room: 3 GiB of memory are free, 8 are needed"));
            assert!(destination::receive(&mut peer, refuse, &mut |_| {}).is_err());
        });
        let cancelled = Arc::default();
        let outcome =
            send(&from.local, || Ok(peer(sockets.0, &cancelled)), &limits(), &cancelled, &mut |_| {});
        let Outcome::StaysHere(error) = outcome else { panic!("{outcome:?}") };
        assert!(format!("{error:#}").contains("3 GiB of memory are free"), "{error:#}");
    });
}

#[test]
fn strangers_are_shown_the_door() {
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\nxxxxxxxxxxxxxxxx"[..], &[0; 64], &[0xff; 200]] {
        let (mut client, server) = connected();
        client.write_all(garbage).expect("write");
        let mut peer = peer(server, &Arc::default());
        let unasked = |_: &_| -> anyhow::Result<LocalVm> { panic!("asked to prepare for a stranger") };
        assert!(destination::receive(&mut peer, unasked, &mut |_| {}).is_err());
    }
}
