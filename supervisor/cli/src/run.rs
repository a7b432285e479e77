//! `quasar run`.

use super::access;
use super::args::{Image, Run};
use super::attach::{self, End};
use super::client::{Client, ClientError};
use super::interrupts::Interrupts;
use super::progress::{Steps, Waiting};
use super::{daemon, disks};
use anyhow::{Context, bail};
use quasar_abi::{note, output, say};
use quasar_api::{Boot, Disk, MachineConfig, Net, Outcome, Phase, UplinkSpec, VmSpec, VmView};
use quasar_image::{BuildOptions, BuiltImages};
use quasar_places::{self as places, data_directory};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Command line of the kernel in guests of ours: the console, no self-tests of ciphers, few messages.
const IMAGE_APPEND: &str = "console=ttyS0 quiet cryptomgr.notests";
/// The same for the one with systemd, which is silent by `quiet` for half a minute: some of the kernel's messages, and
/// what systemd starts.
const DISK_APPEND: &str = "console=ttyS0 loglevel=6 systemd.show_status=1 cryptomgr.notests";

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::canonicalize(path).with_context(|| format!("{} cannot be used", path.display()))
}

fn images() -> anyhow::Result<BuiltImages> {
    let steps = Steps::new();
    let built = quasar_image::build(&BuildOptions::default(), &steps);
    steps.finish();
    built.context("the guest image cannot be built")
}

/// The disk of a VM made from the disk image: its own copy. Also says whether an earlier VM of that name left it.
fn own_disk(name: &str, pristine: &Path) -> anyhow::Result<(Disk, bool)> {
    let directory = data_directory().join(name);
    let path = directory.join("disk.ext4");
    let found = path.exists();
    if !found {
        places::own_directory(&directory).context("there is no place for its disk")?;
        let copy = tempfile::Builder::new().prefix(disks::UNFINISHED).tempfile_in(&directory);
        let copy = copy.with_context(|| format!("{}", directory.display()))?.into_temp_path();
        let wait = Waiting::begin(format!("making the disk of {name}"));
        places::copy_sparse(pristine, &copy).with_context(|| format!("{}", copy.display()))?;
        drop(wait);
        // Another `quasar run` of the same name may have been quicker: its VM has that disk.
        copy.persist_noclobber(&path).with_context(|| format!("{}", path.display()))?;
    }
    Ok((Disk { path, read_only: false, owned: true }, found))
}

fn join(image: &str, append: Option<&String>) -> String {
    append.map_or_else(|| image.to_owned(), |more| format!("{image} {more}"))
}

fn net(run: &Run) -> Option<Net> {
    if run.net.as_deref() == Some("none") {
        return None;
    }
    Some(Net {
        network: run.net.clone(),
        mac: run.mac,
        address: None,
        uplink: run.uplink.clone().unwrap_or(UplinkSpec::Passt),
        publish: run.publish.clone(),
    })
}

