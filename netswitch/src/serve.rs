//! Commands of the supervisor, carried out.

use crate::ethernet::Mac;
use crate::port::Port;
use crate::port::card::CardPort;
use crate::port::stream::StreamPort;
use crate::port::tap::TapPort;
use crate::switch::{Switch, SwitchError, Whose};
use quasar_abi::control::netswitch::{NetswitchCommand, Uplink};
use quasar_abi::control::{ChannelError, Child, Event, Reply};
use std::sync::Arc;

/// Carries out one command.
///
/// # Errors
/// [`SwitchError`]; nothing was changed.
pub fn carry_out(switch: &Arc<Switch>, command: NetswitchCommand) -> Result<Reply, SwitchError> {
    match command {
        NetswitchCommand::AttachPort { network, port, segment, mac, lease } => {
            switch.attach(&network, &port, "card", Whose::Vm(Mac(mac), lease), |ingress| {
                Ok(CardPort::open(&segment, ingress)? as Arc<dyn Port>)
            })?;
        }
        NetswitchCommand::DetachPort { port } => switch.detach(&port),
        NetswitchCommand::EndPort { port } => switch.end(&port),
        NetswitchCommand::AddUplink { network, name, uplink: Uplink::Tap { interface } } => {
            switch.attach(&network, &name, "tap", Whose::Uplink(None), |ingress| {
                Ok(TapPort::open(&interface, ingress)? as Arc<dyn Port>)
            })?;
        }
        NetswitchCommand::AddUplink { network, name, uplink: Uplink::Stream { path, owner } } => {
            let owner = Mac(owner);
            switch.attach(&network, &name, "stream", Whose::Uplink(Some(owner)), |ingress| {
                Ok(StreamPort::open(path, owner, ingress) as Arc<dyn Port>)
            })?;
        }
        NetswitchCommand::RemoveUplink { name } => switch.detach(&name),
        NetswitchCommand::Listen { address, security } => {
            let address = switch.links.listen(switch, &address, &security)?;
            return Ok(Reply::Json(serde_json::json!({ "address": address }).to_string()));
        }
        NetswitchCommand::AddLink { name, to, security } => {
            switch.links.add(switch, &name, &to, &security)?
        }
        NetswitchCommand::RemoveLink { name } => switch.links.remove(&name),
        NetswitchCommand::HoldPort { port } => switch.hold(&port)?,
        NetswitchCommand::ReleasePort { port, addresses } => switch.release(&port, &addresses)?,
        NetswitchCommand::MovePort { port } => {
            let addresses = switch.move_away(&port)?;
            return Ok(Reply::Json(serde_json::json!({ "addresses": addresses }).to_string()));
        }
        NetswitchCommand::Stats => return Ok(Reply::Json(switch.report())),
        NetswitchCommand::Shutdown => switch.close(),
    }
    Ok(Reply::Unit)
}

/// Serves the supervisor until it says so or is gone.
///
/// # Errors
/// [`ChannelError`] when the channel fails in another way than by ending.
pub fn serve(child: &Child<NetswitchCommand>) -> Result<(), ChannelError> {
    let switch = Arc::new(Switch::default());
    let events = child.events.try_clone()?;
    switch.listen_to(Box::new(move |event| {
        if let Err(error) = events.send(&Event::Network(event)) {
            log::warn!("the supervisor could not be told: {error}");
        }
    }));
    loop {
        let envelope = match child.commands.recv(None) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => continue,
            Err(ChannelError::Closed) => break,
            Err(error) => return Err(error),
        };
        let last = envelope.command == NetswitchCommand::Shutdown;
        let id = envelope.id;
        let event = match carry_out(&switch, envelope.command) {
            Ok(reply) => Event::Done { id, reply },
            Err(error) => Event::Failed { id, error: error.to_string() },
        };
        child.events.send(&event)?;
        if last {
            break;
        }
    }
    switch.close();
    Ok(())
}
