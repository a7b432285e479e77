//! Senders who know the frames but not the rules: none makes the destination run anything.

use crate::guest::{DISK, Guest, RAM};
use crate::wire::{connected, peer};
use quasar_abi::control::migrator::LocalVm;
use quasar_abi::hash::{self, AreaHashes};
use quasar_abi::machine::RAM_BASE;
use quasar_abi::vm::pause;
use quasar_migrator::connection::Peer;
use quasar_migrator::destination::{self, Obstacle};
use quasar_migrator::frame::{FrameWriter, Kind};
use quasar_migrator::message::{Codec, Final, HandOver, Machine, Offer, RoundEnd, StatePayload, encode};
use quasar_migrator::pages::{Batch, Packer};
use quasar_migrator::source::AttachedVm;
use quasar_migrator::state::gather;
use serde::Serialize;
use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[test]
fn strangers_are_shown_the_door() {
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\nxxxxxxxxxxxxxxxx"[..], &[0; 64], &[0xff; 200]] {
        let (mut client, server) = connected();
        client.write_all(garbage).expect("write");
        let mut peer = peer(server, &Arc::default());
        let unasked = |_: &_| -> anyhow::Result<LocalVm> { panic!("asked to prepare for a stranger") };
        assert!(destination::receive(&mut peer, None, unasked, &Obstacle::default(), &mut |_| {}).is_err());
    }
}

type Word = (Kind, Vec<u8>);

fn word<T: Serialize>(kind: Kind, message: &T) -> Word {
    (kind, encode(message).expect("encode"))
}

/// A round of so many pages that is over.
fn round(round: u32, pages: u64, last: bool) -> Word {
    word(Kind::RoundEnd, &RoundEnd { round, pages, last })
}

/// Pages of an area, each with its first byte.
fn pages(area: u8, indices: &[(u64, u8)]) -> Word {
    let mut batch = Batch { area, ..Batch::default() };
    for (index, byte) in indices {
        batch.push(*index, &[*byte; 4096]);
    }
    (Kind::Pages, Packer::new(1).pack(&batch, Codec::Raw, vec![]))
}

/// The state of a guest that has not run yet, and the words that end its journey.
fn end(state: &[StatePayload]) -> Vec<Word> {
    let encoded: Vec<Vec<u8>> = state.iter().map(|part| encode(part).expect("encode")).collect();
    let areas = [AreaHashes::new(0, RAM), AreaHashes::new(3, DISK)];
    let hash = hash::whole(areas.iter(), encoded.iter().map(Vec::as_slice));
    let last = Final { hash, payloads: u32::try_from(encoded.len()).expect("small") };
    let state = encoded.into_iter().map(|part| (Kind::State, part));
    state.chain([word(Kind::Final, &last), word(Kind::HandOver, &HandOver { paused_ns: 1 })]).collect()
}

/// What a guest is described as, and what its state is.
fn honest(guest: &Guest) -> (Machine, Vec<StatePayload>) {
    let attached = AttachedVm::open(&guest.local, false).expect("attach");
    let state = gather(&attached.vm, &attached.state_segments()).expect("state");
    (attached.machine(&guest.local), state)
}

/// Says these words to a destination; returns why it did not like them.
fn say(to: &Guest, machine: &Machine, words: Vec<Word>) -> Result<(), String> {
    to.vm.pause(pause::MIGRATOR);
    let (mut client, server) = connected();
    let mut out = FrameWriter::new(Vec::new());
    let before = [word(Kind::Offer, &Offer::ours()), word(Kind::Machine, machine)];
    for (kind, payload) in before.into_iter().chain(words) {
        out.write(kind, &payload).expect("write");
    }
    // It may hang up in the midst of it.
    drop(client.write_all(out.get_mut()));
    drop(client.shutdown(Shutdown::Write));
    let mut peer: Peer = peer(server, &Arc::default());
    let result =
        destination::receive(&mut peer, None, |_| Ok(to.local.clone()), &Obstacle::default(), &mut |_| {});
    let runs = to.vm.pause_mask.load(Ordering::SeqCst) == 0;
    assert_eq!(runs, result.is_ok(), "{result:?}");
    result.map_err(|error| format!("{error:#}"))
}

