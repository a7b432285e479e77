//! Ways out, and the programs behind them. A TAP interface is a network's; a passt is one VM's, since it knows one guest.

use super::relay::Relay;
use super::{Attachment, Input, Keeper};
use crate::children::policy::{Decision, History, Role, decide};
use crate::children::watch::Watch;
use crate::daemon::passt::Passt;
use quasar_abi::control::netswitch::{NetswitchCommand, Uplink};
use quasar_api::{Publish, UplinkSpec};
use quasar_places::check_socket;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Instant;

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
    pub(super) history: History,
    pub(super) watch: Watch,
    pub(super) due: Option<Instant>,
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
                    history: History::default(),
                    watch: Watch::default(),
                    due: None,
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
        if seat.generation == 0
            && let Err(error) = self.start_passt(&name)
            && let Some(seat) = self.seat(&name)
        {
            seat.ended = Some(error);
        }
    }

    pub(super) fn start_passt(&mut self, name: &str) -> Result<(), String> {
        let outbox = self.outbox.clone();
        let beside = self.launcher.directory.clone();
        let Some(vm) = self.seat(name).map(|seat| seat.vm.clone()) else { return Ok(()) };
        let socket = self.socket(&vm);
        check_socket(&socket).map_err(|error| error.to_string())?;
        let Some(seat) = self.seat(name) else { return Ok(()) };
        let Some(address) = seat.address else { return Ok(()) };
        seat.generation += 1;
        let (name, generation) = (name.to_owned(), seat.generation);
        let ended = move |how| drop(outbox.send(Input::PasstEnded(name, generation, how)));
        let guest = (address, seat.mac);
        let started = Passt::spawn(&beside, &socket, guest, &seat.publish, ended);
        seat.process = Some(started.map_err(|error| error.to_string())?);
        (seat.ended, seat.watch) = (None, Watch::default());
        Ok(())
    }

    pub(super) fn start_due_passts(&mut self, now: Instant) {
        let due = |u: &NetworkUplink| u.passt().is_some_and(|s| s.due.is_some_and(|at| at <= now));
        let names: Vec<String> =
            self.uplinks.iter().filter(|(_, u)| due(u)).map(|(n, _)| n.clone()).collect();
        for name in names {
            if let Some(seat) = self.seat(&name) {
                seat.due = None;
            }
            if let Err(error) = self.start_passt(&name) {
                log::error!("{name}: {error}");
                self.replace_passt(&name);
            }
        }
    }

    pub(super) fn passt_ended(&mut self, name: &str, generation: u32, how: String) {
        let Some(seat) = self.seat(name) else { return };
        if seat.generation != generation {
            return;
        }
        let words = seat.process.take().map(|p| p.last_words()).unwrap_or_default();
        let words = if words.is_empty() { words } else { format!(": {words}") };
        let how = format!("passt of VM {} {how}{words}", seat.vm);
        log::warn!("{how}");
        seat.ended = Some(how);
        let vm = seat.vm.clone();
        if self.waiting.iter().any(|w| w.vm == vm) {
            // It never worked: whoever waits is told why.
            return;
        }
        self.replace_passt(name);
    }

    /// There is none, and shall be one again.
    fn replace_passt(&mut self, name: &str) {
        let now = self.born.elapsed();
        let Some(seat) = self.seat(name) else { return };
        let (history, decision) = decide(&seat.history, Role::Replaceable, now);
        seat.history = history;
        if let Decision::Restart { after } = decision {
            seat.due = Some(Instant::now() + after);
        }
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
