//! Commands of the supervisor, carried out: one process, one journey.

use crate::connection::{PATIENCE, Peer};
use crate::destination::{self, Obstacle};
use crate::lanes::Doorway;
use crate::message::Machine;
use crate::source::{self, Outcome};
use crate::tls::Callee;
use crate::{resume, suspend, tls};
use anyhow::{Context, bail};
use crossbeam_channel::{Receiver, Sender, unbounded};
use quasar_abi::control::migrator::{LocalVm, MigrationEvent, MigratorCommand};
use quasar_abi::control::{ChannelError, Child, Envelope, Event, EventSender, Reply};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

type Prepared = Result<LocalVm, String>;

/// Serves the supervisor until the journey is over. `peer` is the accepted socket of a receiver.
///
/// # Errors
/// [`ChannelError`] when the channel fails in another way than by ending.
pub fn serve(child: Child<MigratorCommand>, peer: Option<TcpStream>) -> Result<(), ChannelError> {
    let Child { commands, events } = child;
    let cancelled = Arc::new(AtomicBool::new(false));
    let (prepared_in, prepared_out) = unbounded::<Prepared>();
    let obstacle = Arc::<Obstacle>::default();
    let mut peer = peer;
    let mut journey: Option<std::thread::JoinHandle<()>> = None;
    loop {
        let envelope = match commands.recv(None) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => continue,
            Err(ChannelError::Closed) => break,
            Err(error) => return Err(error),
        };
        let Envelope { id, command } = envelope;
        let done = |event: &Event| events.send(event);
        match command {
            MigratorCommand::Cancel => {
                cancelled.store(true, Ordering::Release);
                done(&Event::Done { id, reply: Reply::Unit })?;
            }
            MigratorCommand::Obstacle { reason } => {
                obstacle.set(reason);
                done(&Event::Done { id, reply: Reply::Unit })?;
            }
            MigratorCommand::Prepared { vm } => {
                forward(&prepared_in, Ok(vm));
                done(&Event::Done { id, reply: Reply::Unit })?;
            }
            MigratorCommand::Refuse { reason } => {
                forward(&prepared_in, Err(reason));
                done(&Event::Done { id, reply: Reply::Unit })?;
            }
            MigratorCommand::Shutdown => {
                done(&Event::Done { id, reply: Reply::Unit })?;
                break;
            }
            _ if journey.is_some() => {
                done(&Event::Failed {
                    id,
                    error: "this migrator is on its journey already; start another".into(),
                })?;
            }
            first => {
                let errand = Errand {
                    id,
                    events: events.try_clone()?,
                    cancelled: Arc::clone(&cancelled),
                    prepared: prepared_out.clone(),
                    obstacle: Arc::clone(&obstacle),
                    peer: peer.take(),
                };
                let thread =
                    std::thread::Builder::new().name("journey".into()).spawn(move || errand.carry_out(first));
                match thread {
                    Ok(thread) => journey = Some(thread),
                    Err(error) => done(&Event::Failed { id, error: format!("no thread: {error}") })?,
                }
            }
        }
    }
    // A journey before the hand-over ends and leaves the VM where it was; one after it cannot be undone.
    cancelled.store(true, Ordering::Release);
    drop(prepared_in);
    if let Some(thread) = journey {
        let _ = thread.join();
    }
    Ok(())
}

fn forward(to: &Sender<Prepared>, answer: Prepared) {
    // The receiving half lives as long as we do.
    let _ = to.send(answer);
}

struct Errand {
    id: u64,
    events: EventSender,
    cancelled: Arc<AtomicBool>,
    prepared: Receiver<Prepared>,
    obstacle: Arc<Obstacle>,
    peer: Option<TcpStream>,
}

impl Errand {
    fn tell(&self, event: MigrationEvent) {
        // A supervisor that does not listen misses news; the journey does not depend on it.
        if let Err(error) = self.events.send(&Event::Migration(event)) {
            log::warn!("the supervisor could not be told: {error}");
        }
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

    fn carry_out(mut self, command: MigratorCommand) {
        let peer = self.peer.take();
        let result = self.errand(command, peer);
        let event = match result {
            Ok(reply) => Event::Done { id: self.id, reply },
            Err(error) => Event::Failed { id: self.id, error: quasar_abi::words::whole(error.as_ref()) },
        };
        if let Err(error) = self.events.send(&event) {
            log::error!("the supervisor could not be told the end ({event:?}): {error}");
        }
    }

    fn errand(&self, command: MigratorCommand, peer: Option<TcpStream>) -> anyhow::Result<Reply> {
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
                        Ok(Reply::Unit)
                    }
                    Outcome::StaysHere(error) => Err(error),
                    Outcome::Unclear(error) => {
                        let reason = quasar_abi::words::whole(error.as_ref());
                        self.tell(MigrationEvent::Unclear { reason: reason.clone() });
                        bail!(
                            "{reason}; the VM is paused here and may run at {to}: look there before you resume it"
                        )
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
                Ok(Reply::Unit)
            }
            MigratorCommand::Suspend { vm, file } => {
                let done = suspend::suspend(&vm, &file, &self.cancelled)?;
                let json = format!(
                    r#"{{"file_bytes":{},"raw_bytes":{},"hash":"{}"}}"#,
                    done.file_bytes, done.raw_bytes, done.hash
                );
                Ok(Reply::Json(json))
            }
            MigratorCommand::Resume { file } => {
                resume::resume(&file, |machine| self.prepare(machine))?;
                Ok(Reply::Unit)
            }
            other => bail!("{other:?} begins no journey"),
        }
    }
}
