//! The bytes of every frame and message, frozen in `wire.txt`: what this build writes is what is written there, and
//! what is written there is what it reads. A change of these bytes is a new version of the stream.
#![forbid(unsafe_code)]

use quasar_migrator::frame::{FrameReader, FrameWriter, Kind};
use quasar_migrator::message::{
    Accepted, Agreement, Codec, Door, Final, HandOver, Lane, Machine, Offer, Refused, RoundEnd, Running,
    StatePayload, decode, encode,
};
use quasar_migrator::pages::{Batch, Packer, Unpacked, Unpacker};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

const FROZEN: &str = include_str!("wire.txt");

/// Checks that bytes are a message.
type Look = Box<dyn Fn(&[u8])>;

/// A frame: its name, kind and payload, and what its payload must be read as.
struct Sample {
    name: &'static str,
    kind: Kind,
    payload: Vec<u8>,
    look: Look,
}

fn message<T>(name: &'static str, kind: Kind, message: T) -> Sample
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + 'static,
{
    let payload = encode(&message).expect("encode");
    let look = move |bytes: &[u8]| assert_eq!(decode::<T>(bytes).expect("decode"), message, "{name}");
    Sample { name, kind, payload, look: Box::new(look) }
}

/// Two pages, the second zero.
fn batch(differences: bool) -> Batch {
    let mut batch = Batch { area: 3, differences, ..Batch::default() };
    let page: Vec<u8> = (0..=255).cycle().take(4096).collect();
    batch.push(0x0102_0304, &page);
    batch.push(7, &[0; 4096]);
    batch
}

fn pages(name: &'static str, codec: Codec, differences: bool) -> Sample {
    let payload = Packer::new(1).pack(&batch(differences), codec, vec![]);
    let look = move |bytes: &[u8]| {
        let Batch { area, pages, differences, bytes: content } = batch(differences);
        let expected = Unpacked { area, pages, differences, bytes: &content };
        assert_eq!(Unpacker::default().unpack(bytes).expect("decode"), expected, "{name}");
    };
    Sample { name, kind: Kind::Pages, payload, look: Box::new(look) }
}

fn samples() -> Vec<Sample> {
    let state =
        |name: &str, bytes: &[u8]| StatePayload { name: name.into(), version: 1, bytes: bytes.to_vec() };
    let hash = [0xa5; 32];
    let machine = Machine {
        description: r#"{"version":1}"#.into(),
        ram_bytes: 8 << 30,
        harts: 300,
        disks: vec![(0, 4096), (7, 1 << 40)],
    };
    let codecs = vec![Codec::Raw, Codec::Lz4, Codec::Zstd];
    let offer = Offer { versions: vec![1, 2], codecs: codecs.clone(), program: "0.1.0".into() };
    vec![
        message("offer", Kind::Offer, offer),
        message("agreement", Kind::Agreement, Agreement { version: 2, codecs, program: "0.1.0".into() }),
        message("machine", Kind::Machine, machine),
        message("ready", Kind::Ready, ()),
        pages("pages raw", Codec::Raw, false),
        pages("pages lz4", Codec::Lz4, false),
        pages("pages zstd", Codec::Zstd, false),
        pages("pages raw differences", Codec::Raw, true),
        pages("pages lz4 differences", Codec::Lz4, true),
        message("round end", Kind::RoundEnd, RoundEnd { round: 1, pages: 70_000, last: false }),
        message("round taken", Kind::RoundTaken, ()),
        message("last round end", Kind::RoundEnd, RoundEnd { round: 2, pages: 5, last: true }),
        message("state", Kind::State, state("hart0", &[0, 1, 0xff])),
        message("empty state", Kind::State, state("device15", &[])),
        message("final", Kind::Final, Final { hash, payloads: 2 }),
        message("accepted", Kind::Accepted, Accepted { hash }),
        message("hand over", Kind::HandOver, HandOver { paused_ns: 1_234_567 }),
        message("running", Kind::Running, Running { downtime_ns: 4_000_000_000 }),
        message("refused", Kind::Refused, Refused { reason: "no room".into() }),
        // Version 3.
        message("ready with a door", Kind::Ready, Door { port: 40_000, key: [0x5a; 16] }),
        message("lane", Kind::Lane, Lane { key: [0x5a; 16] }),
    ]
}

/// How the frozen file shows a stream: a line per frame, its name and its bytes.
fn shown(name: &str, bytes: &[u8]) -> String {
    // A page's bytes would hide the others.
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}: {hex}\n")
}

fn frozen() -> Vec<(&'static str, Vec<u8>)> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
    let line = |line: &'static str| {
        let (name, hex) = line.split_once(": ").expect("name: bytes");
        (name, hex.as_bytes().chunks(2).map(byte).collect())
    };
    FROZEN.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

/// Whether a compressor chose the bytes: another release of it may choose others, and all can be read.
fn is_compressed(name: &str) -> bool {
    name.contains("lz4") || name.contains("zstd")
}

#[test]
fn what_is_written_is_what_is_frozen() {
    let frozen = frozen();
    let samples = samples();
    assert_eq!(frozen.len(), samples.len(), "{}", written());
    // Each frame has its own place in the stream, so that a compressor's choice changes no other line.
    for (number, (sample, (name, bytes))) in samples.iter().zip(&frozen).enumerate() {
        assert_eq!(sample.name, *name);
        if !is_compressed(name) {
            assert_eq!(shown(name, &frame(number, sample)), shown(name, bytes), "all of it:\n{}", written());
        }
    }
}

/// A sample as frame number `number` of a stream.
fn frame(number: usize, sample: &Sample) -> Vec<u8> {
    let mut writer = FrameWriter::new(Vec::new());
    for _ in 0..number {
        writer.write(Kind::Ready, &[]).expect("write");
    }
    let before = writer.get_mut().len();
    writer.write(sample.kind, &sample.payload).expect("write");
    writer.get_mut().split_off(before)
}

/// The frozen file as this build would write it.
fn written() -> String {
    samples().iter().enumerate().map(|(number, sample)| shown(sample.name, &frame(number, sample))).collect()
}

#[test]
fn what_is_frozen_is_read() {
    let stream: Vec<u8> = frozen().into_iter().flat_map(|(_, bytes)| bytes).collect();
    let mut reader = FrameReader::new(&stream[..]);
    let mut kinds = std::collections::BTreeSet::new();
    for sample in samples() {
        let (kind, payload) = reader.read().expect(sample.name);
        assert_eq!(kind, sample.kind, "{}", sample.name);
        (sample.look)(&payload);
        kinds.insert(kind as u16);
    }
    assert!(reader.read().is_err(), "something is behind the last frame");
    // Every kind there is has its line.
    let all: Vec<u16> = (0..=u16::MAX).filter(|kind| Kind::try_from(*kind).is_ok()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
}
