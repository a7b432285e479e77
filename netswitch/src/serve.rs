//! Commands of the supervisor, carried out.

use crate::ethernet::Mac;
use crate::port::Port;
use crate::port::card::CardPort;
use crate::port::stream::StreamPort;
use crate::port::tap::TapPort;
use crate::switch::{Switch, SwitchError, Whose};
use quasar_abi::control::Trouble;
use quasar_abi::control::child::{Call, News, Service};
use quasar_abi::control::netswitch::{Netswitch, NetswitchCommand, NetswitchRefusal, NetswitchReply, Uplink};
use quasar_abi::report::PortKind;
use std::sync::Arc;

/// Carries out one command.
///
/// # Errors
/// [`SwitchError`]; nothing was changed.
pub fn carry_out(switch: &Arc<Switch>, command: NetswitchCommand) -> Result<NetswitchReply, SwitchError> {
    match command {
        NetswitchCommand::AttachPort { network, port, rings, mac, lease } => {
            switch.attach(&network, &port, PortKind::Card, Whose::Vm(Mac(mac), lease), |ingress| {
                Ok(CardPort::open(&rings, ingress)? as Arc<dyn Port>)
            })?;
        }
        NetswitchCommand::DetachPort { port } => switch.detach(&port),
        NetswitchCommand::EndPort { port } => switch.end(&port),
        NetswitchCommand::AddUplink { network, name, uplink: Uplink::Tap { interface } } => {
            switch.attach(&network, &name, PortKind::Tap, Whose::Uplink(None), |ingress| {
                Ok(TapPort::open(&interface, ingress)? as Arc<dyn Port>)
            })?;
        }
        NetswitchCommand::AddUplink { network, name, uplink: Uplink::Stream { path, owner } } => {
            let owner = Mac(owner);
            switch.attach(&network, &name, PortKind::Stream, Whose::Uplink(Some(owner)), |ingress| {
                Ok(StreamPort::open(path, owner, ingress) as Arc<dyn Port>)
            })?;
        }
        NetswitchCommand::RemoveUplink { name } => switch.detach(&name),
        NetswitchCommand::Listen { address, security } => {
            let address = switch.links.listen(Arc::<Switch>::clone(switch), &address, &security)?.to_string();
            return Ok(NetswitchReply::Listening { address });
        }
        NetswitchCommand::AddLink { name, to, security } => {
            switch.links.add(Arc::<Switch>::clone(switch), &name, &to, &security)?
        }
        NetswitchCommand::RemoveLink { name } => switch.links.remove(&name),
        NetswitchCommand::HoldPort { port } => switch.hold(&port)?,
        NetswitchCommand::ReleasePort { port, addresses } => switch.release(&port, &addresses)?,
        NetswitchCommand::MovePort { port } => {
            return Ok(NetswitchReply::Moved { addresses: switch.move_away(&port)? });
        }
        NetswitchCommand::Stats => return Ok(NetswitchReply::Stats(switch.report())),
        NetswitchCommand::Shutdown => switch.close(),
    }
    Ok(NetswitchReply::Done)
}

impl From<SwitchError> for NetswitchRefusal {
    fn from(error: SwitchError) -> Self {
        match error {
            SwitchError::NameTaken { name, network } => Self::NameTaken { name, network },
            SwitchError::NoPort(port) => Self::NoPort(port),
            SwitchError::NotACard(port) => Self::NotACard(port),
            SwitchError::NoNetwork(network) => Self::NoNetwork(network),
            SwitchError::Full(network) => Self::Full(network),
            SwitchError::Open { .. } | SwitchError::Link(_) => Self::Failed(Trouble::of(&error)),
        }
    }
}

/// The switch as the supervisor's child.
pub struct SwitchService {
    switch: Arc<Switch>,
}

impl SwitchService {
    /// A switch without networks.
    #[must_use]
    pub fn new(news: News<Netswitch>) -> Self {
        let switch = Arc::new(Switch::default());
        switch.listen_to(Box::new(move |event| news.tell(event)));
        Self { switch }
    }
}

impl Service for SwitchService {
    type Interface = Netswitch;

    fn carry_out(&mut self, command: NetswitchCommand, call: Call<Netswitch>) {
        call.answer(carry_out(&self.switch, command).map_err(Into::into));
    }

    /// It serves whoever attaches.
    fn is_over(&self) -> bool {
        false
    }

    fn end(self) -> Result<(), NetswitchRefusal> {
        self.switch.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkError;
    use crate::port::PortError;
    use nix::errno::Errno;
    use quasar_peer::TrustError;
    use std::io;

    fn told(error: SwitchError) -> Trouble {
        match NetswitchRefusal::from(error) {
            NetswitchRefusal::Failed(trouble) => trouble,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_shortage_of_the_host_is_told_as_one_from_wherever_it_comes() {
        let interface = |source| PortError::Interface { interface: "q0".into(), source };
        let port = |source| SwitchError::Open { name: "up".into(), source };
        let listen = |errno| LinkError::Listen { address: "[::1]:7".into(), source: io::Error::from(errno) };
        let keys = |errno| LinkError::Keys(TrustError::Gone(io::Error::from(errno)));
        for (errno, passing) in [(Errno::EMFILE, true), (Errno::ENOMEM, true), (Errno::EPERM, false)] {
            let system = io::Error::from(errno).to_string();
            let driver = told(port(PortError::Driver(io::Error::from(errno))));
            assert!(driver.words.starts_with("port up: cannot open /dev/net/tun"), "{driver}");
            let here = told(listen(errno).into());
            assert_eq!(here.words, format!("cannot listen at [::1]:7: {system}"));
            let thread = told(LinkError::Thread(io::Error::from(errno)).into());
            assert_eq!(thread.words, system);
            let all = [driver, here, thread, told(port(interface(errno))), told(keys(errno).into())];
            assert!(all.iter().all(|trouble| trouble.passing == passing), "{errno}: {all:?}");
        }
    }
}
