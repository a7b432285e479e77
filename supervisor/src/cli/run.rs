//! `quasar run`.

use super::access;
use super::args::{Image, Run};
use super::attach::{self, End};
use super::client::{Client, ClientError};
use super::progress::{Steps, Waiting};
use crate::daemon::spec::{Disk, Net, UplinkSpec, VmSpec};
use crate::daemon::{HostView, VmView, data_directory};
use crate::image::{BuildOptions, BuiltImages};
use crate::machine::MachineConfig;
use crate::machine::config::Boot;
use crate::places;
use crate::vm::{Outcome, Phase};
use anyhow::{Context, bail};
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Command line of the kernel in guests of ours: the console, no self-tests of ciphers, few messages.
const IMAGE_APPEND: &str = "console=ttyS0 quiet cryptomgr.notests";
/// The same for the one with systemd, which is silent by `quiet` for half a minute: some of the kernel's messages, and
/// what systemd starts.
const DISK_APPEND: &str = "console=ttyS0 loglevel=6 systemd.show_status=1 cryptomgr.notests";
/// Time for a daemon in the background to answer.
const DAEMON_DEADLINE: Duration = Duration::from_secs(15);

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::canonicalize(path).with_context(|| format!("{} cannot be used", path.display()))
}

fn images() -> anyhow::Result<BuiltImages> {
    let steps = Steps::new();
    let built = crate::image::build(&BuildOptions::default(), &steps);
    steps.finish();
    built.context("the guest image cannot be built")
}

/// The disk of a VM made from the disk image: its own copy, kept from an earlier VM of that name.
fn own_disk(name: &str, pristine: &Path) -> anyhow::Result<Disk> {
    let directory = data_directory().join(name);
    let path = directory.join("disk.ext4");
    if !path.exists() {
        places::own_directory(&directory).context("there is no place for its disk")?;
        let partial = directory.join("disk.partial");
        crate::image::copy_sparse(pristine, &partial)?;
        std::fs::rename(&partial, &path).with_context(|| format!("{}", path.display()))?;
    }
    Ok(Disk { path, read_only: false, owned: true })
}

fn join(image: &str, append: Option<&String>) -> String {
    append.map_or_else(|| image.to_owned(), |more| format!("{image} {more}"))
}

fn net(run: &Run) -> Option<Net> {
    if run.net.as_deref() == Some("none") {
        return None;
    }
    let own = run.net.is_none();
    let default = if own || !run.publish.is_empty() { UplinkSpec::Passt } else { UplinkSpec::None };
    Some(Net {
        network: run.net.clone(),
        mac: run.mac,
        uplink: run.uplink.clone().unwrap_or(default),
        publish: run.publish.clone(),
    })
}

fn spec(run: &Run, name: &str) -> anyhow::Result<VmSpec> {
    let mut disks = vec![];
    for disk in &run.disks {
        disks.push(Disk { path: absolute(&disk.path)?, read_only: disk.read_only, owned: false });
    }
    let firmware = run.firmware.as_deref().map(absolute).transpose()?;
    let boot = match (run.image, &run.kernel) {
        (Some(image), _) => {
            let built = images()?;
            let (initrd, line) = match image {
                Image::Debian => (built.initrd, IMAGE_APPEND),
                Image::DebianDisk => {
                    disks.insert(0, own_disk(name, &built.disk)?);
                    (built.disk_initrd, DISK_APPEND)
                }
            };
            let append = join(line, run.append.as_ref());
            Boot::Kernel {
                kernel: absolute(&built.kernel)?,
                initrd: Some(absolute(&initrd)?),
                append,
                firmware,
            }
        }
        (None, Some(kernel)) => Boot::Kernel {
            kernel: absolute(kernel)?,
            initrd: run.initrd.as_deref().map(absolute).transpose()?,
            append: run.append.clone().unwrap_or_default(),
            firmware,
        },
        (None, None) => bail!("--image or --kernel is needed"),
    };
    if run.net.as_deref() == Some("none") && !run.publish.is_empty() {
        bail!("--publish needs a network card, which --net none leaves out");
    }
    let machine = MachineConfig { memory: run.memory.0, harts: run.harts, boot, icount: run.icount };
    Ok(VmSpec { name: name.to_owned(), machine, disks, net: net(run), on_enospc: run.on_enospc.into() })
}

