//! A VM goes to a file.

use super::migrator::{Heard, Migrator};
use super::outgoing::recover;
use super::{Input, Journey};
use crate::daemon::entry::Entry;
use crate::daemon::error::HostError;
use crate::daemon::host::Host;
use crossbeam_channel::{Receiver, Sender};
use quasar_abi::control::migrator::{MigratorCommand, MigratorReply, Suspended};
use quasar_api::{JourneyEvent, Suspension};
use std::sync::Arc;
use std::time::Duration;

const LOOK: Duration = Duration::from_secs(1);

impl Host {
    /// Begins to write a VM to a file. When that is whole the VM is no longer here.
    ///
    /// # Errors
    /// When it cannot begin.
    pub fn suspend(self: &Arc<Self>, name: &str, suspension: Suspension) -> Result<Arc<Journey>, HostError> {
        let entry = self.find(name)?;
        let refused = |reason: String| HostError::Refused { name: name.to_owned(), reason };
        let Suspension { file, shared_disk } = suspension;
        if !file.is_absolute() {
            return Err(refused(format!("{}: the path must be absolute", file.display())));
        }
        if file.exists() {
            return Err(refused(format!(
                "{} exists already; remove it or choose another name",
                file.display()
            )));
        }
        let description = self.describe(&entry, false)?;
        let vm = entry.local(&description, shared_disk).ok_or_else(|| refused("it has stopped".into()))?;
        let way = format!("to {}", file.display());
        let command = MigratorCommand::Suspend { vm, file };
        self.set_out(&entry, way, move |host, entry, journey, ends| {
            match write(&host, &entry, &journey, ends, command) {
                Ok(Suspended { file_bytes, raw_bytes, hash }) => {
                    host.leave(&entry, !shared_disk);
                    journey.push(JourneyEvent::Suspended { file_bytes, raw_bytes, hash });
                }
                Err(error) => journey.push(JourneyEvent::Failed { error }),
            }
        })
    }
}

fn write(
    host: &Host,
    entry: &Entry,
    journey: &Journey,
    ends: (Sender<Input>, Receiver<Input>),
    command: MigratorCommand,
) -> Result<Suspended, String> {
    let machine = entry.handle.machine().ok_or("the VM has stopped")?;
    let log = entry.open_log().map_err(|error| error.to_string())?;
    let result = Migrator::start(&entry.migrator(&host.launcher), None, &log, ends, command).and_then(
        |mut migrator| {
            journey.set_migrator(migrator.reach());
            let mut given_up = None::<String>;
            let result = loop {
                match migrator.hear(LOOK) {
                    Heard::Done(MigratorReply::Suspended(written)) => break Ok(written),
                    Heard::Done(MigratorReply::Done) => {
                        break Err("the migrator did not say what it has written".into());
                    }
                    Heard::Failed(refusal) => break Err(given_up.unwrap_or_else(|| refusal.to_string())),
                    Heard::Died(how) => break Err(format!("the migrator {how}")),
                    Heard::Nothing => {
                        if given_up.is_none()
                            && let Some(fault) = entry.handle.board.fault()
                        {
                            given_up = Some(fault);
                            migrator.tell(MigratorCommand::Cancel);
                        }
                    }
                    Heard::Migration(_) => {}
                }
            };
            migrator.end();
            result
        },
    );
    if result.is_err() {
        recover(&machine.vm);
    }
    result
}