/// What is to be made, and the disk among it that an earlier VM left.
fn spec(run: &Run, name: &str, images: Option<BuiltImages>) -> anyhow::Result<(VmSpec, Option<PathBuf>)> {
    let mut disks = vec![];
    let mut inherited = None;
    for disk in &run.disks {
        disks.push(Disk { path: absolute(&disk.path)?, read_only: disk.read_only, owned: false });
    }
    let firmware = run.firmware.as_deref().map(absolute).transpose()?;
    let boot = match (run.image.zip(images), &run.kernel) {
        (Some((image, built)), _) => {
            let (initrd, line) = match image {
                Image::Debian => (built.initrd, IMAGE_APPEND),
                Image::DebianDisk => {
                    let (disk, found) = own_disk(name, &built.disk)?;
                    inherited = found.then(|| disk.path.clone());
                    disks.insert(0, disk);
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
    let (memory, harts, icount, engine) = (run.memory.0, run.harts, run.icount, run.engine.clone());
    let machine = MachineConfig { memory, harts, boot, icount, engine };
    let spec =
        VmSpec { name: name.to_owned(), machine, disks, net: net(run), on_enospc: run.on_enospc.into() };
    Ok((spec, inherited))
}

/// The name that was asked for, or one that is free.
async fn choose_name(client: &Client, run: &Run) -> anyhow::Result<String> {
    let vms: Vec<VmView> = client.get("/v1/vms").await?;
    let taken = |name: &str| vms.iter().any(|vm| vm.name == name);
    match run.given_name() {
        // Before anything is made for it: a disk, for one.
        Some(name) if taken(name) => {
            bail!("there is a VM {name} already; choose another name, or remove that one: `quasar rm {name}`")
        }
        Some(name) => Ok(name.clone()),
        None => (1..).map(|n| format!("vm{n}")).find(|name| !taken(name)).context("every name is taken"),
    }
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
    let images = run.image.map(|_| images()).transpose()?;
    let _held = daemon::hold_or_start(client, exe_dir).await?;
    let name = choose_name(client, run).await?;
    let (spec, inherited) = spec(run, &name, images)?;
    let start = begin == Begin::Now;
    // From here on there is something to end.
    let interrupts = if run.detach || !start { None } else { Some(Interrupts::catch()?) };
    let wait = Waiting::begin(format!("{} {name}", if start { "starting" } else { "making" }));
    let path = format!("/v1/vms?start={start}");
    let made: Result<VmView, ClientError> = client.call(hyper::Method::POST, &path, Some(&spec)).await;
    drop(wait);
    let made = made?;
    if let Some(disk) = inherited {
        note!(
            "quasar: {name}: goes on with the disk that an earlier VM of this name left, {} (for a new one: `quasar rm \
             --force {name}` removes both)",
            disk.display()
        );
    }
    let Some(mut interrupts) = interrupts else {
        say!("{name}")?;
        output::warn(&access::ways_in(&made, false));
        return Ok(ExitCode::SUCCESS);
    };
    output::warn(&access::ways_in(&made, true));
    let options = attach::Options { virtio: false, no_input: false, no_history: false };
    let end = attach::attach(client, &name, options, &mut interrupts).await;
    let end =
        end.map_err(|error| error.context(format!("{name} runs on, but its console cannot be shown")))?;
    conclude(client, &name, end, run.rm).await
}

/// Ends a VM for its user, who is leaving, so that nothing of it runs on: it is not listed either. Disks that were made
/// for it are kept, unless it was to be removed anyway: they may be all that there is of the user's work.
async fn interrupted(client: &Client, name: &str, remove: bool) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/vms/{name}");
    let ended = async {
        let view: VmView = client.post(&format!("{path}/stop?force=true")).await?;
        client.delete(&format!("{path}?force=true&keep_disks={}", !remove)).await.map(|_| view)
    };
    match ended.await {
        Ok(view) => {
            for disk in view.spec.disks.iter().filter(|disk| disk.owned && !remove) {
                note!(
                    "quasar: its disk {} is kept: a new VM {name} goes on with it, `quasar disk rm {name}` removes it",
                    disk.path.display()
                );
            }
        }
        // Somebody else has removed it.
        Err(error) if attach::is_unknown(&error) || matches!(error, ClientError::NoDaemon(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::from(130))
}

/// After the console has ended: says why, and what becomes of the VM.
async fn conclude(client: &Client, name: &str, end: End, remove: bool) -> anyhow::Result<ExitCode> {
    match end {
        End::Detached => {
            note!("\nquasar: detached; {name} runs on (`quasar console {name}`, `quasar stop {name}`)");
            return Ok(ExitCode::SUCCESS);
        }
        // Whatever became of the terminal is not the guest's fault.
        End::Left(status) => return Ok(ExitCode::from(status)),
        End::Interrupted => {
            note!("\nquasar: interrupted: stopping {name}");
            return interrupted(client, name, remove).await;
        }
        End::Closed => {}
    }
    let view: VmView = match client.get(&format!("/v1/vms/{name}")).await {
        Ok(view) => view,
        Err(error) if attach::is_unknown(&error) || matches!(error, ClientError::NoDaemon(_)) => {
            note!("\nquasar: {name} was removed");
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
    if remove {
        client.delete(&format!("/v1/vms/{name}?force=true")).await?;
    }
    Ok(match (view.status.phase, view.status.outcome) {
        (Phase::Stopped, Some(Outcome::Poweroff)) => {
            note!("\nquasar: {name} has powered itself off");
            ExitCode::SUCCESS
        }
        (Phase::Stopped, Some(Outcome::GuestFailure { code })) => {
            note!("\nquasar: {name} has powered itself off and reported a failure (code {code})");
            ExitCode::FAILURE
        }
        (Phase::Stopped, _) => {
            note!("\nquasar: {name} was stopped");
            ExitCode::SUCCESS
        }
        (Phase::Failed, _) => {
            let reason = view.status.reason.unwrap_or_default();
            note!("\nquasar: {name} has failed: {reason} (`quasar logs {name}` may tell more)");
            ExitCode::FAILURE
        }
        (phase, _) => {
            note!("\nquasar: the console was closed; {name} is {}", phase.word());
            ExitCode::FAILURE
        }
    })
}
