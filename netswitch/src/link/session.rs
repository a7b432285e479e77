//! One connection to another switch, from hello to its end.

use super::GreetError;
use super::networks::{Networks, Way};
use super::outbox::Outbox;
use super::port::LinkPort;
use super::secure::Channel;
use super::wire::{Instance, Message, Records, VERSIONS, encode};
use parking_lot::{Mutex, MutexGuard};
use quasar_abi::control::netswitch::NetworkEvent;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A side that has nothing to say shows life this often.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// A side that was silent for so long is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(4);
/// How often threads look whether they were told to end.
const GLANCE: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Shared {
    /// The other side's networks by its numbers.
    theirs: HashMap<u32, String>,
    /// What we told of ours.
    told: Option<BTreeMap<String, u32>>,
    /// Ways in of networks that both have.
    ways: BTreeMap<String, Arc<dyn Way>>,
    ended: bool,
}

/// A connection in use.
pub struct Session {
    /// For people: the link's name or the address from which it came.
    pub name: String,
    /// The other switch.
    pub peer: Instance,
    /// Whether we connected.
    pub dialled: bool,
    /// The newest version that both speak.
    version: u16,
    channel: Channel,
    outbox: Arc<Outbox>,
    closed: AtomicBool,
    shared: Mutex<Shared>,
}

/// The other side's hello, and the records after it.
pub struct Greeting {
    /// Who it is.
    pub peer: Instance,
    /// The newest version that both speak.
    pub version: u16,
    /// Its stream from there on.
    pub records: Records,
}

/// Says who we are.
///
/// # Errors
/// When the connection is broken.
pub fn say_hello(channel: &Channel, instance: Instance) -> std::io::Result<()> {
    let (oldest, newest) = VERSIONS;
    channel.write_all(&encode(&Message::Hello { oldest, newest, instance }), DEAD_AFTER)
}

/// Waits for the other side's hello until then.
///
/// # Errors
/// When it is no switch, or of another version.
pub fn hear_hello(channel: &Channel, by: Instant, closed: &dyn Fn() -> bool) -> Result<Greeting, GreetError> {
    let mut records = Records::default();
    let mut space = vec![0; 4096];
    loop {
        match records.next_message()? {
            Some(Message::Hello { oldest, newest, instance }) => {
                if newest < VERSIONS.0 || oldest > VERSIONS.1 {
                    return Err(GreetError::Versions { oldest, newest });
                }
                records.greeted();
                return Ok(Greeting { peer: instance, version: newest.min(VERSIONS.1), records });
            }
            Some(Message::Refused(why)) => return Err(GreetError::Refused(why)),
            Some(_) => return Err(GreetError::NoHello),
            None if Instant::now() > by => return Err(GreetError::Silent),
            None => {}
        }
        // In TLS 1.3 who calls hears after its handshake that the other side did not accept it.
        match channel.read(&mut space, GLANCE).map_err(GreetError::NotTaken)? {
            Some(0) => return Err(GreetError::HungUp),
            Some(n) => records.feed(&space[..n]),
            None if closed() => return Err(GreetError::Ended),
            None => {}
        }
    }
}

impl Session {
    /// A session over a greeted channel.
    pub fn new(name: String, (peer, version): (Instance, u16), dialled: bool, channel: Channel) -> Arc<Self> {
        Arc::new(Self {
            name,
            peer,
            dialled,
            version,
            channel,
            outbox: Arc::default(),
            closed: AtomicBool::new(false),
            shared: Mutex::default(),
        })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock()
    }

