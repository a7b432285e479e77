//! `quasar-devices`: the devices of one VM. Started by the supervisor; the work is the library's.

#![forbid(unsafe_code)]

use anyhow::Context;
use clap::Parser;
use quasar_abi::control::devices::DevicesCommand;
use quasar_abi::control::{ChannelError, Child, Event, ProcessKind, Reply, Transport};
use quasar_devices::{DevicesError, Server, ServerHandle};
use std::os::fd::RawFd;
use std::thread::JoinHandle;

/// The devices of one VM. Started by the supervisor.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Inherited descriptor of the socket to the supervisor.
    #[arg(long)]
    control_fd: RawFd,
    /// What carries the commands: ipc or socket.
    #[arg(long, default_value_t = Transport::Ipc)]
    transport: Transport,
}

/// A server at work.
struct Service {
    handle: ServerHandle,
    thread: JoinHandle<()>,
}

impl Service {
    fn end(self) -> Result<(), DevicesError> {
        let result = self.handle.shutdown();
        if self.thread.join().is_err() {
            log::error!("the serving thread panicked; its message is above");
        }
        result
    }
}

fn carry_out(command: DevicesCommand, service: &mut Option<Service>) -> Result<Reply, DevicesError> {
    let running = || service.as_ref().map(|service| &service.handle).ok_or(DevicesError::Ended);
    match command {
        DevicesCommand::Start { segments, virtio } => {
            if service.is_some() {
                let what = "these devices serve a VM already; start another process for another VM".into();
                return Err(DevicesError::Config { device: segments.vm, what });
            }
            let (server, handle) = Server::attach(&segments, &virtio)?;
            let spawn = std::thread::Builder::new().name("devices".into()).spawn(move || server.run());
            let thread =
                spawn.map_err(|source| DevicesError::System { what: "starting a thread", source })?;
            *service = Some(Service { handle, thread });
            Ok(Reply::Unit)
        }
        DevicesCommand::Reset => running()?.reset().map(|()| Reply::Unit),
        DevicesCommand::PowerButton => running()?.power_button().map(|()| Reply::Unit),
        DevicesCommand::Stats => Ok(Reply::Json(running()?.stats()?.to_string())),
        DevicesCommand::Shutdown => service.take().map_or(Ok(()), Service::end).map(|()| Reply::Unit),
    }
}

fn main() -> anyhow::Result<()> {
    let _log = quasar_abi::logging::start("info");
    let arguments = Arguments::parse();
    let child = Child::<DevicesCommand>::inherit(
        arguments.control_fd,
        ProcessKind::Devices,
        env!("CARGO_PKG_VERSION"),
        arguments.transport,
    )
    .context("no control channel; quasar-devices is started by `quasar`, not by hand")?;
    let mut service = None;
    loop {
        let envelope = match child.commands.recv(None) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => continue,
            // The supervisor is gone: nobody is left to end or to replace this process.
            Err(ChannelError::Closed) => break,
            Err(error) => {
                log::error!("control channel: {error}");
                break;
            }
        };
        let id = envelope.id;
        let last = envelope.command == DevicesCommand::Shutdown;
        let event = match carry_out(envelope.command, &mut service) {
            Ok(reply) => Event::Done { id, reply },
            Err(error) => Event::Failed { id, error: error.to_string() },
        };
        child.events.send(&event).context("answering the supervisor")?;
        if last {
            return Ok(());
        }
    }
    Ok(service.map_or(Ok(()), Service::end)?)
}
