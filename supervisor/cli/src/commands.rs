//! The commands that ask the daemon one thing.

use super::args::{ConsolePort, ImageOptions, Swap};
use super::attach::{self, End};
use super::client::{Client, ClientError};
use super::interrupts::Interrupts;
use super::progress::Steps;
use super::size::short;
use super::table;
use hyper::Method;
use quasar_abi::{note, output, say};
use quasar_api::{LogPart, SwapSpec, Swapped, WithSwapped};
use quasar_image::BuildOptions;
use std::process::ExitCode;
use std::time::Duration;

const LOG_LOOK: Duration = Duration::from_millis(300);

/// `quasar swap`.
///
/// # Errors
/// With a message for people.
pub async fn swap(client: &Client, swap: &Swap) -> anyhow::Result<ExitCode> {
    let exe = swap.exe.as_ref().map(std::path::absolute).transpose()?;
    let spec = SwapSpec { process: swap.process.clone(), build: swap.build.clone(), exe };
    let path = format!("/v1/vms/{}/swap", swap.name);
    let WithSwapped { vm: view, swapped } = client.call(Method::POST, &path, Some(&spec)).await?;
    let Swapped { process, program, arch, paused_ms } = swapped;
    let ours =
        |role: &str| role.strip_prefix(&process).is_some_and(|n| n.parse::<u8>().is_ok() || n.is_empty());
    for process in view.status.processes.iter().filter(|p| ours(&p.role)) {
        say!("{} is process {}, a build for {}", process.role, process.pid, process.arch)?;
    }
    let program = program.display();
    match process.as_str() {
        "netswitch" => {
            say!("netswitch is {program}, a build for {arch}; no frame passed for {paused_ms:.0} ms")?;
        }
        "migrator" => say!("from now on {} is moved by {program}, a build for {arch}", swap.name)?,
        _ => say!("the guest stood still for {paused_ms:.0} ms")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `quasar console`.
///
/// # Errors
/// With a message for people.
pub async fn console(
    client: &Client,
    name: &str,
    port: ConsolePort,
    no_input: bool,
    no_history: bool,
) -> anyhow::Result<ExitCode> {
    let options = attach::Options { virtio: port == ConsolePort::Virtio, no_input, no_history };
    let mut interrupts = Interrupts::catch()?;
    Ok(match attach::attach(client, name, options, &mut interrupts).await? {
        End::Detached => {
            note!("\nquasar: detached; {name} runs on");
            ExitCode::SUCCESS
        }
        End::Closed => ExitCode::SUCCESS,
        End::Interrupted => ExitCode::from(130),
        End::Left(status) => ExitCode::from(status),
    })
}

/// `quasar logs`.
///
/// # Errors
/// With a message for people.
pub async fn logs(client: &Client, name: &str, follow: bool) -> anyhow::Result<ExitCode> {
    let mut from = 0;
    loop {
        let chunk = match client.get::<LogPart>(&format!("/v1/vms/{name}/logs?from={from}")).await {
            Ok(chunk) => chunk,
            Err(ClientError::NoDaemon(_)) if from > 0 => return Ok(ExitCode::SUCCESS),
            Err(error) if from > 0 && attach::is_unknown(&error) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(error.into()),
        };
        let quiet = chunk.next == from;
        from = chunk.next;
        output::write(chunk.text.as_bytes())?;
        match (quiet, follow) {
            (true, false) => return Ok(ExitCode::SUCCESS),
            (true, true) => tokio::time::sleep(LOG_LOOK).await,
            (false, _) => {}
        }
    }
}

/// `quasar image build debian`.
///
/// # Errors
/// With a message for people.
pub fn build_image(options: &ImageOptions) -> anyhow::Result<ExitCode> {
    let build = BuildOptions {
        suite: options.suite.clone(),
        size_bytes: options.size.0,
        out: options.out.clone(),
        mirror: options.mirror.clone(),
        keyring: options.keyring.clone(),
        refresh: options.refresh,
        bench: !options.no_bench,
        ..BuildOptions::default()
    };
    let steps = Steps::new();
    let built = quasar_image::build(&build, &steps);
    steps.finish();
    let built = built?;
    if options.json {
        say!("{}", serde_json::to_string_pretty(&built)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let files = [
        ("kernel", &built.kernel),
        ("initramfs", &built.initrd),
        ("disk", &built.disk),
        ("disk initramfs", &built.disk_initrd),
        ("ssh key", &built.ssh_key),
        ("manifest", &built.manifest),
    ];
    let rows: Vec<Vec<String>> = files
        .iter()
        .map(|(what, path)| {
            let size = std::fs::metadata(path).map_or(0, |m| m.len());
            vec![(*what).to_owned(), short(size), path.display().to_string()]
        })
        .collect();
    output::print(format_args!("{}", table::render(&["WHAT", "SIZE", "FILE"], &rows)))?;
    say!("kernel {}{}", built.kernel_version, if built.from_cache { ", from the cache" } else { "" })?;
    Ok(ExitCode::SUCCESS)
}
