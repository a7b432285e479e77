//! Links to the switches of other hosts.
//!
//! One connection between two hosts carries every network that both have ([`session`]); it is protected by
//! [`secure`], and [`wire`] says what goes over it. A peer is a host of our authority, which may put any frame into
//! the networks that it shares with us; what it sends is checked like a stranger's all the same.

mod error;
mod networks;
pub mod outbox;
mod port;
pub mod secure;
pub mod session;
pub mod wire;

pub use error::{GreetError, LinkError};
pub use networks::{Networks, Way};
pub use port::LinkPort;

use nix::poll::{PollFd, PollFlags};
use parking_lot::Mutex;
use quasar_abi::control::migrator::Security;
use quasar_abi::control::netswitch::NetworkEvent;
use quasar_abi::eintr::poll;
use quasar_abi::report::{Direction, LinkReport};
use quasar_abi::words::whole;
use quasar_peer::{HANDSHAKE, Protection, Strangers, TrustError, Visit};
use secure::secure;
use session::Session;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wire::Instance;

/// First and longest pause between two attempts to connect.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Time for a TCP connection to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for the first word after that proof.
const HELLO: Duration = Duration::from_secs(4);

struct Dialler {
    to: String,
    security: Security,
    stop: Arc<AtomicBool>,
    session: Arc<Mutex<Option<Arc<Session>>>>,
    state: Arc<Mutex<String>>,
}

struct Listener {
    security: Security,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

/// All links of a switch.
pub struct Links {
    instance: Instance,
    sessions: Mutex<HashMap<Instance, Arc<Session>>>,
    diallers: Mutex<BTreeMap<String, Dialler>>,
    listeners: Mutex<BTreeMap<String, Listener>>,
    /// Who has called and not proved yet to be a host.
    strangers: Arc<Strangers>,
}

impl Default for Links {
    fn default() -> Self {
        // The hasher's keys come from the system's random numbers; all that is asked for is a number of one's own.
        let half = || RandomState::new().build_hasher().finish().to_le_bytes();
        let mut instance = [0; 16];
        instance[..8].copy_from_slice(&half());
        instance[8..].copy_from_slice(&half());
        Self {
            instance,
            sessions: Mutex::default(),
            diallers: Mutex::default(),
            listeners: Mutex::default(),
            strangers: Arc::default(),
        }
    }
}

/// This end of every link.
#[derive(Clone)]
struct End {
    links: Arc<Links>,
    networks: Arc<dyn Networks>,
}

/// Two hosts may have connected to each other both ways: which of two connections goes on. Both sides answer
/// the same. Of two that the same side made, the side that was called believes the newer one (the older may be
/// half dead), and the caller keeps what it has.
fn newer_wins(existing_dialled: bool, new_dialled: bool, we_are_lower: bool) -> bool {
    if existing_dialled == new_dialled { !new_dialled } else { new_dialled == we_are_lower }
}

impl Links {
    /// Takes links at an address; returns the one in use.
    ///
    /// # Errors
    /// When the address is not ours or in use, or the certificates cannot be read.
    pub fn listen(
        self: &Arc<Self>,
        networks: Arc<dyn Networks>,
        address: &str,
        security: &Security,
    ) -> Result<SocketAddr, LinkError> {
        let mut listeners = self.listeners.lock();
        if let Some(there) = listeners.get(address) {
            if there.security == *security {
                return Ok(there.address);
            }
            return Err(LinkError::OtherCertificates(address.to_owned()));
        }
        let protection = Protection::load(security)?;
        let unheard = |source| LinkError::Listen { address: address.to_owned(), source };
        let socket = TcpListener::bind(address).map_err(unheard)?;
        let actual = socket.local_addr().map_err(unheard)?;
        if matches!(security, Security::Insecure) && !actual.ip().is_loopback() {
            return Err(LinkError::NotLoopback(address.to_owned()));
        }
        socket.set_nonblocking(true).map_err(unheard)?;
        let stop = Arc::new(AtomicBool::new(false));
        let end = End { links: Arc::clone(self), networks };
        let flag = Arc::clone(&stop);
        let accept = move || accept(&end, &socket, &protection, &flag);
        std::thread::Builder::new().name("link listener".into()).spawn(accept).map_err(LinkError::Thread)?;
        let listener = Listener { security: security.clone(), address: actual, stop };
        listeners.insert(address.to_owned(), listener);
        Ok(actual)
    }

