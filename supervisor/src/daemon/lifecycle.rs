//! Stopping a VM and starting it again, from what it was made from.

use super::entry::{Entry, Held, Past};
use super::error::{HostError, io};
use super::host::{Host, Start, claims, disks_are_free, examine, examine_again, open_log};
use crate::vm::{Request, VmHandle};
use quasar_api::{Phase, VmSpec, VmView};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What is asked needs a VM that runs.
pub(super) fn has_stopped(name: &str) -> HostError {
    let hint = format!("`quasar start {name}` boots it again");
    HostError::NotNow { name: name.to_owned(), state: "has stopped".into(), hint }
}

fn paused(name: &str, reason: Option<String>) -> HostError {
    let state = match reason {
        Some(reason) => format!("is paused: {reason}"),
        None => "is paused, and hears its power key only when it runs".to_owned(),
    };
    let hint = format!("resume it first (`quasar resume {name}`), or end it at once (`quasar kill {name}`)");
    HostError::NotNow { name: name.to_owned(), state, hint }
}

impl Host {
    /// Makes a VM without starting it: its name is taken, nothing of it runs.
    ///
    /// # Errors
    /// [`HostError`]; nothing is left of the attempt.
    pub fn define(self: &Arc<Self>, spec: VmSpec) -> Result<VmView, HostError> {
        examine(&spec)?;
        let name = spec.name.clone();
        let directory = self.paths.vm(&name);
        self.registry().reserve(&name, false, vec![])?;
        let defined = self.not_started(spec, directory);
        Ok(self.show(&self.list_made(&name, defined, Start::Boot)?))
    }

    fn not_started(&self, spec: VmSpec, directory: PathBuf) -> Result<Entry, HostError> {
        std::fs::create_dir_all(&directory).map_err(io(format!("cannot make {}", directory.display())))?;
        let past = Past { home: self.id.clone(), ..Past::default() };
        let log = open_log(&directory.join("log"))?;
        let (handle, held) = (VmHandle::not_started(), Held::default());
        let links = Arc::clone(&self.network.links);
        Ok(Entry::new(spec, handle, directory, log, held, past, links))
    }

    /// Starts a VM that has stopped: boots it with what it was made from. One that runs is left as it is.
    ///
    /// # Errors
    /// [`HostError`]; the VM is then listed as before.
    pub fn start(self: &Arc<Self>, name: &str) -> Result<Arc<Entry>, HostError> {
        let old = self.find(name)?;
        let not_now = |state: &str, hint: String| {
            Err(HostError::NotNow { name: name.to_owned(), state: state.to_owned(), hint })
        };
        match old.handle.status().phase {
            Phase::Stopped => {}
            Phase::Starting | Phase::Running => return Ok(old),
            Phase::Paused => return not_now("is paused", format!("`quasar resume {name}` lets it go on")),
            Phase::Failed => {
                return not_now("has failed", format!("`quasar restart {name}` ends it and boots it again"));
            }
            Phase::Arriving | Phase::Stopping | Phase::Away => {
                return not_now(
                    &format!("is {}", old.handle.status().phase.word()),
                    "wait until that is over; `quasar ps` shows it".into(),
                );
            }
        }
        examine_again(&old.spec)?;
        let claims = claims(&old.spec)?;
        {
            let mut registry = self.registry();
            disks_are_free(&registry, name, &claims)?;
            registry.restart(name, &old, old.view_as(Phase::Starting), claims)?;
        }
        // Whoever watches it does the same; its port and memory must have gone before there are new ones.
        self.detach(&old);
        old.release();
        // What it left on other hosts ended with it: it is at home here.
        let past = Past { home: self.id.clone(), ..Past::default() };
        let made = self.make(old.spec.clone(), past, Start::Boot).map(|entry| entry.in_place_of(&old));
        self.list_made(name, made, Start::Boot)
    }

    /// Shuts a VM down: presses its power key and waits so long, or ends it by force without `patience`. One that has
    /// failed hears no key and is ended; one that has stopped is left as it is.
    ///
    /// # Errors
    /// [`HostError`]; the VM runs on then.
    pub fn stop(&self, name: &str, patience: Option<Duration>) -> Result<Arc<Entry>, HostError> {
        let entry = self.find(name)?;
        let status = entry.handle.status();
        let request = match (status.phase, patience) {
            (Phase::Stopped, _) => return Ok(entry),
            (Phase::Failed, _) | (_, None) => Request::Stop,
            (Phase::Paused, Some(_)) => return Err(paused(name, status.reason)),
            (_, Some(timeout)) => {
                if let Some(journey) = self.journey(name) {
                    return Err(HostError::Travelling { name: name.to_owned(), way: journey.view().way });
                }
                Request::Shutdown { timeout }
            }
        };
        let asked = entry.handle.ask_and_wait(request);
        match asked {
            Err(reason) if entry.handle.status().phase != Phase::Stopped => {
                Err(HostError::Refused { name: name.to_owned(), reason })
            }
            // It may have stopped by itself before it was asked.
            _ => Ok(entry),
        }
    }
}
