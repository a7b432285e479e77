//! Killing processes of a VM, by what they are: nobody needs to look for their numbers, or could hit another VM's.

use super::error::HostError;
use super::host::Host;
use crate::vm::{Request, SwapRequest};
use nix::sys::signal::Signal;
use quasar_api::{KillSpec, Killed};
use std::str::FromStr;

const KNOWN: &str = "cpu (all harts), cpu0, cpu1, …, mmu, devices, netswitch, passt or migrator";

/// A signal by its name or number.
fn signal(text: &str) -> Result<Signal, String> {
    let number = text.parse().ok().and_then(|number: i32| Signal::try_from(number).ok());
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let named = || Signal::from_str(&format!("SIG{name}")).ok();
    number
        .or_else(named)
        .ok_or_else(|| format!("knows no signal {text:?}: it is a name like KILL, TERM or STOP, or a number"))
}

/// Whom a role means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Crew(Vec<quasar_abi::party::PartyId>),
    Switch,
    Passt,
    Migrator,
}

fn target(role: &str, harts: u8) -> Result<Target, String> {
    match role {
        "netswitch" => Ok(Target::Switch),
        "passt" => Ok(Target::Passt),
        "migrator" => Ok(Target::Migrator),
        _ => SwapRequest::parties(role, harts).map(Target::Crew).ok_or_else(|| {
            let hart = role.strip_prefix("cpu").is_some_and(|n| n.parse::<u32>().is_ok());
            if hart {
                format!("has no {role}: its harts are cpu0 to cpu{}", harts - 1)
            } else {
                format!("has no process {role:?}: it is {KNOWN}")
            }
        }),
    }
}

impl Host {
    /// Sends a signal to processes of a VM. Every word is checked before the first one is sent.
    ///
    /// # Errors
    /// [`HostError::Refused`], when a word is not known or a process is not there.
    pub fn kill(&self, name: &str, spec: &KillSpec) -> Result<Vec<Killed>, HostError> {
        let entry = self.find(name)?;
        let refused = |state: String| HostError::NotNow {
            name: name.to_owned(),
            state,
            hint: "`quasar ps --processes` lists the processes".into(),
        };
        let absent = |reason: String| refused(format!("cannot have it killed: {reason}"));
        let signal = signal(&spec.signal).map_err(refused)?;
        let harts = entry.spec.machine.harts;
        let roles: Result<Vec<_>, _> = spec.processes.iter().map(|role| target(role, harts)).collect();
        let roles = roles.map_err(refused)?;
        if roles.is_empty() {
            return Err(refused(format!("has several processes: say which of {KNOWN}")));
        }
        let migrator = self.journey(&entry.spec.name).and_then(|journey| journey.migrator());
        if (roles.contains(&Target::Passt) || roles.contains(&Target::Switch)) && entry.spec.net.is_none() {
            return Err(refused("has no network card".into()));
        }
        if roles.contains(&Target::Migrator) && migrator.is_none() {
            return Err(refused("is on no journey, so it has no migrator".into()));
        }
        let mut killed = vec![];
        for target in roles {
            let mut add = |role: &str, pid: u32| {
                killed.push(Killed { role: role.to_owned(), pid, signal: signal.as_str().to_owned() });
            };
            let number =
                |pid: &serde_json::Value| pid.as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
            match target {
                Target::Crew(parties) => {
                    let request = Request::Signal { parties, signal: signal as i32 };
                    let pids = entry.handle.ask_and_wait(request).map_err(absent)?;
                    pids.as_object().into_iter().flatten().for_each(|(role, pid)| add(role, number(pid)));
                }
                Target::Switch => {
                    let pid = self.network.signal(None, signal as i32).map_err(absent)?;
                    add("netswitch", number(&pid));
                }
                Target::Passt => {
                    let pid = self.network.signal(Some(&entry.spec.name), signal as i32).map_err(absent)?;
                    add("passt", number(&pid));
                }
                Target::Migrator => {
                    if let Some(reach) = &migrator {
                        // One that has just ended had it coming.
                        drop(reach.pidfd.send(signal as i32));
                        add("migrator", reach.pid);
                    }
                }
            }
        }
        Ok(killed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::party::PartyId;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["KILL", "SIGKILL", "kill", "9"] {
            assert_eq!(signal(text), Ok(Signal::SIGKILL), "{text}");
        }
        assert_eq!(signal("sigstop"), Ok(Signal::SIGSTOP));
        for text in ["", "SIG", "0", "-9", "65", "KILLS", "SIGSIGKILL"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn roles_are_those_of_this_vm() {
        assert_eq!(target("cpu", 2), Ok(Target::Crew(vec![PartyId::Hart(0), PartyId::Hart(1)])));
        assert_eq!(target("cpu1", 2), Ok(Target::Crew(vec![PartyId::Hart(1)])));
        assert_eq!(target("passt", 1), Ok(Target::Passt));
        assert!(target("cpu2", 2).expect_err("hart").contains("cpu0 to cpu1"));
        assert!(target("supervisor", 1).expect_err("role").contains("netswitch"));
    }
}
