//! The networks' ways out, and the programs behind them.

use super::{Attachment, Input, Keeper, uplink_name};
use crate::children::policy::{Decision, History, Role, decide};
use crate::daemon::passt::Passt;
use crate::daemon::paths::check_socket;
use crate::daemon::spec::{Publish, UplinkSpec};
use quasar_abi::control::netswitch::NetswitchCommand;
use std::time::Instant;

pub(super) struct PasstSeat {
    pub(super) process: Option<Passt>,
    pub(super) generation: u32,
    pub(super) history: History,
    pub(super) due: Option<Instant>,
    /// How it ended, while nobody has looked.
    pub(super) ended: Option<String>,
}

pub(super) struct NetworkUplink {
    pub(super) spec: UplinkSpec,
    pub(super) publish: Vec<Publish>,
    pub(super) passt: Option<PasstSeat>,
}

impl Keeper {
    /// Makes the network's uplink if it has none yet.
    pub(super) fn open_uplink(&mut self, wanted: &Attachment) -> Result<(), String> {
        let network = &wanted.network;
        if let Some(there) = self.uplinks.get(network) {
            let same = there.spec == wanted.uplink || wanted.uplink == UplinkSpec::None;
            return if same && wanted.publish.iter().all(|p| there.publish.contains(p)) {
                Ok(())
            } else {
                Err(format!(
                    "network {network} has the uplink {} already; a second one, or ports published later, are not \
                     possible: start the VM that publishes ports first, or give this one a network of its own",
                    there.spec
                ))
            };
        }
        let passt = match &wanted.uplink {
            UplinkSpec::None => return Ok(()),
            UplinkSpec::Tap(_) => None,
            UplinkSpec::Passt => Some(PasstSeat {
                process: None,
                generation: 0,
                history: History::default(),
                due: None,
                ended: None,
            }),
        };
        let uplink = NetworkUplink { spec: wanted.uplink.clone(), publish: wanted.publish.clone(), passt };
        self.uplinks.insert(network.clone(), uplink);
        self.start_passt(network)
    }

    pub(super) fn start_passt(&mut self, network: &str) -> Result<(), String> {
        let socket = self.directory.join(format!("{network}.passt"));
        check_socket(&socket).map_err(|error| error.to_string())?;
        let outbox = self.outbox.clone();
        let Some(uplink) = self.uplinks.get_mut(network) else { return Ok(()) };
        let Some(seat) = &mut uplink.passt else { return Ok(()) };
        seat.generation += 1;
        let (name, generation) = (network.to_owned(), seat.generation);
        let ended = move |how| drop(outbox.send(Input::PasstEnded(name, generation, how)));
        seat.process = Some(
            Passt::spawn(&self.launcher.directory, &socket, &uplink.publish, ended)
                .map_err(|e| e.to_string())?,
        );
        seat.ended = None;
        Ok(())
    }

    pub(super) fn passt_ended(&mut self, network: &str, generation: u32, how: String) {
        let now = self.born.elapsed();
        let Some(seat) = self.uplinks.get_mut(network).and_then(|u| u.passt.as_mut()) else { return };
        if seat.generation != generation {
            return;
        }
        let words = seat.process.take().map(|p| p.last_words()).unwrap_or_default();
        let words = if words.is_empty() { words } else { format!(": {words}") };
        let how = format!("passt of network {network} {how}{words}");
        log::warn!("{how}");
        seat.ended = Some(how);
        if self.waiting.iter().any(|w| w.network == network) {
            // It never worked: whoever waits is told why.
            return;
        }
        let (history, decision) = decide(&seat.history, Role::Replaceable, now);
        seat.history = history;
        match decision {
            Decision::Restart { after } => seat.due = Some(Instant::now() + after),
            Decision::GiveUp { why } => {
                log::error!("passt of network {network} {why}; the network has no way out")
            }
        }
    }

    pub(super) fn close_unused(&mut self, network: &str) {
        if self.ports.values().any(|p| p.network == network) || self.away.values().any(|(n, _)| n == network)
        {
            return;
        }
        if self.uplinks.remove(network).is_some() {
            self.send(NetswitchCommand::RemoveUplink { name: uplink_name(network) });
        }
    }
}
