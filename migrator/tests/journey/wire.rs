//! Both roles over a connection.

use crate::guest::Guest;
use quasar_abi::control::migrator::{Converge, Limits, MigrationEvent};
use quasar_abi::vm::pause;
use quasar_migrator::connection::{Peer, Stream, prepare};
use quasar_migrator::destination::{self, Obstacle};
use quasar_migrator::lanes::{Connect, Doorway};
use quasar_migrator::source::{Outcome, send};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How long a side waits for the other: enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(3);

pub fn limits() -> Limits {
    Limits {
        max_downtime_us: 20_000,
        bandwidth: 0,
        timeout_s: 60,
        converge: Converge::Pause,
        delta_bytes: None,
        connections: 1,
    }
}

pub fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    (client, listener.accept().expect("accept").0)
}

/// A connection as a role takes it.
pub fn plain(socket: TcpStream) -> Box<dyn Stream> {
    prepare(&socket).expect("socket");
    Box::new(socket)
}

pub fn peer(socket: TcpStream, cancelled: &Arc<AtomicBool>) -> Peer {
    Peer::new(plain(socket), cancelled, PATIENCE)
}

/// No further connections.
pub fn alone(_: u16) -> anyhow::Result<Box<dyn Stream>> {
    anyhow::bail!("one connection is enough")
}

/// Migrates over the given sockets; returns how it ended on both sides, and the source's events.
pub fn migrate(
    from: &Guest,
    to: &Guest,
    sockets: (TcpStream, TcpStream),
    limits: &Limits,
    cancelled: &Arc<AtomicBool>,
    seen: impl FnMut(&MigrationEvent),
) -> (Outcome, anyhow::Result<()>, Vec<MigrationEvent>) {
    let source = peer(sockets.0, cancelled);
    migrate_by(from, to, (source, sockets.1), &alone, limits, cancelled, seen)
}

/// The same with further connections, which `further` makes.
pub fn migrate_by(
    from: &Guest,
    to: &Guest,
    (source, socket): (Peer, TcpStream),
    further: Connect<'_>,
    limits: &Limits,
    cancelled: &Arc<AtomicBool>,
    mut seen: impl FnMut(&MigrationEvent),
) -> (Outcome, anyhow::Result<()>, Vec<MigrationEvent>) {
    to.vm.pause(pause::MIGRATOR);
    let mut events = vec![];
    let (outcome, received) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let doorway = Doorway::beside(&socket, Box::new(|socket| Ok(plain(socket)))).expect("port");
            let mut peer = peer(socket, &Arc::default());
            destination::receive(
                &mut peer,
                Some(doorway),
                |_| Ok(to.local.clone()),
                &Obstacle::default(),
                &mut |_| {},
            )
        });
        let outcome = send(&from.local, || Ok(source), further, limits, cancelled, &mut |event| {
            seen(&event);
            events.push(event);
        });
        (outcome, receiver.join().expect("receiver"))
    });
    (outcome, received, events)
}