/// Starts a daemon in the background when none serves.
async fn ensure_daemon(client: &Client, exe_dir: Option<&Path>) -> anyhow::Result<()> {
    match client.get::<HostView>("/v1/host").await {
        Ok(_) => return Ok(()),
        Err(ClientError::NoDaemon(_)) => {}
        Err(error) => return Err(error.into()),
    }
    client.paths.create().context("the directory of the daemon's socket cannot be made")?;
    let log = client.paths.log();
    let file = places::own_file(&log, OpenOptions::new().create(true).append(true));
    let file = file.with_context(|| format!("{}", log.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("host").arg("--exit-when-idle").arg("--socket").arg(&client.paths.socket);
    if let Some(directory) = exe_dir {
        command.arg("--exe-dir").arg(directory);
    }
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
    let mut daemon = command.spawn().context("the daemon cannot be started")?;
    eprintln!(
        "quasar: no daemon was running: started one (pid {}), which ends with its last VM",
        daemon.id()
    );
    let start = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        match client.get::<HostView>("/v1/host").await {
            Ok(_) => return Ok(()),
            // Another one may have been quicker: then ours ends, and that one answers.
            Err(_) if start.elapsed() < DAEMON_DEADLINE => {}
            Err(error) => {
                let ended =
                    daemon.try_wait()?.map_or_else(String::new, |status| format!(" and ended ({status})"));
                return Err(error).with_context(|| {
                    format!("the daemon does not answer{ended}; what it said is in {}", log.display())
                });
            }
        }
    }
}

async fn free_name(client: &Client) -> anyhow::Result<String> {
    let vms: Vec<VmView> = client.get("/v1/vms").await?;
    let taken = |name: &String| vms.iter().any(|vm| vm.name == *name);
    (1..).map(|n| format!("vm{n}")).find(|name| !taken(name)).context("every name is taken")
}

/// When a VM that is made is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// `quasar run`.
    Now,
    /// `quasar create`: by `quasar start`.
    Later,
}

/// Carries `quasar run` or `quasar create` out.
///
/// # Errors
/// With a message for people.
pub async fn run(
    client: &Client,
    run: &Run,
    exe_dir: Option<&Path>,
    begin: Begin,
) -> anyhow::Result<ExitCode> {
    ensure_daemon(client, exe_dir).await?;
    let name = match run.given_name() {
        Some(name) => name.clone(),
        None => free_name(client).await?,
    };
    let spec = spec(run, &name)?;
    let start = begin == Begin::Now;
    let wait = Waiting::begin(format!("{} {name}", if start { "starting" } else { "making" }));
    let path = format!("/v1/vms?start={start}");
    let made: Result<VmView, ClientError> = client.call(hyper::Method::POST, &path, Some(&spec)).await;
    drop(wait);
    let made = made?;
    if run.detach || begin == Begin::Later {
        println!("{name}");
        eprint!("{}", access::ways_in(&made, false));
        return Ok(ExitCode::SUCCESS);
    }
    eprint!("{}", access::ways_in(&made, true));
    let options = attach::Options { virtio: false, no_input: false, no_history: false };
    let end = attach::attach(client, &name, options).await?;
    conclude(client, &name, end, run.rm).await
}

/// After the console has ended: says why, and what becomes of the VM.
async fn conclude(client: &Client, name: &str, end: End, remove: bool) -> anyhow::Result<ExitCode> {
    match end {
        End::Detached => {
            eprintln!("\nquasar: detached; {name} runs on (`quasar console {name}`, `quasar stop {name}`)");
            return Ok(ExitCode::SUCCESS);
        }
        End::Signal => {
            eprintln!("\nquasar: interrupted: stopping {name}");
            client.post::<serde_json::Value>(&format!("/v1/vms/{name}/stop?force=true")).await?;
        }
        End::Closed => {}
    }
    let view: VmView = match client.get(&format!("/v1/vms/{name}")).await {
        Ok(view) => view,
        Err(error) if attach::is_unknown(&error) || matches!(error, ClientError::NoDaemon(_)) => {
            eprintln!("\nquasar: {name} was removed");
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
    if remove {
        client.delete(&format!("/v1/vms/{name}?force=true")).await?;
    }
    Ok(match (view.status.phase, view.status.outcome) {
        _ if end == End::Signal => ExitCode::from(130),
        (Phase::Stopped, Some(Outcome::Poweroff)) => {
            eprintln!("\nquasar: {name} has powered itself off");
            ExitCode::SUCCESS
        }
        (Phase::Stopped, Some(Outcome::GuestFailure { code })) => {
            eprintln!("\nquasar: {name} has powered itself off and reported a failure (code {code})");
            ExitCode::FAILURE
        }
        (Phase::Stopped, _) => {
            eprintln!("\nquasar: {name} was stopped");
            ExitCode::SUCCESS
        }
        (Phase::Failed, _) => {
            let reason = view.status.reason.unwrap_or_default();
            eprintln!("\nquasar: {name} has failed: {reason} (`quasar logs {name}` may tell more)");
            ExitCode::FAILURE
        }
        (phase, _) => {
            eprintln!("\nquasar: the console was closed; {name} is {}", phase.word());
            ExitCode::FAILURE
        }
    })
}