#[test]
fn frames_that_break_the_rules_are_refused_by_name() {
    let from = Guest::new("rules");
    let (machine, state) = honest(&from);
    let last_page = RAM / 4096 - 1;
    let honest_end = || [vec![round(0, 0, true)], end(&state)].concat();
    // So it is taken: what follows fails for its own reasons.
    say(&Guest::new("rules"), &machine, honest_end()).expect("an honest journey");
    let cases: Vec<(&str, Vec<Word>)> = vec![
        ("State came where Final was due", vec![word(Kind::State, &state[0])]),
        ("HandOver came where Final was due", vec![word(Kind::HandOver, &HandOver { paused_ns: 0 })]),
        ("Offer came where Final was due", vec![word(Kind::Offer, &Offer::ours())]),
        ("Pages came where Final was due", vec![round(0, 0, true), pages(0, &[(1, 1)])]),
        ("RoundEnd came where Final was due", vec![round(0, 0, true), round(1, 0, true)]),
        ("0 parts of the state came", end(&[])),
        ("round 0 with 0 pages came, 0 with 7", vec![round(0, 7, false)]),
        ("round 0 with 0 pages came, 3 with 0", vec![round(3, 0, false)]),
        ("round 0 with 1 pages came, 0 with 0", vec![pages(0, &[(1, 1)]), round(0, 0, false)]),
        ("area 9", vec![pages(9, &[(1, 1)]), round(0, 1, true)]),
        ("page 8192 of area 0", vec![pages(0, &[(last_page + 1, 1)]), round(0, 1, true)]),
        ("page 9223372036854775807 of area 0", vec![pages(0, &[(u64::MAX >> 1, 1)]), round(0, 1, true)]),
        ("page 1024 of area 3", vec![pages(3, &[(DISK / 4096, 1)]), round(0, 1, true)]),
        ("malformed batch", vec![(Kind::Pages, vec![]), round(0, 0, true)]),
        ("malformed batch", vec![(Kind::Pages, vec![0, 0, 0, 0]), round(0, 0, true)]),
        ("malformed batch", vec![(Kind::Pages, vec![0, 0, 65, 0]), round(0, 65, true)]),
        (
            "does not decompress",
            vec![(Kind::Pages, [&[0, 2, 1, 0], &[2; 20][..]].concat()), round(0, 1, true)],
        ),
        // A page more than the hash knows of.
        ("is not the source's", [vec![pages(0, &[(1, 1)]), round(0, 1, true)], end(&state)].concat()),
        ("gave up: so be it", vec![word(Kind::Refused, &"so be it")]),
        ("the stream is cut", vec![]),
        ("never handed over", {
            let mut words = honest_end();
            words.pop();
            words
        }),
        ("never handed over", {
            let mut words = honest_end();
            words.pop();
            words.extend([word(Kind::Final, &0u8), word(Kind::HandOver, &HandOver { paused_ns: 0 })]);
            words
        }),
    ];
    for (words, script) in cases {
        let to = Guest::new("rules");
        let kinds: Vec<Kind> = script.iter().map(|(kind, _)| *kind).collect();
        let error = say(&to, &machine, script).expect_err("it was taken");
        assert!(error.contains(words), "{words:?} is not in {error:?} ({kinds:?})");
    }
    // Another machine than the one that was made for it.
    for other in [
        Machine { ram_bytes: RAM * 2, ..machine.clone() },
        Machine { harts: 2, ..machine.clone() },
        Machine { disks: vec![], ..machine.clone() },
        Machine { disks: vec![(2, DISK + 1)], ..machine.clone() },
    ] {
        let error = say(&Guest::new("rules"), &other, honest_end()).expect_err("it was taken");
        assert!(error.contains("is not the one that comes"), "{error}");
    }
}

#[test]
fn a_state_that_is_not_wholly_understood_is_refused_by_name() {
    let from = Guest::new("state");
    from.ram.fill(RAM_BASE, 0, 4096).expect("RAM");
    let (machine, state) = honest(&from);
    let refused = |words: &str, state: &[StatePayload]| {
        let script = [vec![round(0, 0, true)], end(state)].concat();
        let error = say(&Guest::new("state"), &machine, script).expect_err("it was taken");
        assert!(error.contains(words), "{words:?} is not in {error:?}");
    };
    for (index, part) in state.iter().enumerate() {
        let name = &part.name;
        let with = |change: &dyn Fn(&mut StatePayload)| {
            let mut state = state.clone();
            change(&mut state[index]);
            state
        };
        let mut without = state.clone();
        without.remove(index);
        if !name.starts_with("device") {
            refused(&format!("no part {name:?}"), &without);
        }
        refused(
            &format!("part {name:?} of the state came twice"),
            &[&state[..], std::slice::from_ref(part)].concat(),
        );
        refused(&format!("{name:?} of the state has version 2"), &with(&|part| part.version = 2));
        refused(&format!("{name:?} of the state is malformed"), &with(&|part| part.bytes.truncate(5)));
        if !name.starts_with("device") {
            refused(&format!("{name:?} of the state is malformed"), &with(&|part| part.bytes.push(0)));
        }
    }
    let stranger = StatePayload { name: "soul".into(), version: 1, bytes: vec![1] };
    refused(r#"["soul"]"#, &[&state[..], &[stranger]].concat());
    // More parts than any machine has.
    let many: Vec<_> =
        (0..1001).map(|n| StatePayload { name: n.to_string(), version: 1, bytes: vec![] }).collect();
    refused("State came where Final was due", &many);
}