    /// Ends it; [`Session::run`] returns soon.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.outbox.close();
        self.channel.close();
    }

    /// Whether it has ended or is about to.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Networks that both have.
    pub fn networks(&self) -> Vec<String> {
        self.shared().ways.keys().cloned().collect()
    }

    fn port_name(&self, network: &str) -> String {
        let number: String = self.peer[..4].iter().map(|b| format!("{b:02x}")).collect();
        format!("{network}@{} {number}", self.name)
    }

    /// Tells the other side our networks if they have changed, and gives every network that both have its port.
    pub fn reconcile(&self, networks: &dyn Networks) {
        let ours = networks.live();
        let mut shared = self.shared();
        if shared.ended {
            return;
        }
        let both: BTreeMap<String, u32> =
            shared.theirs.values().filter_map(|name| ours.get(name).map(|id| (name.clone(), *id))).collect();
        let gone: Vec<String> = shared.ways.keys().filter(|n| !both.contains_key(*n)).cloned().collect();
        for name in gone {
            if let Some(way) = shared.ways.remove(&name) {
                way.leave();
            }
        }
        // The list goes first, so that the other side knows a number before it sees a frame of it.
        if shared.told.as_ref() != Some(&ours) {
            let list = ours.iter().map(|(name, id)| (*id, name.clone())).collect();
            self.outbox.say(&Message::Networks(list));
            shared.told = Some(ours);
        }
        for (name, network) in both {
            if shared.ways.contains_key(&name) {
                continue;
            }
            let outbox = Arc::clone(&self.outbox);
            let port = Arc::new(LinkPort { outbox, version: self.version, network });
            match networks.join((&name, network), &self.port_name(&name), port) {
                Some(way) => {
                    way.introduce();
                    shared.ways.insert(name, way);
                }
                None => log::error!("link {}: network {name} is not here any more", self.name),
            }
        }
    }

    /// Carries frames until the connection ends; returns why.
    pub fn run(self: &Arc<Self>, networks: &Arc<dyn Networks>, records: Records) -> String {
        self.reconcile(&**networks);
        let writer = {
            let (me, networks) = (Arc::clone(self), Arc::clone(networks));
            std::thread::Builder::new().name("link out".into()).spawn(move || me.write(&*networks))
        };
        let why = match writer {
            Ok(writer) => {
                let why = self.read(&**networks, records);
                self.close();
                let ended = writer.join().unwrap_or_else(|_| Some("its writer panicked".into()));
                ended.unwrap_or(why)
            }
            Err(error) => format!("no thread: {error}"),
        };
        self.close();
        let mut shared = self.shared();
        shared.ended = true;
        for way in std::mem::take(&mut shared.ways).into_values() {
            way.leave();
        }
        why
    }

    fn write(&self, networks: &dyn Networks) -> Option<String> {
        let mut batch = vec![];
        loop {
            let open = self.outbox.take(&mut batch, HEARTBEAT);
            if batch.is_empty() {
                if !open {
                    let closed = self.is_closed();
                    self.close();
                    return (!closed).then(|| "it asks for more than it takes".into());
                }
                // Moved cards are remembered for a while and networks end with them: a look now and then.
                self.reconcile(networks);
                batch = encode(&Message::Heartbeat);
            }
            if let Err(error) = self.channel.write_all(&batch, DEAD_AFTER) {
                let closed = self.is_closed();
                self.close();
                return (!closed).then(|| error.to_string());
            }
        }
    }

    fn read(&self, networks: &dyn Networks, mut records: Records) -> String {
        let (mut space, mut heard) = (vec![0; 64 * 1024], Instant::now());
        loop {
            loop {
                match records.next_message() {
                    Ok(Some(message)) => {
                        if let Err(why) = self.take(networks, message) {
                            return why;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return error.to_string(),
                }
            }
            match self.channel.read(&mut space, GLANCE) {
                Ok(Some(0)) => return "the other side closed the connection".into(),
                Ok(Some(n)) => {
                    heard = Instant::now();
                    records.feed(&space[..n]);
                }
                Ok(None) if self.is_closed() => return "ended here".into(),
                Ok(None) if heard.elapsed() > DEAD_AFTER => {
                    return format!("it has been silent for {} s", DEAD_AFTER.as_secs());
                }
                Ok(None) => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    fn named_way(&self, network: u32) -> Option<(String, Arc<dyn Way>)> {
        let shared = self.shared();
        let name = shared.theirs.get(&network)?;
        Some((name.clone(), shared.ways.get(name)?.clone()))
    }

    fn way(&self, network: u32) -> Option<Arc<dyn Way>> {
        let shared = self.shared();
        shared.ways.get(shared.theirs.get(&network)?).cloned()
    }

    fn take(&self, networks: &dyn Networks, message: Message<'_>) -> Result<(), String> {
        // A network that one side has just dropped may still be spoken of.
        match message {
            Message::Networks(list) => {
                self.shared().theirs = list.into_iter().collect();
                self.reconcile(networks);
            }
            Message::Frame { network, directed, frame } => {
                if let Some(way) = self.way(network) {
                    way.frame(frame, directed);
                }
            }
            Message::Moved { network, mac, addresses } => {
                if let Some(way) = self.way(network) {
                    way.moved(mac, &addresses);
                }
            }
            Message::Here { network, mac } => {
                if let Some(way) = self.way(network) {
                    way.here(mac);
                }
            }
            Message::Ended { network, mac } => {
                if let Some((name, way)) = self.named_way(network)
                    && way.ended(mac)
                {
                    networks.tell(NetworkEvent::Ended { network: name, mac: mac.0 });
                }
            }
            Message::Lease { network, mac, lease } => {
                if let Some(way) = self.way(network) {
                    let lease = lease.as_ref().map(|(address, name)| (*address, name.as_str()));
                    for (port, address) in way.lease(mac, lease) {
                        networks.tell(NetworkEvent::Leased { port, address: address.octets() });
                    }
                }
            }
            Message::Forward { network, mac, frame } => {
                if let Some(way) = self.way(network) {
                    way.frame_after(mac, frame);
                }
            }
            Message::Heartbeat => {}
            Message::Refused(why) => return Err(format!("the other side ended it: {why}")),
            Message::Hello { .. } => return Err("a second hello".into()),
        }
        Ok(())
    }
}
