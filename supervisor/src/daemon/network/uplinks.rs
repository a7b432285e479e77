//! Ways out, and the programs behind them. A TAP interface is a network's; a passt is one VM's, since it knows one guest.

use super::relay::Relay;
use super::{Attachment, Input, Keeper};
use crate::children::policy::Role;
use crate::children::seat::{Action, Event, Seat, Told};
use crate::children::trouble::is_momentary;
use crate::daemon::passt::{Passt, PasstError};
use quasar_abi::control::netswitch::{NetswitchCommand, Uplink};
use quasar_api::{Publish, UplinkSpec};
use quasar_places::check_socket;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// A program behind an uplink.
pub(super) struct PasstSeat {
    pub(super) vm: String,
    pub(super) mac: [u8; 6],
    /// What the program publishes.
    pub(super) publish: Vec<Publish>,
    /// What leads to some of that from IPv6; they end with the uplink.
    _relays: Vec<Relay>,
    /// The VM's address. The program is started when it is known.
    pub(super) address: Option<Ipv4Addr>,
    pub(super) process: Option<Passt>,
    pub(super) generation: u32,
    pub(super) seat: Seat,
    /// How it ended, while nobody has looked.
    pub(super) ended: Option<String>,
}

pub(super) enum UplinkKind {
    /// An interface of the host.
    Tap(String),
    Passt(Box<PasstSeat>),
}

/// A way out of a network.
pub(super) struct NetworkUplink {
    pub(super) network: String,
    pub(super) kind: UplinkKind,
}

impl NetworkUplink {
    pub(super) fn passt(&self) -> Option<&PasstSeat> {
        match &self.kind {
            UplinkKind::Passt(seat) => Some(seat),
            UplinkKind::Tap(_) => None,
        }
    }

    pub(super) fn passt_mut(&mut self) -> Option<&mut PasstSeat> {
        match &mut self.kind {
            UplinkKind::Passt(seat) => Some(seat),
            UplinkKind::Tap(_) => None,
        }
    }
}

/// Name of the uplink of a VM that has one of its own.
pub(super) fn passt_name(vm: &str) -> String {
    format!("{vm}/passt")
}

fn tap_name(network: &str) -> String {
    format!("{network}/tap")
}

impl Keeper {
    pub(super) fn tap_of(&self, network: &str) -> Option<&str> {
        match &self.uplinks.get(&tap_name(network))?.kind {
            UplinkKind::Tap(interface) => Some(interface),
            UplinkKind::Passt(_) => None,
        }
    }

    fn seat(&mut self, name: &str) -> Option<&mut PasstSeat> {
        self.uplinks.get_mut(name)?.passt_mut()
    }

    /// Makes the uplink that a VM wants, if it is not there yet.
    pub(super) fn open_uplink(&mut self, wanted: &Attachment) -> Result<(), String> {
        let (vm, network) = (&wanted.vm, &wanted.network);
        let tap = self.tap_of(network).map(ToOwned::to_owned);
        let (name, kind) = match (&wanted.uplink, tap) {
            (UplinkSpec::None, _) => return Ok(()),
            (UplinkSpec::Tap(interface), Some(there)) if *interface == there => return Ok(()),
            // Who publishes nothing is content with the network's way out.
            (UplinkSpec::Passt, Some(_)) if wanted.publish.is_empty() => return Ok(()),
            (_, Some(there)) => {
                return Err(format!(
                    "network {network} has the uplink tap:{there}, and cannot have another beside it; use --uplink \
                     none, or another network"
                ));
            }
            (UplinkSpec::Tap(interface), None) => {
                let others = |u: &NetworkUplink| u.network == *network;
                if let Some(seat) = self.uplinks.values().find(|u| others(u)).and_then(NetworkUplink::passt) {
                    return Err(format!(
                        "on network {network} VM {} has the uplink passt; a TAP interface cannot be beside it: use \
                         another network",
                        seat.vm
                    ));
                }
                (tap_name(network), UplinkKind::Tap(interface.clone()))
            }
            (UplinkSpec::Passt, None) => {
                // A VM that comes home finds its own.
                if self.uplinks.contains_key(&passt_name(vm)) {
                    return Ok(());
                }
                let mut taken = vec![];
                for publish in &wanted.publish {
                    taken.push(Relay::take(publish)?);
                }
                let (publish, relays): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
                let seat = PasstSeat {
                    vm: vm.clone(),
                    mac: wanted.mac,
                    publish,
                    _relays: relays.into_iter().flatten().collect(),
                    address: None,
                    process: None,
                    generation: 0,
                    seat: Seat::new(Role::Replaceable, self.launcher.patience),
                    ended: None,
                };
                (passt_name(vm), UplinkKind::Passt(Box::new(seat)))
            }
        };
        self.uplinks.insert(name, NetworkUplink { network: network.clone(), kind });
        Ok(())
    }

    fn socket(&self, vm: &str) -> PathBuf {
        self.directory.join(format!("{vm}.passt"))
    }

    pub(super) fn uplink_commands(&self) -> Vec<NetswitchCommand> {
        let command = |(name, uplink): (&String, &NetworkUplink)| {
            let (network, name) = (uplink.network.clone(), name.clone());
            let uplink = match &uplink.kind {
                UplinkKind::Tap(interface) => Uplink::Tap { interface: interface.clone() },
                UplinkKind::Passt(seat) => Uplink::Stream { path: self.socket(&seat.vm), owner: seat.mac },
            };
            NetswitchCommand::AddUplink { network, name, uplink }
        };
        self.uplinks.iter().map(command).collect()
    }

