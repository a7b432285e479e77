//! Several connections where one does not fill the link. Pages travel over all of them, everything else over the first.
//!
//! The destination, when it is ready, names a port of its own and a key ([`crate::message::Door`]). The source begins
//! with the connection it has. When that mostly waits for the link it opens another, a *lane*, and so on as long as the
//! last one made all of them faster. A lane begins with the key, the destination's answer to it, and carries frames of
//! pages in one direction from then on, numbered and hashed as on the first connection. A round is over when as many pages
//! have arrived as its end announces, whichever way they came; a lane that breaks breaks the migration.
//!
//! A port that cannot be reached (a firewall) leaves one connection, and a warning in the log.

use crate::connection::{Half, Peer, Stream};
use crate::frame::{FrameError, FrameWriter, Kind};
use crate::message::{Door, Lane as LaneKey};
use crate::pump::{Inlet, PumpError};
use anyhow::{Context, bail};
use parking_lot::{Mutex, MutexGuard};
use quasar_peer::{Strangers, Visit};
use std::io::{BufWriter, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long it takes to judge what connections carry.
const WINDOW: Duration = Duration::from_millis(100);
/// How often the destination looks for lanes.
const GLANCE: Duration = Duration::from_millis(5);
/// How long a side waits for the first words on a lane.
const FIRST_WORDS: Duration = Duration::from_secs(10);

/// A further connection as the source has it.
pub struct Lane {
    /// What is sent over it.
    pub out: FrameWriter<BufWriter<Half>>,
}

/// Connects to the port that the destination named.
pub type Connect<'a> = &'a (dyn Fn(u16) -> anyhow::Result<Box<dyn Stream>> + Sync);

/// The source's lanes.
pub struct Lanes<'a> {
    way: Option<(Connect<'a>, Door, Arc<AtomicBool>)>,
    state: Mutex<State>,
}

struct State {
    policy: LanePolicy,
    resting: Vec<Lane>,
}

impl<'a> Lanes<'a> {
    /// One connection alone.
    #[must_use]
    pub fn none() -> Self {
        Self { way: None, state: Mutex::new(State { policy: LanePolicy::new(1), resting: vec![] }) }
    }

    /// At most `most` connections, the first included, by way of `door`.
    #[must_use]
    pub fn new(connect: Connect<'a>, door: Door, most: u16, cancelled: &Arc<AtomicBool>) -> Self {
        if door.port == 0 {
            return Self::none();
        }
        let state = State { policy: LanePolicy::new(most), resting: vec![] };
        Self { way: Some((connect, door, Arc::clone(cancelled))), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Connections there are, the first included.
    pub fn connections(&self) -> u16 {
        self.state().policy.connections
    }

    /// Bytes that went over resting lanes: all of them between rounds.
    pub fn bytes(&self) -> u64 {
        self.state().resting.iter().map(|lane| lane.out.bytes()).sum()
    }

    /// The lanes there are, to carry a round.
    pub fn wake(&self) -> Vec<Lane> {
        let mut state = self.state();
        state.policy.begin(Instant::now());
        std::mem::take(&mut state.resting)
    }

    /// Takes a lane back.
    pub fn rest(&self, lane: Lane) {
        self.state().resting.push(lane);
    }

    /// Notes what one connection has written, and how long that took.
    pub fn wrote(&self, bytes: u64, took: Duration) {
        if self.way.is_some() {
            self.state().policy.wrote(bytes, took);
        }
    }

    /// Whether another lane is to be opened now. Who is told so calls [`Self::open`].
    pub fn another(&self) -> bool {
        self.way.is_some() && self.state().policy.another(Instant::now())
    }

    /// Opens another lane; nothing when that fails, which is not tried again.
    pub fn open(&self) -> Option<Lane> {
        let (connect, door, cancelled) = self.way.as_ref()?;
        let lane = knock(connect(door.port), door, cancelled);
        self.state().policy.opened(lane.is_ok(), Instant::now());
        lane.inspect_err(|error| {
            log::warn!(
                "no further connection to the other host: {}",
                quasar_abi::words::whole(error.as_ref())
            )
        })
        .ok()
    }
}

/// Begins a lane over a connection.
fn knock(
    connection: anyhow::Result<Box<dyn Stream>>,
    door: &Door,
    cancelled: &Arc<AtomicBool>,
) -> anyhow::Result<Lane> {
    let mut peer = Peer::new(connection?, cancelled, FIRST_WORDS);
    peer.tell(Kind::Lane, &LaneKey { key: door.key })?;
    let () = peer.expect(Kind::Ready)?;
    Ok(Lane { out: peer.out })
}

/// Decides how many connections there should be by what those there are carry.
struct LanePolicy {
    most: u16,
    connections: u16,
    begun: Instant,
    bytes: u64,
    waited: Duration,
    /// Bytes per second before the last lane was opened.
    before: Option<f64>,
    opening: bool,
    /// The last lane brought nothing, or could not be opened.
    content: bool,
}

impl LanePolicy {
    fn new(most: u16) -> Self {
        Self {
            most,
            connections: 1,
            begun: Instant::now(),
            bytes: 0,
            waited: Duration::ZERO,
            before: None,
            opening: false,
            content: false,
        }
    }

    fn begin(&mut self, now: Instant) {
        (self.begun, self.bytes, self.waited) = (now, 0, Duration::ZERO);
    }

    fn wrote(&mut self, bytes: u64, took: Duration) {
        self.bytes += bytes;
        self.waited += took;
    }

    fn opened(&mut self, well: bool, now: Instant) {
        self.opening = false;
        self.connections += u16::from(well);
        self.content |= !well;
        self.begin(now);
    }

    fn another(&mut self, now: Instant) -> bool {
        let took = now.saturating_duration_since(self.begun);
        if self.opening || self.content || self.connections >= self.most || took < WINDOW {
            return false;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = self.bytes as f64 / took.as_secs_f64();
        let waiting = self.waited.as_secs_f64() / (took.as_secs_f64() * f64::from(self.connections));
        self.begin(now);
        // A lane that brings less than a tenth is the last one.
        if self.before.is_some_and(|before| rate < before * 1.1) {
            self.content = true;
        } else if waiting > 0.5 {
            self.before = Some(rate);
            self.opening = true;
        }
        self.opening
    }
}

/// Takes the protection of a connection that arrived: TLS, or nothing on loopback.
pub type Accept = Box<dyn Fn(TcpStream) -> anyhow::Result<Box<dyn Stream>> + Send + Sync>;

/// Where a destination can be reached beside its first connection.
pub struct Doorway {
    listener: TcpListener,
    accept: Accept,
    door: Door,
}

impl Doorway {
    /// A free port at the address where `first` arrived.
    ///
    /// # Errors
    /// When there is none, or no randomness for a key.
    pub fn beside(first: &TcpStream, accept: Accept) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((first.local_addr()?.ip(), 0)).context("no port for lanes")?;
        listener.set_nonblocking(true)?;
        let door = Door { port: listener.local_addr()?.port(), key: quasar_abi::random::bytes()? };
        Ok(Self { listener, accept, door })
    }

    /// What the source is told.
    #[must_use]
    pub fn door(&self) -> Door {
        self.door
    }

    /// Takes lanes in until the answer is dropped.
    #[must_use]
    pub fn open(self, inlet: &Arc<Inlet>) -> LaneListener {
        let stop = Arc::<AtomicBool>::default();
        let (inlet, stopped) = (Arc::clone(inlet), Arc::clone(&stop));
        let thread = std::thread::spawn(move || self.watch(&inlet, &stopped));
        LaneListener { stop, thread: Some(thread) }
    }

    fn watch(&self, inlet: &Inlet, stop: &Arc<AtomicBool>) {
        let strangers = Arc::<Strangers>::default();
        std::thread::scope(|scope| {
            while !stop.load(Ordering::Acquire) {
                match self.listener.accept() {
                    Ok((socket, from)) => {
                        // It may be gone again already.
                        let Ok(visit) = strangers.admit(&socket) else { continue };
                        scope.spawn(move || {
                            if let Err(error) = self.take(socket, visit, inlet, stop) {
                                log::warn!("{from} is no further connection of this migration: {error:#}");
                            }
                        });
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(GLANCE),
                    Err(error) => {
                        log::warn!("further connections: {error}");
                        std::thread::sleep(GLANCE);
                    }
                }
            }
        });
    }

    /// Serves one lane to its end.
    fn take(
        &self,
        socket: TcpStream,
        visit: Visit,
        inlet: &Inlet,
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<()> {
        let mut peer = Peer::new((self.accept)(socket)?, stop, FIRST_WORDS);
        peer.finish_by(Some(Instant::now() + FIRST_WORDS));
        let LaneKey { key } = peer.expect(Kind::Lane)?;
        if key != self.door.key {
            bail!("it has another key");
        }
        if !visit.proved() {
            bail!("others took its place before it had shown its key");
        }
        peer.finish_by(None);
        // Between rounds a lane may be silent for as long as the first connection is not.
        peer.be_patient(Duration::MAX);
        inlet.lane_opened();
        if let Err(error) = peer.tell(Kind::Ready, &()) {
            inlet.lane_closed(None);
            return Err(error.into());
        }
        inlet.lane_closed(bring(&mut peer, inlet).filter(|_| !stop.load(Ordering::Acquire)));
        Ok(())
    }
}

/// Hands on what a lane brings until it ends. What is wrong with it, if it did not end between two frames.
fn bring(peer: &mut Peer, inlet: &Inlet) -> Option<PumpError> {
    loop {
        match peer.input.read_into(inlet.space()) {
            Ok((Kind::Pages, payload)) => inlet.push(payload),
            Ok((kind, _)) => return Some(PumpError::Lane(format!("{kind:?} came where pages were due"))),
            // Whether pages are missing shows at the end of the round.
            Err(FrameError::Ended { .. } | FrameError::Cut { .. }) => return None,
            Err(FrameError::Io(error)) if error.kind() == ErrorKind::UnexpectedEof => return None,
            Err(error) => return Some(PumpError::Lane(error.to_string())),
        }
    }
}

/// Keeps the way for lanes open; dropped, it ends them all.
pub struct LaneListener {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for LaneListener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections that come to exist over a link of which one connection gets `each` KB/s, all of them `all`, while they
    /// wait for it so many milliseconds in ten.
    fn connections(each: u64, all: u64, waiting: u64) -> u16 {
        let mut policy = LanePolicy::new(8);
        let mut now = Instant::now();
        policy.begin(now);
        for _ in 0..200 {
            now += Duration::from_millis(10);
            let rate = u64::min(each * u64::from(policy.connections), all);
            policy.wrote(rate * 10, Duration::from_millis(waiting * u64::from(policy.connections)));
            if policy.another(now) {
                policy.opened(true, now);
            }
        }
        policy.connections
    }

    #[test]
    fn there_are_as_many_as_carry_more() {
        assert_eq!(connections(10_000, 1_000_000, 9), 8, "each brings as much as the first");
        assert_eq!(connections(10_000, 30_000, 9), 4, "three fill it, the fourth shows that");
        assert_eq!(connections(100_000, 100_000, 9), 2, "one fills it, the second shows that");
        assert_eq!(connections(10_000, 1_000_000, 2), 1, "the link waits for pages");
    }

    #[test]
    fn one_that_cannot_be_opened_is_not_tried_again() {
        let mut policy = LanePolicy::new(8);
        let start = Instant::now();
        policy.begin(start);
        policy.wrote(1000, WINDOW);
        assert!(policy.another(start + WINDOW));
        assert!(!policy.another(start + WINDOW * 2), "while it is being opened");
        policy.opened(false, start + WINDOW * 2);
        policy.wrote(1000, WINDOW);
        assert!(!policy.another(start + WINDOW * 4));
    }
}
