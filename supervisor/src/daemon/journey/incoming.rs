//! A VM comes, from another host or from a file: the destination's supervisor.
//!
//! Until the migrator has let it run, whatever goes wrong leaves nothing of it here. Whether it has is seen in
//! the VM itself, not only in what the migrator says: it may be killed between the two.

use super::description::Description;
use super::migrator::{Heard, Migrator, inputs};
use super::{Input, Journey, shown};
use crate::daemon::entry::Entry;
use crate::daemon::host::Host;
use crate::daemon::network::links::obstacle;
use crate::vm::Request;
use crossbeam_channel::{Receiver, Sender};
use quasar_abi::control::migrator::{LocalVm, MigrationEvent, MigratorCommand, Security};
use quasar_abi::vm::pause;
use quasar_api::JourneyEvent;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often it is looked whether it could run here: its machine, and the links that its network needs.
const LOOK: Duration = Duration::from_millis(50);

/// Where it comes from.
#[derive(Debug)]
pub enum Origin {
    /// Another host, which has connected.
    Peer {
        /// Its connection.
        socket: TcpStream,
        /// Its address.
        address: SocketAddr,
        /// How the connection is protected.
        security: Security,
    },
    /// A file.
    File {
        /// Which.
        file: PathBuf,
        /// Another name for the VM.
        name: Option<String>,
    },
}

/// What the sender says about the machine, beside its description.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// Harts.
    pub harts: u32,
    /// Bytes of each disk that travels, by slot.
    pub disks: Vec<(u8, u64)>,
}

struct Reception {
    host: Arc<Host>,
    journey: Arc<Journey>,
    peer: Option<IpAddr>,
    rename: Option<String>,
    entry: Option<Arc<Entry>>,
    /// What the migrator was told to be in the way.
    obstacle: Option<String>,
    runs: bool,
}

impl Host {
    /// Begins to take a VM; how that ends is the journey's last event.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn receive(self: &Arc<Self>, origin: Origin) -> std::io::Result<Arc<Journey>> {
        let (outbox, inbox) = inputs();
        let way = match &origin {
            Origin::Peer { address, .. } => format!("from {address}"),
            Origin::File { file, .. } => format!("from {}", file.display()),
        };
        let journey = Arc::new(Journey::new(way, outbox.clone()));
        self.remember(&journey);
        let (host, ours) = (Arc::clone(self), Arc::clone(&journey));
        let run = move || {
            let end = take(host, Arc::clone(&ours), origin, (outbox, inbox));
            ours.push(end);
            ours.end();
        };
        std::thread::Builder::new().name("arrival".into()).spawn(run).inspect_err(|_| journey.end())?;
        Ok(journey)
    }
}

fn take(
    host: Arc<Host>,
    journey: Arc<Journey>,
    origin: Origin,
    ends: (Sender<Input>, Receiver<Input>),
) -> JourneyEvent {
    let (socket, command, peer, rename) = match origin {
        Origin::Peer { socket, address, security } => {
            (Some(socket), MigratorCommand::Receive { security }, Some(address.ip()), None)
        }
        Origin::File { file, name } => (None, MigratorCommand::Resume { file }, None, name),
    };
    let mut reception = Reception { host, journey, peer, rename, entry: None, obstacle: None, runs: false };
    let started = match reception.host.arrivals_log() {
        Ok(log) => {
            Migrator::start(&reception.host.launcher, socket.as_ref().map(AsFd::as_fd), &log, ends, command)
        }
        Err(error) => Err(error.to_string()),
    };
    drop(socket);
    let result = started.and_then(|mut migrator| {
        reception.journey.set_migrator(migrator.reach());
        let result = reception.attend(&mut migrator);
        migrator.end();
        result
    });
    reception.end(result)
}

