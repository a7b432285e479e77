//! `quasar-mmu`: keeps one VM's memory. Started by the supervisor.

#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use clap::Parser;
use quasar_abi::control::mmu::MmuCommand;
use quasar_abi::control::{ChannelError, Child, Event, ProcessKind, Reply, Transport};
use quasar_abi::party::PartyId;
use quasar_mmu::Server;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a silent channel is left for a look at the serving thread.
const WATCH: Duration = Duration::from_secs(1);

/// Keeps one VM's memory. Started by the supervisor.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Inherited descriptor of the control channel.
    #[arg(long)]
    control_fd: RawFd,
    /// What carries commands.
    #[arg(long, default_value_t = Transport::Ipc)]
    transport: Transport,
}

/// A server at work.
struct Service {
    server: Arc<Server>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Service {
    fn start(server: Server) -> Result<Self> {
        let (server, stop) = (Arc::new(server), Arc::new(AtomicBool::new(false)));
        let (at_work, told) = (Arc::clone(&server), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("mmu".into()).spawn(move || at_work.run(&told))?;
        Ok(Self { server, stop, thread })
    }

    fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.server.vm().party(PartyId::Mmu).doorbell.ring();
        if self.thread.join().is_err() {
            bail!("the serving thread panicked; its message is above");
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let _log = quasar_abi::logging::start("info");
    let arguments = Arguments::parse();
    let child = Child::<MmuCommand>::inherit(
        arguments.control_fd,
        ProcessKind::Mmu,
        env!("CARGO_PKG_VERSION"),
        arguments.transport,
    )
    .context("no control channel; quasar-mmu is started by `quasar`, not by hand")?;
    let mut service: Option<Service> = None;
    loop {
        // The timeout is for a serving thread that ended: told so through shared memory, or by a bug.
        let envelope = match child.commands.recv(Some(WATCH)) {
            Ok(Some(envelope)) => envelope,
            Ok(None) if service.as_ref().is_some_and(|s| s.thread.is_finished()) => break,
            Ok(None) => continue,
            // The supervisor is gone: nobody is left to end or to replace this process.
            Err(ChannelError::Closed) => break,
            Err(error) => {
                log::error!("control channel: {error}");
                break;
            }
        };
        let id = envelope.id;
        match envelope.command {
            MmuCommand::Start { segments } => {
                let started = match service {
                    Some(_) => Err(anyhow::anyhow!("this mmu process serves a VM already")),
                    None => Server::attach(&segments).map_err(Into::into).and_then(Service::start),
                };
                let event = match started {
                    Ok(new) => {
                        log::info!("serving the memory of {}", segments.vm);
                        service = Some(new);
                        Event::Done { id, reply: Reply::Unit }
                    }
                    Err(error) => Event::Failed { id, error: quasar_abi::words::whole(error.as_ref()) },
                };
                child.events.send(&event).context("answering Start")?;
            }
            MmuCommand::Shutdown => {
                let ended = service.map_or(Ok(()), Service::end);
                child.events.send(&Event::Done { id, reply: Reply::Unit }).ok();
                return ended;
            }
        }
    }
    service.map_or(Ok(()), Service::end)
}
