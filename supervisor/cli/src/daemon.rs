//! A daemon for commands that need one: found, or started in the background, and held while the command is at work.

use super::client::{Client, Hold};
use anyhow::Context;
use quasar_abi::note;
use quasar_places as places;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time for a daemon in the background to answer; another one may be ending its VMs before it.
const DEADLINE: Duration = Duration::from_secs(100);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(20);
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

fn start(client: &Client, exe_dir: Option<&Path>, log: &File) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["host", "--background", "--exit-when-idle", "--socket"]).arg(&client.paths.socket);
    if let Some(directory) = exe_dir {
        command.arg("--exe-dir").arg(directory);
    }
    command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    command.spawn().context("the daemon cannot be started")
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
    client.paths.create().context("the directory of the daemon's socket cannot be made")?;
    let path = client.paths.log();
    let log = places::own_file(&path, OpenOptions::new().create(true).append(true));
    let log = log.with_context(|| format!("{}", path.display()))?;
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