    /// Keeps a link.
    ///
    /// # Errors
    /// When a link of that name goes elsewhere, or the certificates cannot be read.
    pub fn add(
        self: &Arc<Self>,
        networks: Arc<dyn Networks>,
        name: &str,
        to: &str,
        security: &Security,
    ) -> Result<(), LinkError> {
        let mut diallers = self.diallers.lock();
        if let Some(there) = diallers.get(name) {
            if there.to == to && there.security == *security {
                return Ok(());
            }
            return Err(LinkError::Elsewhere { name: name.to_owned(), to: there.to.clone() });
        }
        let protection = Protection::load(security)?;
        let dialler = Dialler {
            to: to.to_owned(),
            security: security.clone(),
            stop: Arc::default(),
            session: Arc::default(),
            state: Arc::new(Mutex::new("connecting".into())),
        };
        let dial = Dial {
            name: name.to_owned(),
            to: to.to_owned(),
            protection,
            stop: Arc::clone(&dialler.stop),
            session: Arc::clone(&dialler.session),
            state: Arc::clone(&dialler.state),
        };
        let end = End { links: Arc::clone(self), networks };
        std::thread::Builder::new()
            .name(format!("link {name}"))
            .spawn(move || dial.keep(&end))
            .map_err(LinkError::Thread)?;
        diallers.insert(name.to_owned(), dialler);
        Ok(())
    }

    /// Removes a link and closes its connection.
    pub fn remove(&self, name: &str) {
        let Some(dialler) = self.diallers.lock().remove(name) else { return };
        dialler.stop.store(true, Ordering::Release);
        if let Some(session) = dialler.session.lock().take() {
            session.close();
        }
    }

    /// Ends all links and takes no more.
    pub fn close(&self) {
        for listener in std::mem::take(&mut *self.listeners.lock()).into_values() {
            listener.stop.store(true, Ordering::Release);
        }
        let names: Vec<String> = self.diallers.lock().keys().cloned().collect();
        for name in names {
            self.remove(&name);
        }
        for session in self.sessions.lock().values() {
            session.close();
        }
    }

    /// The networks of the switch have changed.
    pub fn reconcile(&self, networks: &dyn Networks) {
        let sessions: Vec<_> = self.sessions.lock().values().cloned().collect();
        for session in sessions {
            session.reconcile(networks);
        }
    }

    /// All links with their state.
    pub fn report(&self) -> Vec<LinkReport> {
        let to = self
            .diallers
            .lock()
            .iter()
            .map(|(name, dialler)| {
                let networks = dialler.session.lock().as_ref().map(|s| s.networks()).unwrap_or_default();
                LinkReport {
                    name: name.clone(),
                    direction: Direction::To,
                    state: dialler.state.lock().clone(),
                    networks,
                }
            })
            .collect::<Vec<_>>();
        let from = self
            .sessions
            .lock()
            .values()
            .filter(|s| !s.dialled)
            .map(|session| LinkReport {
                name: session.name.clone(),
                direction: Direction::From,
                state: "connected".into(),
                networks: session.networks(),
            })
            .collect::<Vec<_>>();
        to.into_iter().chain(from).collect()
    }

    fn wanted(&self, peer: Instance, dialled: bool) -> bool {
        let sessions = self.sessions.lock();
        let Some(existing) = sessions.get(&peer).filter(|s| !s.is_closed()) else { return true };
        newer_wins(existing.dialled, dialled, self.instance < peer)
    }

    /// Makes a session the one of its peer, unless there is a better one.
    fn enlist(&self, session: &Arc<Session>) -> bool {
        let mut sessions = self.sessions.lock();
        if let Some(existing) = sessions.get(&session.peer).filter(|s| !s.is_closed()) {
            if !newer_wins(existing.dialled, session.dialled, self.instance < session.peer) {
                return false;
            }
            existing.close();
        }
        sessions.insert(session.peer, Arc::clone(session));
        true
    }

    fn delist(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.lock();
        if sessions.get(&session.peer).is_some_and(|s| Arc::ptr_eq(s, session)) {
            sessions.remove(&session.peer);
        }
    }
}

fn accept(end: &End, listener: &TcpListener, protection: &Protection, stop: &Arc<AtomicBool>) {
    while !stop.load(Ordering::Acquire) {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        // An error shows again at the accept.
        let _ = poll(&mut fds, Some(Duration::from_millis(100)));
        let (socket, from) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    log::error!("no link can be taken: {error}; trying again");
                    std::thread::sleep(Duration::from_millis(200));
                }
                continue;
            }
        };
        // It may be gone again already.
        let Ok(visit) = end.links.strangers.admit(&socket) else { continue };
        let (end, protection, stop) = (end.clone(), protection.clone(), Arc::clone(stop));
        let serve = move || match answer(&end.links, socket, visit, &protection, from, &stop) {
            Ok(Some((session, records))) => {
                log::info!("link from {from}: connected");
                let why = session.run(&end.networks, records);
                end.links.delist(&session);
                log::info!("link from {from}: {why}");
            }
            Ok(None) => {}
            Err(error) => log::warn!("link from {from} refused: {}", whole(&error)),
        };
        if let Err(error) = std::thread::Builder::new().name("link in".into()).spawn(serve) {
            log::error!("link from {from}: no thread: {error}");
        }
    }
}

type Greeted = Option<(Arc<Session>, wire::Records)>;

