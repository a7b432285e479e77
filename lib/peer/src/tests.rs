//! Strangers over real connections.

use crate::knock::{hear, hear_stranger, knock};
use crate::{HANDSHAKE, HOST_NAME, Protection, Strangers, TrustError};
use quasar_abi::control::migrator::{FRAME_HEADER, OFFER, STREAM_MAGIC, Security};
use quasar_abi::words::whole;
use rustls::{ClientConnection, Connection};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn authority(dir: &Path, name: &str) -> Security {
    let mut params = rcgen::CertificateParams::new(vec![]).expect("parameters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let key = rcgen::KeyPair::generate().expect("key");
    let root = params.self_signed(&key).expect("certificate");
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().expect("key");
    let params = rcgen::CertificateParams::new(vec![HOST_NAME.to_owned()]).expect("parameters");
    let host = params.signed_by(&key, &issuer).expect("certificate");
    let write = |what: &str, text: String| {
        let path = dir.join(format!("{name}.{what}"));
        std::fs::write(&path, text).expect("write");
        path
    };
    Security::MutualTls {
        authority: write("ca", root.pem()),
        certificate: write("pem", host.pem()),
        key: write("key", key.serialize_pem()),
    }
}

/// Hosts of one authority, of another, and of another that trusts the first.
fn authorities() -> [Protection; 3] {
    let dir = tempfile::tempdir().expect("a directory");
    let [ours, theirs] = ["ours", "theirs"].map(|name| authority(dir.path(), name));
    let mut half = theirs.clone();
    let (Security::MutualTls { authority: of_half, .. }, Security::MutualTls { authority: of_ours, .. }) =
        (&mut half, &ours)
    else {
        panic!("no TLS")
    };
    of_half.clone_from(of_ours);
    [ours, theirs, half].map(|security| Protection::load(&security).expect("keys"))
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
    let caller = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    (caller, listener.accept().expect("accept").0)
}

fn soon() -> Instant {
    Instant::now() + HANDSHAKE
}

/// Both ends of a knock, and of the handshake behind it.
fn both(
    caller: &Protection,
    host: &Protection,
) -> (Result<Option<Connection>, String>, Result<Option<Connection>, String>) {
    let (to, from) = pair();
    std::thread::scope(|scope| {
        let heard = scope.spawn(move || {
            hear(host, &from, soon())?;
            host.secure(&from, false, soon())
        });
        let knocked = knock(caller, &to, soon());
        drop(to);
        let words = |error: TrustError| whole(&error);
        (knocked.map_err(words), heard.join().expect("thread").map_err(words))
    })
}

#[test]
fn a_knock_is_one_proof_and_the_talk_behind_it_another() {
    let [ours, theirs, half] = authorities();
    let (knocked, heard) = both(&ours, &ours);
    let (knocked, heard) = (knocked.expect("in"), heard.expect("in"));
    assert!(knocked.is_some_and(|tls| tls.alpn_protocol().is_none()) && heard.is_some());
    // Each side refuses the other, and says so.
    let (knocked, heard) = both(&theirs, &ours);
    assert!(knocked.expect_err("a stranger").contains("did not prove to be a host"));
    assert!(heard.expect_err("a stranger").contains("did not prove to be a host"));
    // One that trusts us, but whom we do not trust.
    let (knocked, heard) = both(&half, &ours);
    let knocked = knocked.expect_err("nobody");
    assert!(knocked.contains("does not take us for a host"), "{knocked}");
    assert!(heard.expect_err("nobody").contains("did not prove to be a host"));
}

#[test]
fn a_host_that_is_older_is_understood_when_it_is_called_and_refused_when_it_calls() {
    let [ours, ..] = authorities();
    let (to, from) = pair();
    std::thread::scope(|scope| {
        let older = scope.spawn(|| ours.secure(&from, false, soon()));
        assert!(knock(&ours, &to, soon()).expect("a host").is_some());
        assert!(older.join().expect("thread").expect("a host").is_some());
    });
    let (to, from) = pair();
    std::thread::scope(|scope| {
        let older = scope.spawn(|| ours.secure(&to, true, soon()));
        let error = hear(&ours, &from, soon()).expect_err("it did not knock");
        assert!(matches!(error, TrustError::NoKnock), "{error}");
        drop(older.join());
    });
}

/// The first words of a caller.
fn hello(protection: &Protection) -> Vec<u8> {
    let Protection::Tls { client, .. } = protection else {
        return [&STREAM_MAGIC[..], &OFFER.to_le_bytes(), &[0; 2], &100u32.to_le_bytes(), &[7; 112]].concat();
    };
    let name = rustls::pki_types::ServerName::try_from(HOST_NAME).expect("a name");
    let mut tls = ClientConnection::new(Arc::clone(client), name).expect("a caller");
    let mut bytes = vec![];
    while tls.wants_write() {
        tls.write_tls(&mut bytes).expect("bytes");
    }
    bytes
}

#[test]
fn the_whole_proof_has_one_deadline_however_slowly_it_comes() {
    let [ours, ..] = authorities();
    for protection in [&ours, &Protection::Insecure] {
        let (mut to, from) = pair();
        let words = hello(protection);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Until nobody takes it any more. All of it takes longer than the deadline.
                for byte in words.iter().cycle().take(5000) {
                    std::thread::sleep(Duration::from_millis(10));
                    if to.write_all(&[*byte]).is_err() {
                        return;
                    }
                }
            });
            let by = begun + Duration::from_millis(400);
            let late = hear(protection, &from, by).expect_err("it came too slowly");
            assert!(matches!(late, TrustError::Unproved { .. } | TrustError::NoMigrator(_)), "{late}");
            drop(from);
        });
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}