    /// The switch has given a VM this address.
    pub(super) fn leased(&mut self, vm: &str, address: Ipv4Addr) {
        let Some(port) = self.ports.get_mut(vm) else { return };
        port.address = Some(address);
        self.show_addresses();
        let name = passt_name(vm);
        let Some(seat) = self.seat(&name) else { return };
        // One that runs follows the packets of its guest.
        seat.address = Some(address);
        if seat.generation == 0 {
            self.step_passt(&name, Event::Wanted);
        }
    }

    /// Tells the seat of a passt what has happened, and does what it says.
    pub(super) fn step_passt(&mut self, name: &str, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.born.elapsed();
            let Some(place) = self.seat(name) else { return };
            for action in place.seat.step(event, now) {
                events.extend(self.act_on_passt(name, action));
            }
        }
    }

    pub(super) fn step_passts(&mut self, event: &Event) {
        let names: Vec<String> = self.uplinks.keys().cloned().collect();
        for name in names {
            self.step_passt(&name, event.clone());
        }
    }

    fn act_on_passt(&mut self, name: &str, action: Action) -> Option<Event> {
        let place = self.seat(name)?;
        match action {
            Action::Start => return Some(self.spawn_passt(name)),
            // It is told nothing: it has its command line.
            Action::Attach => {}
            Action::ShutDown | Action::Kill => place.process.as_ref()?.reach().pidfd.kill(),
            Action::Vacate => place.process = None,
            Action::Tell(Told::Serving) => place.ended = None,
            Action::Tell(Told::Ended) => {}
            Action::Tell(Told::Notice(text)) => log::warn!("passt of VM {} {text}", place.vm),
            Action::Tell(Told::Died { how, .. }) => {
                let how = format!("passt of VM {} {how}", place.vm);
                log::warn!("{how}");
                place.ended = Some(how);
                let vm = place.vm.clone();
                // It never worked: whoever waits is told why.
                return self.waiting.iter().any(|waiting| waiting.vm == vm).then_some(Event::Unwanted);
            }
        }
        None
    }

    fn spawn_passt(&mut self, name: &str) -> Event {
        match self.new_passt(name) {
            Ok(process) => {
                if let Some(place) = self.seat(name) {
                    place.process = Some(process);
                }
                Event::Started
            }
            Err(error) => {
                let passing = matches!(&error, PasstError::Start(error) if is_momentary(error));
                Event::NotStarted { why: error.to_string(), passing }
            }
        }
    }

    fn new_passt(&mut self, name: &str) -> Result<Passt, PasstError> {
        let (outbox, beside) = (self.outbox.clone(), self.launcher.directory.clone());
        let gone = || PasstError::Start(std::io::ErrorKind::NotFound.into());
        let vm = self.seat(name).ok_or_else(gone)?.vm.clone();
        let socket = self.socket(&vm);
        check_socket(&socket)?;
        let place = self.seat(name).ok_or_else(gone)?;
        let address = place.address.ok_or_else(gone)?;
        place.generation += 1;
        let (name, generation) = (name.to_owned(), place.generation);
        let ended = move |how| drop(outbox.send(Input::PasstEnded(name, generation, how)));
        Passt::spawn(&beside, &socket, (address, place.mac), &place.publish, ended)
    }

    /// One that listens has bound its published ports.
    pub(super) fn look_whether_passts_listen(&mut self) {
        let listens =
            |seat: &PasstSeat| seat.seat.is_starting() && seat.process.as_ref().is_some_and(Passt::listens);
        let of = |(name, uplink): (&String, &NetworkUplink)| {
            uplink.passt().is_some_and(listens).then(|| name.clone())
        };
        let names: Vec<String> = self.uplinks.iter().filter_map(of).collect();
        for name in names {
            self.step_passt(&name, Event::Hello);
            self.step_passt(&name, Event::Serves);
        }
    }

    pub(super) fn passt_ended(&mut self, name: &str, generation: u32, how: &str) {
        let Some(place) = self.seat(name).filter(|place| place.generation == generation) else { return };
        let words = place.process.as_ref().map(Passt::last_words).unwrap_or_default();
        let how = if words.is_empty() { how.to_owned() } else { format!("{how}: {words}") };
        self.step_passt(name, Event::Ended(how));
    }

    /// Ends the ways out of VMs and networks that are no more.
    pub(super) fn close_unused(&mut self) {
        let (ports, away) = (&self.ports, &self.away);
        let used = |uplink: &NetworkUplink| match &uplink.kind {
            UplinkKind::Passt(seat) => ports.contains_key(&seat.vm) || away.contains_key(&seat.vm),
            UplinkKind::Tap(_) => {
                ports.values().any(|port| port.network == uplink.network)
                    || away.values().any(|(network, _)| *network == uplink.network)
            }
        };
        let unused: Vec<String> =
            self.uplinks.iter().filter(|(_, uplink)| !used(uplink)).map(|(name, _)| name.clone()).collect();
        for name in unused {
            self.uplinks.remove(&name);
            self.send(NetswitchCommand::RemoveUplink { name });
        }
    }
}
