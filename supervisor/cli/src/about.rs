//! `quasar inspect`, `quasar info`, `quasar version`, `quasar man`.

use super::client::{Client, ClientError};
use super::ps::process_table;
use super::vms::Report;
use anyhow::Context;
use quasar_abi::{output, say};
use quasar_api::HostView;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;

/// `quasar inspect`: what the daemon lists of each VM, what its processes count, and where its log is.
///
/// # Errors
/// With a message for people.
pub async fn inspect(client: &Client, names: &[String]) -> anyhow::Result<ExitCode> {
    let (mut found, mut report) = (vec![], Report::default());
    for name in names {
        let asked = async {
            let mut vm: Value = client.get(&format!("/v1/vms/{name}")).await?;
            // A VM that has just ended counts nothing any more.
            vm["stats"] = client.get(&format!("/v1/vms/{name}/stats")).await.unwrap_or_default();
            vm["log"] = client.paths.vm(name).join("log").display().to_string().into();
            found.push(vm);
            Ok(())
        };
        report.add(asked.await);
    }
    say!("{}", serde_json::to_string_pretty(&found)?)?;
    Ok(report.conclude())
}

/// `quasar info`.
///
/// # Errors
/// With a message for people.
pub async fn info(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let raw: Value = client.get("/v1/host").await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&raw)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let host = HostView::deserialize(&raw)?;
    say!("daemon    {} for {}, process {}", host.version, host.arch, host.pid)?;
    say!("socket    {}", client.paths.socket.display())?;
    say!("log       {}", client.paths.log().display())?;
    say!("VMs       {}", host.vms)?;
    say!()?;
    output::print(format_args!("{}", process_table(&[], &host)))?;
    Ok(ExitCode::SUCCESS)
}

/// `quasar version`.
///
/// # Errors
/// With a message for people.
pub async fn version(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let daemon: Option<HostView> = match client.get("/v1/host").await {
        Ok(host) => Some(host),
        Err(ClientError::NoDaemon(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let own = env!("CARGO_PKG_VERSION");
    if json {
        let daemon = daemon.map(|host| serde_json::json!({"version": host.version, "arch": host.arch}));
        let both = serde_json::json!({
            "client": {"version": own, "arch": std::env::consts::ARCH},
            "daemon": daemon,
        });
        say!("{}", serde_json::to_string_pretty(&both)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("client  {own} for {}", std::env::consts::ARCH)?;
    match daemon {
        Some(host) => say!("daemon  {} for {}, process {}", host.version, host.arch, host.pid)?,
        None => say!("daemon  none runs at {}", client.paths.socket.display())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `quasar man`: a page for the program and one for each command.
///
/// # Errors
/// When they cannot be written.
pub fn manual(directory: &Path) -> anyhow::Result<ExitCode> {
    use clap::CommandFactory;
    let write = || {
        std::fs::create_dir_all(directory)?;
        clap_mangen::generate_to(super::args::Arguments::command(), directory)
    };
    write().with_context(|| format!("the manual cannot be written to {}", directory.display()))?;
    say!("quasar.1 and a page for each command are in {}", directory.display())?;
    Ok(ExitCode::SUCCESS)
}