impl Reception {
    fn attend(&mut self, migrator: &mut Migrator) -> Result<u64, String> {
        let mut downtime = 0;
        loop {
            match migrator.hear(LOOK) {
                Heard::Migration(MigrationEvent::Incoming { description, ram_bytes, harts, disks }) => {
                    let answer = match self.prepare(&description, &Sizes { ram_bytes, harts, disks }) {
                        Ok(vm) => MigratorCommand::Prepared { vm },
                        Err(reason) => MigratorCommand::Refuse { reason },
                    };
                    migrator.tell(answer);
                }
                Heard::Migration(MigrationEvent::Running { downtime_us }) => {
                    downtime = downtime_us;
                    self.welcome();
                }
                Heard::Migration(event) => self.journey.extend(shown(event, "here")),
                Heard::Done(_) => return Ok(downtime),
                Heard::Failed(refusal) => return Err(refusal.to_string()),
                Heard::Died(how) => return Err(format!("the migrator {how}")),
                Heard::Nothing => {}
            }
            self.look_at_obstacles(migrator);
        }
    }

    /// Tells the migrator when the VM could not run here, or could again: its machine has failed while it came, or its
    /// network no longer reaches this host. What is not taken stays where it is.
    fn look_at_obstacles(&mut self, migrator: &mut Migrator) {
        let Some(entry) = self.entry.as_ref().filter(|_| !self.runs) else { return };
        let fault = entry.handle.board.fault();
        let reason = fault.or_else(|| obstacle(&self.host.network.links.down(&entry.past.needs)));
        if reason != self.obstacle {
            self.obstacle.clone_from(&reason);
            migrator.tell(MigratorCommand::Obstacle { reason });
        }
    }

    fn prepare(&mut self, description: &str, sizes: &Sizes) -> Result<LocalVm, String> {
        if self.entry.is_some() {
            return Err("a second VM over one connection".into());
        }
        let mut description = Description::parse(description)?;
        if self.peer.is_some() && description.from.id == self.host.id {
            return Err("that is the host that it runs on already; nothing was done".into());
        }
        if self.peer.is_none() {
            // Nobody at the file's origin forwards anything any more.
            description.home.clone_from(&self.host.id);
            description.trail.clear();
            description.from.switch = None;
        }
        if let Some(name) = &self.rename {
            description.rename(name);
        }
        let entry = self.host.prepare(&description, sizes, self.peer).map_err(|error| error.to_string())?;
        self.entry = Some(Arc::clone(&entry));
        // The journey is new and this VM has none: nothing can refuse it.
        drop(self.host.registry().set_out(&entry.spec.name, &entry, &self.journey));
        let shared = sizes.disks.is_empty();
        entry.local(&description, shared).ok_or_else(|| "it has been stopped here".to_owned())
    }

    /// Whether the migrator has let it run.
    fn is_let_go(&self) -> bool {
        let machine = self.entry.as_ref().and_then(|entry| entry.handle.machine());
        machine.is_some_and(|machine| machine.vm.pause_mask.load(Ordering::SeqCst) & pause::MIGRATOR == 0)
    }

    fn welcome(&mut self) {
        if let Some(entry) = self.entry.clone()
            && !std::mem::replace(&mut self.runs, true)
        {
            // An error says that it has ended already.
            drop(entry.handle.ask_and_wait(Request::Arrived));
            self.host.arrived(&entry);
            self.journey.has_come();
        }
    }

    fn end(mut self, result: Result<u64, String>) -> JourneyEvent {
        if self.is_let_go() {
            self.welcome();
        }
        match (self.entry.take(), result) {
            (Some(_), result) if self.runs => JourneyEvent::Arrived { downtime_us: result.unwrap_or(0) },
            (Some(entry), result) => {
                self.host.discard(&entry);
                let error =
                    result.err().unwrap_or_else(|| "the migrator ended without letting it run".into());
                log::warn!("VM {} did not arrive: {error}", entry.spec.name);
                JourneyEvent::Failed { error }
            }
            (None, result) => {
                let error = result.err().unwrap_or_else(|| "nothing came".into());
                log::warn!("no VM came: {error}");
                JourneyEvent::Failed { error }
            }
        }
    }
}
