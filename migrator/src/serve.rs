//! Commands of the supervisor, carried out: one process, one journey.

use crate::connection::{PATIENCE, Peer};
use crate::destination::{self, Obstacle};
use crate::lanes::Doorway;
use crate::message::Machine;
use crate::source::{self, Outcome};
use crate::tls::Callee;
use crate::{resume, suspend, tls};
use anyhow::{Context, anyhow, bail};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use quasar_abi::control::Trouble;
use quasar_abi::control::child::{Call, News, Service};
use quasar_abi::control::migrator::{
    LocalVm, MigrationEvent, Migrator, MigratorCommand, MigratorRefusal, MigratorReply,
};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

type Prepared = Result<LocalVm, String>;

/// Why a journey ended as it should not, with the ways of `anyhow` for all that fails on it.
struct JourneyError(MigratorRefusal);

impl<E: Into<anyhow::Error>> From<E> for JourneyError {
    fn from(error: E) -> Self {
        Self(MigratorRefusal::Failed(Trouble::of(error.into().as_ref())))
    }
}

/// A migrator: before, on and after its one journey.
pub struct MigratorService {
    ways: Ways,
    prepared: Sender<Prepared>,
    peer: Option<TcpStream>,
    journey: Option<JoinHandle<()>>,
}

/// What the journey's thread has of the process.
#[derive(Clone)]
struct Ways {
    news: News<Migrator>,
    cancelled: Arc<AtomicBool>,
    prepared: Receiver<Prepared>,
    obstacle: Arc<Obstacle>,
}

impl MigratorService {
    /// A migrator without a journey yet. `peer` is the accepted socket of a receiver.
    #[must_use]
    pub fn new(news: News<Migrator>, peer: Option<TcpStream>) -> Self {
        let (prepared, out) = unbounded::<Prepared>();
        let ways = Ways { news, cancelled: Arc::default(), prepared: out, obstacle: Arc::default() };
        Self { ways, prepared, peer, journey: None }
    }

    /// Hands over what the journey waits for. Its receiving half lives as long as we do.
    fn forward(&self, answer: Prepared) {
        drop(self.prepared.send(answer));
    }

    /// Begins the journey, which answers when it is over.
    fn set_out(&mut self, first: MigratorCommand, call: Call<Migrator>) {
        if self.journey.is_some() {
            return call.answer(Err(MigratorRefusal::OnJourney));
        }
        let (ways, peer) = (self.ways.clone(), self.peer.take());
        // The call is the journey's once there is a thread for it.
        let (hand_over, handed) = bounded::<Call<Migrator>>(1);
        let thread = std::thread::Builder::new().name("journey".into()).spawn(move || {
            let Ok(call) = handed.recv() else { return };
            call.answer(ways.travel(first, peer).map_err(|JourneyError(refusal)| refusal));
        });
        match thread {
            Ok(thread) => {
                self.journey = Some(thread);
                drop(hand_over.send(call));
            }
            Err(error) => call.answer(Err(MigratorRefusal::Failed(Trouble::of(&error)))),
        }
    }
}

impl Service for MigratorService {
    type Interface = Migrator;

    fn carry_out(&mut self, command: MigratorCommand, call: Call<Migrator>) {
        match command {
            MigratorCommand::Cancel => self.ways.cancelled.store(true, Ordering::Release),
            MigratorCommand::Obstacle { reason } => self.ways.obstacle.set(reason),
            MigratorCommand::Prepared { vm } => self.forward(Ok(vm)),
            MigratorCommand::Refuse { reason } => self.forward(Err(reason)),
            // Comes to `end`.
            MigratorCommand::Shutdown => {}
            first => return self.set_out(first, call),
        }
        call.answer(Ok(MigratorReply::Done));
    }

    /// The supervisor says so: a journey's end is answered first.
    fn is_over(&self) -> bool {
        false
    }

    /// A journey before the hand-over ends and leaves the VM where it was; one after it cannot be undone.
    fn end(self) -> Result<(), MigratorRefusal> {
        self.ways.cancelled.store(true, Ordering::Release);
        // Who waits for a VM to be prepared waits no longer.
        drop(self.prepared);
        let panicked = |_| MigratorRefusal::Failed(Trouble::lasting("the journey's thread had panicked"));
        self.journey.map_or(Ok(()), |thread| thread.join().map_err(panicked))
    }
}

impl Ways {
    fn tell(&self, event: MigrationEvent) {
        self.news.tell(event);
    }

    fn prepare(&self, machine: &Machine) -> anyhow::Result<LocalVm> {
        self.tell(MigrationEvent::Incoming {
            description: machine.description.clone(),
            ram_bytes: machine.ram_bytes,
            harts: machine.harts,
            disks: machine.disks.clone(),
        });
        match self.prepared.recv() {
            Ok(Ok(vm)) => Ok(vm),
            Ok(Err(reason)) => bail!("{reason}"),
            Err(_) => bail!("the supervisor has gone"),
        }
    }

    fn travel(
        &self,
        command: MigratorCommand,
        peer: Option<TcpStream>,
    ) -> Result<MigratorReply, JourneyError> {
        match command {
            MigratorCommand::Send { vm, to, security, limits } => {
                let connect = || {
                    Ok(Peer::new(tls::connect(&to, &security, Callee::Daemon)?, &self.cancelled, PATIENCE))
                };
                let further = |port: u16| {
                    let host = to.rsplit_once(':').map_or(&*to, |(host, _)| host);
                    tls::connect(&format!("{host}:{port}"), &security, Callee::Migrator)
                };
                match source::send(&vm, connect, &further, &limits, &self.cancelled, &mut |event| {
                    self.tell(event)
                }) {
                    Outcome::Completed(event) => {
                        self.tell(event);
                        Ok(MigratorReply::Done)
                    }
                    Outcome::StaysHere(error) => Err(error.into()),
                    Outcome::Unclear(error) => {
                        let reason = quasar_abi::words::whole(error.as_ref());
                        self.tell(MigrationEvent::Unclear { reason: reason.clone() });
                        Err(JourneyError(MigratorRefusal::Unclear { reason, to }))
                    }
                }
            }
            MigratorCommand::Receive { security } => {
                let socket = peer.context("no connection was handed over (--peer-fd)")?;
                let protection = security.clone();
                let doorway =
                    Doorway::beside(&socket, Box::new(move |socket| tls::accept(socket, &protection)));
                let doorway = doorway
                    .inspect_err(|error| {
                        log::warn!("one connection alone: {}", quasar_abi::words::whole(error.as_ref()))
                    })
                    .ok();
                let mut peer = Peer::new(tls::accept(socket, &security)?, &self.cancelled, PATIENCE);
                let prepare = |machine: &Machine| self.prepare(machine);
                destination::receive(&mut peer, doorway, prepare, &self.obstacle, &mut |event| {
                    self.tell(event)
                })?;
                Ok(MigratorReply::Done)
            }
            MigratorCommand::Suspend { vm, file } => {
                Ok(MigratorReply::Suspended(suspend::suspend(&vm, &file, &self.cancelled)?))
            }
            MigratorCommand::Resume { file } => {
                resume::resume(&file, |machine| self.prepare(machine))?;
                Ok(MigratorReply::Done)
            }
            other => Err(anyhow!("{other:?} begins no journey").into()),
        }
    }
}
