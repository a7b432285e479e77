//! `quasar migrate`, `quasar suspend`, `quasar resume`.

use super::args::{ConvergeChoice, Migrate};
use super::client::{Client, ClientError};
use super::daemon;
use super::display::Display;
use super::progress::Waiting;
use super::vms::{self, Report};
use anyhow::{Context, bail};
use hyper::Method;
use quasar_abi::control::migrator::{Converge, Limits};
use quasar_abi::say;
use quasar_api::{Departure, JourneyEvent, Return, Suspension, VmView};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// The order as the daemon takes it.
fn departure(order: &Migrate, to: &str) -> Departure {
    let converge = match order.converge {
        ConvergeChoice::Throttle => Converge::Throttle,
        ConvergeChoice::Pause => Converge::Pause,
        ConvergeChoice::Abort => Converge::Abort,
    };
    let limits = Limits {
        max_downtime_us: order.max_downtime.saturating_mul(1000),
        bandwidth: order.bandwidth.map_or(0, |rate| rate.0),
        timeout_s: order.timeout,
        converge,
        delta_bytes: order.delta_memory.map(|size| size.0),
        connections: order.connections,
    };
    Departure { to: to.to_owned(), limits, shared_disk: order.shared_disk }
}

/// `quasar migrate`.
///
/// # Errors
/// With a message for people.
pub async fn migrate(client: &Client, order: &Migrate) -> anyhow::Result<ExitCode> {
    let (name, path) = (&order.name, format!("/v1/vms/{}/migration", order.name));
    let Some(to) = &order.to else {
        let last: Option<JourneyEvent> = client.call(Method::DELETE, &path, None::<&()>).await?;
        return match last {
            Some(JourneyEvent::Failed { .. }) => {
                say!("{name}: the migration was given up; it runs on here")?;
                Ok(ExitCode::SUCCESS)
            }
            Some(JourneyEvent::Completed { to, .. }) => bail!("too late: {name} runs at {to}"),
            Some(JourneyEvent::Suspended { .. }) => bail!("too late: {name} is in the file"),
            _ => bail!("too late: the journey of {name} has ended; `quasar ps` shows what became of it"),
        };
    };
    follow(client, &path, &departure(order, to), Display::new(name, order.json)).await
}

async fn follow(
    client: &Client,
    path: &str,
    order: &(impl Serialize + Sync),
    mut display: Display,
) -> anyhow::Result<ExitCode> {
    let result = client.stream(Method::POST, path, Some(order), |event| display.show(&event)).await;
    display.finish();
    result?;
    display.conclude()
}

/// `quasar suspend`.
///
/// # Errors
/// With a message for people.
pub async fn suspend(
    client: &Client,
    name: &str,
    file: &Path,
    shared_disk: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let file = std::path::absolute(file).with_context(|| format!("{}", file.display()))?;
    let path = format!("/v1/vms/{name}/suspend");
    follow(client, &path, &Suspension { file, shared_disk }, Display::new(name, json)).await
}

/// `quasar resume` of several.
///
/// # Errors
/// With a message for people.
pub async fn resume_each(
    client: &Client,
    what: &[OsString],
    name: Option<String>,
    exe_dir: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    if name.is_some() && what.len() > 1 {
        bail!("--name is for one VM, not for {}", what.len());
    }
    let mut report = Report::default();
    for what in what {
        report.add(resume(client, what, name.clone(), exe_dir).await);
    }
    Ok(report.conclude())
}

/// `quasar resume`: a VM that is listed, else a file.
async fn resume(
    client: &Client,
    what: &OsStr,
    name: Option<String>,
    exe_dir: Option<&Path>,
) -> anyhow::Result<()> {
    let vms: Vec<VmView> = match client.get("/v1/vms").await {
        Err(ClientError::NoDaemon(_)) => vec![],
        vms => vms?,
    };
    let listed = vms.iter().find(|vm| name.is_none() && *vm.name == *what);
    if let Some(vm) = listed {
        return vms::change(client, &vm.name, "resume").await;
    }
    let shown = Path::new(what).display();
    let file = std::fs::canonicalize(what);
    let file = file.with_context(|| format!("{shown} is neither a VM (`quasar ps`) nor a file"))?;
    let _held = daemon::hold_or_start(client, exe_dir).await?;
    let wanted = Return { file, name };
    let wait = Waiting::begin(format!("bringing back what is in {shown}"));
    let resumed: Result<serde_json::Value, ClientError> =
        client.call(Method::POST, "/v1/resume", Some(&wanted)).await;
    drop(wait);
    resumed?;
    say!("{shown}: resumed")?;
    Ok(())
}