#[test]
fn without_tls_a_whole_first_message_is_waited_for_and_left_there() {
    let words = hello(&Protection::Insecure);
    assert_eq!(words.len(), FRAME_HEADER + 100);
    let (mut to, mut from) = pair();
    std::thread::scope(|scope| {
        let sent = words.clone();
        let mut to = to.try_clone().expect("clone");
        scope.spawn(move || {
            for part in sent.chunks(50) {
                std::thread::sleep(Duration::from_millis(30));
                to.write_all(part).expect("write");
            }
        });
        hear(&Protection::Insecure, &from, soon()).expect("a migrator");
    });
    to.write_all(b"more").expect("write");
    let mut all = vec![0; words.len() + 4];
    from.read_exact(&mut all).expect("read");
    assert_eq!((&all[..words.len()], &all[words.len()..]), (&words[..], &b"more"[..]));
    let mut long = words.clone();
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut other = words.clone();
    other[4] = 3;
    for odd in [&b"GET / HTTP/1.1"[..], b"Q!", &long, &other] {
        let (mut to, from) = pair();
        to.write_all(odd).expect("write");
        let by = Instant::now() + Duration::from_secs(3600);
        assert!(hear(&Protection::Insecure, &from, by).is_err(), "{odd:?}");
    }
}

/// A door, and how many have come in by it.
fn door(protection: &Protection) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("listen");
    let address = listener.local_addr().expect("address");
    let (strangers, inside) = (Arc::<Strangers>::default(), Arc::<AtomicUsize>::default());
    let (count, protection) = (Arc::clone(&inside), protection.clone());
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (strangers, protection, count) =
                (Arc::clone(&strangers), protection.clone(), Arc::clone(&count));
            std::thread::spawn(move || {
                if hear_stranger(&strangers, &protection, &socket).is_ok() {
                    count.fetch_add(1, Ordering::SeqCst);
                    let _inside = protection.secure(&socket, false, soon());
                }
            });
        }
    });
    (address, inside)
}

#[test]
fn hosts_come_in_however_many_strangers_stand_in_front_of_the_door() {
    let [ours, theirs, _] = authorities();
    let (address, inside) = door(&ours);
    let port = address.port();
    let at = |last: u8| TcpStream::connect((IpAddr::from([127, 0, 0, last]), port)).expect("connect");
    let words = hello(&theirs);
    let mut crowd = vec![];
    for n in 0..200usize {
        let mut stranger = at(1);
        // Silent, garbage, in the midst of a handshake, gone.
        match n % 4 {
            0 => {}
            1 => drop(stranger.write_all(b"GET / HTTP/1.1\r\n")),
            2 => drop(stranger.write_all(&words[..words.len() / 2])),
            _ => drop(stranger.shutdown(std::net::Shutdown::Write)),
        }
        crowd.push(stranger);
        if n % 20 == 0 {
            knock(&ours, &at(1), soon()).expect("a host comes in");
            knock(&theirs, &at(1), soon()).expect_err("a stranger stays outside");
        }
    }
    assert_eq!(inside.load(Ordering::SeqCst), 10);
}
