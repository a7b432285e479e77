//! A daemon for commands that need one: found, or started in the background, and held while the command is at work.

use super::client::{Client, Hold};
use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use quasar_abi::note;
use quasar_places as places;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time for a daemon in the background to answer; another one may be ending its VMs before it.
const DEADLINE: Duration = Duration::from_secs(100);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(20);
/// Most that is shown of what a daemon said that ended at once, in bytes.
const LONGEST_WORDS: u64 = 4096;
/// Daemons that end before they answer until that is taken for a fault: another one was quicker, and ended.
const ATTEMPTS: u32 = 3;

/// A daemon that serves and goes on serving as long as this is kept.
#[derive(Debug)]
pub struct Held {
    _hold: Hold,
    /// The daemon that was started for it. It stays as long as it can read from us, so that there is no moment in which
    /// nothing holds it.
    _started: Option<Child>,
}

fn spawn(command: &mut Command, log: &File) -> anyhow::Result<Child> {
    command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    command.spawn().context("the daemon cannot be started")
}

fn start(client: &Client, exe_dir: Option<&Path>, log: &File) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["host", "--background", "--exit-when-idle", "--socket"]).arg(&client.paths.socket);
    if let Some(directory) = exe_dir {
        command.arg("--exe-dir").arg(directory);
    }
    spawn(&mut command, log)
}

/// Opens the log of a daemon in the background, to be written on.
fn open_log(client: &Client) -> anyhow::Result<File> {
    client.paths.create().context("the directory of the daemon's socket cannot be made")?;
    let path = client.paths.log();
    let log = places::own_file(&path, OpenOptions::new().create(true).append(true));
    log.with_context(|| format!("{}", path.display()))
}

/// `quasar host --detach`: starts a daemon with the options that this command has, and returns when it serves.
///
/// # Errors
/// When it does not serve, with what it said; or when it neither ends nor serves.
pub async fn detach(client: &Client) -> anyhow::Result<()> {
    let (path, mut log) = (client.paths.log(), open_log(client)?);
    let before = log.seek(SeekFrom::End(0))?;
    // As they were given: a log that shows its own options is understood.
    let given = std::env::args_os().skip(1).filter(|argument| argument != "--detach" && argument != "-d");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(given).arg("--background");
    if !std::env::args_os().any(|argument| argument.as_encoded_bytes().starts_with(b"--socket")) {
        // So that a list of processes says which daemon it is.
        command.arg("--socket").arg(&client.paths.socket);
    }
    let mut daemon = spawn(&mut command, &log)?;
    let begin = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        if let Some(status) = daemon.try_wait()? {
            let mut said = String::new();
            let mut log = File::open(&path)?;
            log.seek(SeekFrom::Start(before))?;
            log.take(LONGEST_WORDS).read_to_string(&mut said)?;
            bail!("the daemon ended ({status}):\n{}", said.trim_end());
        }
        if begin.elapsed() > DEADLINE {
            daemon.kill()?;
            bail!(
                "the daemon did not serve within {DEADLINE:?}, and was killed; its log is {}",
                path.display()
            );
        }
        // One before it may be on its way out: it is not asked, since whoever asks keeps it.
        if client.paths.holder() != Some(daemon.id()) {
            continue;
        }
        match client.hold().await {
            Ok(hold) if hold.host.pid == daemon.id() => {
                let (socket, log) = (client.paths.socket.display(), path.display());
                note!("quasar: serving {socket} (pid {}); its log is {log}", daemon.id());
                return Ok(());
            }
            Ok(_) => {}
            Err(error) if error.is_absence() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// `quasar host --stop`: ends the daemon that serves, and returns when it has.
///
/// # Errors
/// When there is none, or it does not end.
pub async fn stop(client: &Client) -> anyhow::Result<()> {
    let pid = client.hold().await?.host.pid;
    let process = Pid::from_raw(i32::try_from(pid)?);
    nix::sys::signal::kill(process, Signal::SIGTERM)
        .with_context(|| format!("the daemon (process {pid}) cannot be told"))?;
    let begin = Instant::now();
    // It removes its lock last.
    while client.paths.lock().exists() && nix::sys::signal::kill(process, None).is_ok() {
        if begin.elapsed() > DEADLINE {
            bail!("the daemon (process {pid}) was told to end and has not within {DEADLINE:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Holds the daemon that serves; starts one in the background when there is none.
///
/// # Errors
/// When there is none and none can be started.
pub async fn hold_or_start(client: &Client, exe_dir: Option<&Path>) -> anyhow::Result<Held> {
    match client.hold().await {
        Ok(hold) => return Ok(Held { _hold: hold, _started: None }),
        Err(error) if error.is_absence() => {}
        Err(error) => return Err(error.into()),
    }
    let (path, log) = (client.paths.log(), open_log(client)?);
    let begin = Instant::now();
    let mut attempts = 1;
    let mut daemon = start(client, exe_dir, &log)?;
    loop {
        tokio::time::sleep(LOOK).await;
        let ended = daemon.try_wait()?;
        // Asked after that: when another one was quicker, ours has ended because that one answers.
        match client.hold().await {
            Ok(hold) => {
                let ours = hold.host.pid == daemon.id();
                if ours {
                    let pid = daemon.id();
                    note!(
                        "quasar: no daemon was running: started one (pid {pid}), which ends when its last VM is removed"
                    );
                }
                return Ok(Held { _hold: hold, _started: ours.then_some(daemon) });
            }
            Err(error) if !error.is_absence() => return Err(error.into()),
            Err(error) => match ended {
                Some(_) if attempts < ATTEMPTS => {
                    attempts += 1;
                    daemon = start(client, exe_dir, &log)?;
                }
                None if begin.elapsed() < DEADLINE => {}
                _ => {
                    let ended = ended.map_or_else(String::new, |status| format!(" and ended ({status})"));
                    return Err(error).with_context(|| {
                        format!("the daemon does not answer{ended}; what it said is in {}", path.display())
                    });
                }
            },
        }
    }
}