fn answer(
    links: &Links,
    socket: TcpStream,
    visit: Visit,
    protection: &Protection,
    from: SocketAddr,
    stop: &AtomicBool,
) -> Result<Greeted, GreetError> {
    socket.set_nonblocking(false)?;
    let channel = secure(protection, socket, false, Instant::now() + HANDSHAKE)?;
    session::say_hello(&channel, links.instance)?;
    let by = Instant::now() + HELLO;
    let greeting = match session::hear_hello(&channel, by, &|| stop.load(Ordering::Acquire)) {
        Ok(greeting) => greeting,
        // Who called sees by our hello that there is a connection already, and hangs up.
        Err(GreetError::HungUp) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !visit.proved() {
        channel.close();
        return Err(TrustError::LostPlace.into());
    }
    let session = Session::new(from.to_string(), (greeting.peer, greeting.version), false, channel);
    if !links.enlist(&session) {
        session.close();
        return Ok(None);
    }
    Ok(Some((session, greeting.records)))
}

struct Dial {
    name: String,
    to: String,
    protection: Protection,
    stop: Arc<AtomicBool>,
    session: Arc<Mutex<Option<Arc<Session>>>>,
    state: Arc<Mutex<String>>,
}

impl Dial {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Tells the supervisor what is new: whether it carries frames, and why not.
    fn tell(&self, networks: &dyn Networks, told: &mut Option<Result<(), String>>, news: Result<(), &str>) {
        let news = news.map_err(ToOwned::to_owned);
        if told.as_ref() != Some(&news) {
            let (up, reason) = (news.is_ok(), news.clone().err().unwrap_or_default());
            networks.tell(NetworkEvent::Link { name: self.name.clone(), up, reason });
            *told = Some(news);
        }
    }

    fn keep(&self, end: &End) {
        let mut pause = RETRY.0;
        let (mut reported, mut peer, mut told) = (String::new(), None, None);
        while !self.stopped() {
            let state = match self.call(&end.links, &mut peer) {
                Ok(Some((session, records))) => {
                    log::info!("link {}: connected to {}", self.name, self.to);
                    self.tell(&*end.networks, &mut told, Ok(()));
                    *self.state.lock() = "connected".into();
                    *self.session.lock() = Some(Arc::clone(&session));
                    if self.stopped() {
                        session.close();
                    }
                    let begun = Instant::now();
                    let why = session.run(&end.networks, records);
                    end.links.delist(&session);
                    *self.session.lock() = None;
                    reported.clear();
                    if begun.elapsed() > RETRY.1 {
                        pause = RETRY.0;
                    }
                    self.tell(&*end.networks, &mut told, Err(&why));
                    format!("broken: {why}; connecting again")
                }
                Ok(None) => {
                    self.tell(&*end.networks, &mut told, Ok(()));
                    "connected by the other side".into()
                }
                Err(error) => {
                    let why = whole(&error);
                    self.tell(&*end.networks, &mut told, Err(&why));
                    format!("no link to {}: {why}; trying again", self.to)
                }
            };
            if !self.stopped() && reported != state {
                log::warn!("link {}: {state}", self.name);
                reported.clone_from(&state);
            }
            *self.state.lock() = state;
            let until = Instant::now() + pause;
            while !self.stopped() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Connects; nothing when the other side has connected to us already. `peer` is who was there last: while it is
    /// connected nobody is called.
    fn call(&self, links: &Links, peer: &mut Option<Instance>) -> Result<Greeted, GreetError> {
        if peer.is_some_and(|peer| !links.wanted(peer, true)) {
            return Ok(None);
        }
        let mut last = GreetError::Nowhere;
        let found = self.to.to_socket_addrs().map_err(GreetError::NoAddress)?.find_map(|target| {
            TcpStream::connect_timeout(&target, CONNECT).map_err(|e| last = e.into()).ok()
        });
        let Some(socket) = found else { return Err(last) };
        let channel = secure(&self.protection, socket, true, Instant::now() + HANDSHAKE)?;
        let greeting = session::hear_hello(&channel, Instant::now() + HELLO, &|| self.stopped())?;
        if greeting.peer == links.instance {
            return Err(GreetError::Itself);
        }
        *peer = Some(greeting.peer);
        if !links.wanted(greeting.peer, true) {
            channel.close();
            return Ok(None);
        }
        session::say_hello(&channel, links.instance)?;
        let session = Session::new(self.name.clone(), (greeting.peer, greeting.version), true, channel);
        if !links.enlist(&session) {
            session.close();
            return Ok(None);
        }
        Ok(Some((session, greeting.records)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_keep_the_same_one_of_two_connections() {
        // A (the lower) dialled x, B dialled y; whichever comes second, on either side, x goes on.
        assert!(newer_wins(false, true, true), "A: y, then x");
        assert!(!newer_wins(true, false, true), "A: x, then y");
        assert!(newer_wins(true, false, false), "B: y, then x");
        assert!(!newer_wins(false, true, false), "B: x, then y");
        assert!(newer_wins(false, false, true) && newer_wins(false, false, false), "called again");
        assert!(!newer_wins(true, true, true), "calling twice");
    }
}
