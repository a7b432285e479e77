//! The bytes on the wire, frozen: every kind of frame, and batches of pages in every form.

use quasar_abi::ram::PAGE_LEN;
use quasar_migrator::frame::{FrameReader, FrameWriter, Kind};
use quasar_migrator::message::{
    Accepted, Agreement, Codec, Final, HandOver, Machine, Offer, Refused, RoundEnd, Running, StatePayload,
    decode, encode,
};
use quasar_migrator::pages::Batch;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    text.as_bytes().chunks(2).map(digit).collect()
}

/// The message in a first frame is these bytes, and these bytes are the message.
#[track_caller]
fn frozen<T: Serialize + DeserializeOwned + PartialEq + Debug>(kind: Kind, message: &T, golden: &str) {
    let mut written = vec![];
    FrameWriter::new(&mut written).write(kind, &encode(message).expect("encode")).expect("write");
    assert_eq!(hex(&written), golden, "{kind:?} is written otherwise");
    let (read, payload) = FrameReader::new(&unhex(golden)[..]).read().expect("read");
    assert_eq!((read, &decode::<T>(&payload).expect("decode")), (kind, message));
}

#[test]
fn frames_keep_their_bytes() {
    let codecs = || vec![Codec::Raw, Codec::Lz4, Codec::Zstd];
    frozen(
        Kind::Offer,
        &Offer { versions: vec![1, 2], codecs: codecs(), program: "0.1.0".into() },
        "514d4631010000000d0000000000000015a1d273fd22ec7f0201020300010205302e312e30",
    );
    frozen(
        Kind::Agreement,
        &Agreement { version: 2, codecs: codecs(), program: "0.1.0".into() },
        "514d4631020000000b00000000000000a9873c2bbe59e002020300010205302e312e30",
    );
    frozen(
        Kind::Machine,
        &Machine { description: "{}".into(), ram_bytes: 512 << 20, harts: 2, disks: vec![(1, 1 << 30)] },
        "514d4631030000001000000000000000895a323e58d82c22027b7dfc00000020020101fc00000040",
    );
    frozen(Kind::Ready, &(), "514d4631040000000000000000000000465ea0fd02ccade8");
    frozen(
        Kind::RoundEnd,
        &RoundEnd { round: 3, pages: 70_000, last: true },
        "514d46310600000007000000000000009e85cb230486e99503fc7011010001",
    );
    frozen(Kind::RoundTaken, &(), "514d4631070000000000000000000000c76a80f28b60e475");
    frozen(
        Kind::State,
        &StatePayload { name: "hart0".into(), version: 1, bytes: vec![0xab; 5] },
        "514d4631080000000d00000000000000bab307d22d6829430568617274300105ababababab",
    );
    frozen(
        Kind::Final,
        &Final { hash: [0x5a; 32], payloads: 9 },
        "514d46310900000021000000000000001f7b79bde162781b5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a09",
    );
    frozen(
        Kind::Accepted,
        &Accepted { hash: [0x5a; 32] },
        "514d46310a000000200000000000000048ecbc823965056c5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
    );
    frozen(
        Kind::HandOver,
        &HandOver { paused_ns: 2_500_000 },
        "514d46310b0000000500000000000000fe0640324f4bcf5efca0252600",
    );
    frozen(
        Kind::Running,
        &Running { downtime_ns: 3_000_000_000 },
        "514d46310c00000005000000000000008e6b58797d48390ffc005ed0b2",
    );
    frozen(
        Kind::Refused,
        &Refused { reason: "no room".into() },
        "514d46310d0000000800000000000000cee80c3c2ee73109076e6f20726f6f6d",
    );
}

/// Area 2: page 5 of sevens, page 6 of zeroes, page 300 of bytes that count up to 250.
fn batch(differences: bool) -> Batch {
    let mut batch = Batch { area: 2, differences, ..Batch::default() };
    batch.push(5, &[7; PAGE_LEN]);
    batch.push(6, &[0; PAGE_LEN]);
    let counting: Vec<u8> = (0..=250).cycle().take(PAGE_LEN).collect();
    batch.push(300, &counting);
    batch
}

#[test]
fn batches_of_pages_keep_their_bytes() {
    for (differences, head) in [(false, "02000300"), (true, "02800300")] {
        let raw = batch(differences).encode(Codec::Raw, 1);
        let indices = "0a000000000000000d000000000000005802000000000000";
        assert_eq!(hex(&raw[..28]), format!("{head}{indices}"));
        assert!(raw[28..] == batch(differences).bytes, "the pages follow as they are");
    }
    // Compressors may do better one day; what they wrote must be read for ever.
    for golden in [
        "020103000a000000000000000d0000000000000058020000000000001f070100fffffffffffffffffffffffffffffffbffec000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafb00fffffffffffffffffffffffffffffa604a4b4c4d4e4f",
        "020203000a000000000000000d00000000000000580200000000000028b52ffd60001f550800d40f0707000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fa02007b81fb8d2ff7ef032c",
    ] {
        assert_eq!(Batch::decode(&unhex(golden)).expect("decode"), batch(false));
    }
}
