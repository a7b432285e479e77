//! A VM leaves: the source's supervisor.
//!
//! Up to [`MigrationEvent::HandingOver`] whatever happens leaves the VM running here, also when the migrator
//! is killed: then what it had set is undone here. It is told before the hand-over is sent, so that a migrator
//! that died without telling it has not handed over. From there on this VM never runs here again by itself.

use super::migrator::{Heard, Migrator, inputs};
use super::{Input, Journey, shown};
use crate::daemon::entry::Entry;
use crate::daemon::error::HostError;
use crate::daemon::host::Host;
use crate::daemon::whereabouts::Doubt;
use crate::vm::Request;
use crossbeam_channel::{Receiver, Sender};
use quasar_abi::control::migrator::{MigrationEvent, MigratorCommand, MigratorRefusal};
use quasar_abi::vm::{VmControl, pause};
use quasar_api::{Departure, JourneyEvent};
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often it is looked whether the VM still runs.
const LOOK: Duration = Duration::from_millis(200);

/// Undoes what a migrator that has died may have set.
pub fn recover(vm: &VmControl) {
    for hart in &vm.hart_control {
        hart.throttle_permille.set(0);
    }
    vm.log_active.store(0, Ordering::SeqCst);
    vm.unpause(pause::MIGRATOR);
}

/// How it ended.
enum End {
    There,
    Here(String),
    Unclear(String),
}

impl Host {
    /// Begins to send a VM to another host.
    ///
    /// # Errors
    /// When it cannot begin; whatever comes later is an event of the journey.
    pub fn migrate(self: &Arc<Self>, name: &str, departure: Departure) -> Result<Arc<Journey>, HostError> {
        let entry = self.find(name)?;
        let refused = |reason: &str| HostError::Refused { name: name.to_owned(), reason: reason.to_owned() };
        let Some(security) = self.neighbours.security.clone() else {
            return Err(refused(
                "this host has no key: start it with `quasar host --pki DIR` (or --insecure, on one machine)",
            ));
        };
        if entry.spec.net.is_some() && self.neighbours.switch.is_none() {
            return Err(refused(
                "its network can only follow it when this host's switch takes links: start the host with --listen",
            ));
        }
        let description = self.describe(&entry, true)?;
        let vm = entry.local(&description, departure.shared_disk).ok_or_else(|| refused("it has stopped"))?;
        let Departure { to, limits, shared_disk } = departure;
        let send = MigratorCommand::Send { vm, to: to.clone(), security, limits };
        let way = format!("to {to}");
        self.set_out(&entry, way, move |host, entry, journey, ends| {
            // A VM that goes there may want to come back while strangers crowd our door.
            for address in to.to_socket_addrs().into_iter().flatten() {
                host.strangers.know(address.ip());
            }
            let end = travel(&host, &entry, &journey, ends, send, &to);
            conclude(&host, &entry, &journey, end, &to, shared_disk);
        })
    }

    /// Starts the thread of a journey of a VM that runs here.
    pub(super) fn set_out(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        way: String,
        body: impl FnOnce(Arc<Self>, Arc<Entry>, Arc<Journey>, (Sender<Input>, Receiver<Input>)) + Send + 'static,
    ) -> Result<Arc<Journey>, HostError> {
        let (outbox, inbox) = inputs();
        let journey = Arc::new(Journey::new(way, outbox.clone()));
        // One that has brought it here is waited for.
        drop(self.journey(&entry.spec.name));
        self.registry().set_out(&entry.spec.name, entry, &journey)?;
        let (host, entry, ours) = (Arc::clone(self), Arc::clone(entry), Arc::clone(&journey));
        let run = move || {
            body(host, entry, Arc::clone(&ours), (outbox, inbox));
            ours.end();
        };
        if let Err(source) = std::thread::Builder::new().name("journey".into()).spawn(run) {
            journey.end();
            return Err(HostError::Io { what: "a journey's thread cannot be started".into(), source });
        }
        Ok(journey)
    }
}

fn travel(
    host: &Host,
    entry: &Arc<Entry>,
    journey: &Journey,
    ends: (Sender<Input>, Receiver<Input>),
    send: MigratorCommand,
    to: &str,
) -> End {
    let Some(machine) = entry.handle.machine() else { return End::Here("the VM has stopped".into()) };
    let started = match entry.open_log() {
        Ok(log) => Migrator::start(&entry.migrator(&host.launcher), None, &log, ends, send),
        Err(error) => Err(error.to_string()),
    };
    let mut migrator = match started {
        Ok(migrator) => migrator,
        Err(error) => {
            recover(&machine.vm);
            return End::Here(error);
        }
    };
    journey.set_migrator(migrator.reach());
    let (mut handed_over, mut completed, mut unclear, mut given_up) = (false, false, None, None::<String>);
    let end = loop {
        match migrator.hear(LOOK) {
            Heard::Migration(event) => {
                match &event {
                    MigrationEvent::HandingOver => {
                        handed_over = true;
                        let name = &entry.spec.name;
                        let kept = host.network.depart(name);
                        host.registry().handed_over(name, entry, kept);
                    }
                    MigrationEvent::Completed { .. } => completed = true,
                    MigrationEvent::Unclear { reason } => unclear = Some(reason.clone()),
                    _ => {}
                }
                // How it ended is told when what it means here has been done.
                if unclear.is_none() && !completed {
                    journey.extend(shown(event, to));
                } else if completed {
                    journey.conclude(shown(event, to));
                }
            }
            Heard::Done(_) => break End::There,
            Heard::Failed(refusal @ MigratorRefusal::Unclear { .. }) => {
                break End::Unclear(refusal.to_string());
            }
            Heard::Failed(refusal) => break End::Here(given_up.unwrap_or_else(|| refusal.to_string())),
            Heard::Died(_) if completed => break End::There,
            Heard::Died(how) if handed_over => {
                break End::Unclear(format!(
                    "the migrator {how} during the hand-over; the VM is paused here and may run at {to}: look there \
                     before you resume it"
                ));
            }
            Heard::Died(how) => {
                recover(&machine.vm);
                break End::Here(format!("the migrator {how}"));
            }
            Heard::Nothing => {
                // Nobody comes to rest then.
                if given_up.is_none()
                    && !handed_over
                    && let Some(fault) = entry.handle.board.fault()
                {
                    given_up = Some(fault);
                    migrator.tell(MigratorCommand::Cancel);
                }
            }
        }
    };
    drop(machine);
    migrator.end();
    end
}

fn conclude(host: &Host, entry: &Arc<Entry>, journey: &Journey, end: End, to: &str, shared_disk: bool) {
    match end {
        End::There => {
            host.departed(entry, to, !shared_disk);
            journey.finish();
        }
        End::Here(error) => {
            host.registry().stayed(&entry.spec.name, entry);
            journey.push(JourneyEvent::Failed { error });
        }
        End::Unclear(error) => {
            let doubt = Doubt { at: to.to_owned(), shared_disk };
            host.registry().in_doubt(&entry.spec.name, entry, doubt);
            // An error says that it has ended meanwhile.
            drop(entry.handle.ask_and_wait(Request::Unclear { reason: error.clone() }));
            journey.push(JourneyEvent::Unclear { error });
        }
    }
}
