//! Commands that do one thing to each of several VMs. One that cannot be done is told, and does not keep the others from
//! being tried.

use super::access;
use super::args::{Kill, Stop};
use super::client::Client;
use super::complete::PROCESSES;
use super::progress::Waiting;
use hyper::Method;
use quasar_abi::output::OutputError;
use quasar_abi::{note, output, say, words};
use quasar_api::{KillSpec, Killed, Phase, VmView, WithKilled};
use std::process::ExitCode;

/// How it went with each.
#[derive(Debug, Default)]
pub struct Report {
    failed: bool,
    /// What was done could not be told.
    untold: Option<OutputError>,
}

impl Report {
    /// Takes one more result; an error is told at once.
    pub fn add(&mut self, result: anyhow::Result<()>) {
        match result.map_err(|error| error.downcast::<OutputError>()) {
            Ok(()) => {}
            Err(Ok(output)) => self.untold = Some(output),
            Err(Err(error)) => {
                note!("quasar: {}", words::whole(error.as_ref()));
                self.failed = true;
            }
        }
    }

    /// 1 when one of them failed.
    #[must_use]
    pub fn conclude(self) -> ExitCode {
        match self.untold {
            Some(output) => output.conclude(),
            None if self.failed => ExitCode::FAILURE,
            None => ExitCode::SUCCESS,
        }
    }
}

/// Asks for something that is answered by the VM as it is then.
async fn ask(client: &Client, name: &str, what: &str) -> anyhow::Result<VmView> {
    Ok(client.post(&format!("/v1/vms/{name}/{what}")).await?)
}

/// Asks for it and says what the VM is then.
///
/// # Errors
/// With a message for people.
pub async fn change(client: &Client, name: &str, what: &str) -> anyhow::Result<()> {
    let view = ask(client, name, what).await?;
    say!("{name}: {}", view.status.phase.word())?;
    Ok(())
}

/// [`change`] of each VM.
pub async fn change_each(client: &Client, names: &[String], what: &str) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    for name in names {
        report.add(change(client, name, what).await);
    }
    Ok(report.conclude())
}

async fn stop_one(client: &Client, name: &str, Stop { force, timeout, .. }: &Stop) -> anyhow::Result<()> {
    let what = if *force { "being ended" } else { "shutting down" };
    let _wait = Waiting::begin(format!("{name} is {what}"));
    ask(client, name, &format!("stop?force={force}&timeout={timeout}")).await.map(drop)
}

/// `quasar stop`.
///
/// # Errors
/// With a message for people.
pub async fn stop(client: &Client, order: &Stop) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    for name in &order.names {
        let stopped = stop_one(client, name, order).await;
        if stopped.is_ok() {
            say!("{name}: stopped")?;
        }
        report.add(stopped);
    }
    Ok(report.conclude())
}

async fn start_one(client: &Client, name: &str) -> anyhow::Result<()> {
    let wait = Waiting::begin(format!("starting {name}"));
    let view = ask(client, name, "start").await;
    drop(wait);
    let view = view?;
    say!("{name}: {}", view.status.phase.word())?;
    output::warn(&access::ways_in(&view, false));
    Ok(())
}

/// `quasar start`.
///
/// # Errors
/// With a message for people.
pub async fn start(client: &Client, names: &[String]) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    for name in names {
        report.add(start_one(client, name).await);
    }
    Ok(report.conclude())
}

/// `quasar restart`.
///
/// # Errors
/// With a message for people.
pub async fn restart(client: &Client, order: &Stop) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    for name in &order.names {
        let stopped = stop_one(client, name, order).await;
        report.add(match stopped {
            Ok(()) => start_one(client, name).await,
            Err(error) => Err(error),
        });
    }
    Ok(report.conclude())
}

/// `quasar rm`.
///
/// # Errors
/// With a message for people.
pub async fn remove(client: &Client, names: &[String], force: bool) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    for name in names {
        let removed = client.delete(&format!("/v1/vms/{name}?force={force}")).await;
        if removed.is_ok() {
            say!("{name}: removed")?;
        }
        report.add(removed.map(drop).map_err(Into::into));
    }
    Ok(report.conclude())
}

/// Whether a word means a process rather than a VM.
fn is_process(word: &str) -> bool {
    let kind = word.trim_end_matches(|c: char| c.is_ascii_digit());
    PROCESSES.contains(&word) || (kind == "cpu" && word.len() > kind.len())
}

/// `quasar kill`: processes of a VM, or whole VMs.
///
/// # Errors
/// With a message for people.
pub async fn kill(client: &Client, order: &Kill) -> anyhow::Result<ExitCode> {
    let Kill { name, processes, signal } = order;
    let whole = processes.is_empty()
        || !processes.iter().any(|word| is_process(word)) && {
            let vms: Vec<VmView> = client.get("/v1/vms").await?;
            processes.iter().any(|word| vms.iter().any(|vm| vm.name == *word))
        };
    if whole {
        return end(client, std::iter::once(name).chain(processes)).await;
    }
    let spec = KillSpec { processes: processes.clone(), signal: signal.clone() };
    let WithKilled { killed, .. } =
        client.call(Method::POST, &format!("/v1/vms/{name}/kill"), Some(&spec)).await?;
    for Killed { role, pid, signal } in killed {
        say!("{name}: {role} (process {pid}) was sent {signal}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends whole VMs at once.
async fn end(client: &Client, names: impl Iterator<Item = &String>) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    for name in names {
        let ended = async {
            let before: VmView = client.get(&format!("/v1/vms/{name}")).await?;
            if before.status.phase == Phase::Stopped {
                say!("{name}: was stopped already")?;
                return Ok(());
            }
            ask(client, name, "stop?force=true").await?;
            say!("{name}: ended at once, without asking its guest; `quasar start {name}` boots it again")?;
            Ok(())
        };
        report.add(ended.await);
    }
    Ok(report.conclude())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_from_vms() {
        for word in ["mmu", "cpu", "cpu0", "cpu15", "passt", "migrator"] {
            assert!(is_process(word), "{word}");
        }
        for word in ["web", "mmu0", "cpux", "cp", ""] {
            assert!(!is_process(word), "{word}");
        }
    }

    #[test]
    fn one_failure_is_enough_for_the_exit_code() {
        let mut report = Report::default();
        report.add(Ok(()));
        assert_eq!(
            format!("{:?}", Report { failed: report.failed, untold: None }.conclude()),
            format!("{:?}", ExitCode::SUCCESS)
        );
        report.add(Err(anyhow::anyhow!("no")));
        report.add(Ok(()));
        assert_eq!(format!("{:?}", report.conclude()), format!("{:?}", ExitCode::FAILURE));
    }
}
