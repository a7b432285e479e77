//! The machine's own apt: asked as anybody, run as root, waited for while another is at work. What goes wrong is a
//! sentence that says what to do.

use crate::command::{exists, output};
use crate::progress::{STATUS, bar, watched};
use crate::trouble::Trouble;
use anyhow::bail;
use indicatif::ProgressBar;
use std::io::IsTerminal;
use std::process::Command;
use std::time::{Duration, Instant};

/// A fresh machine's unattended upgrade takes minutes.
const LOCK_PATIENCE: Duration = Duration::from_secs(3600);
/// Between two looks at a lock.
const LOOK: Duration = Duration::from_secs(1);
/// Packages of one source are not upgraded because one of them is installed.
pub const ALONE: [&str; 2] = ["-o", "APT::Get::Upgrade-By-Source-Package=false"];

/// How this process becomes root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Authority {
    Root,
    Sudo,
}

/// Right to change the machine's packages.
pub struct Machine(Authority);

impl Machine {
    /// Nobody's without root's rights; then it says what an administrator would do.
    pub fn as_root(packages: &[&str]) -> anyhow::Result<Self> {
        if output(Command::new("id").arg("-u"))?.trim() == "0" {
            return Ok(Self(Authority::Root));
        }
        let command =
            format!("apt-get update && apt-get install --no-install-recommends {}", packages.join(" "));
        if !exists("sudo") {
            bail!(
                "this needs root, and there is no sudo; let an administrator run\n  {command}\nthen run this again"
            );
        }
        let silent = output(Command::new("sudo").args(["-n", "true"])).is_ok();
        if !silent && !std::io::stdin().is_terminal() {
            bail!(
                "this needs root, and sudo wants a password that nobody can type here; let an administrator run\n  \
                 {command}\nthen run this again"
            );
        }
        if !silent {
            eprintln!("sudo asks for your password");
        }
        Ok(Self(Authority::Sudo))
    }

    /// Fetches the lists of the machine's archives.
    pub fn update(&self) -> anyhow::Result<()> {
        self.apt_get(
            "asking the archives for their packages",
            &["-o", "APT::Update::Error-Mode=any", "update"],
        )
    }

    /// Installs packages; whatever apt says that it would remove, it does not.
    pub fn install(&self, packages: &[String]) -> anyhow::Result<()> {
        let mut arguments = ALONE.to_vec();
        arguments.extend(["install", "-y", "--no-install-recommends", "--no-remove"]);
        arguments.extend(packages.iter().map(String::as_str));
        self.apt_get("installing", &arguments)
    }

    fn apt_get(&self, what: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let bar = bar(what);
        let start = Instant::now();
        let mut holder = String::new();
        let done = loop {
            match self.attempt(&bar, arguments)? {
                Ok(()) => break Ok(()),
                Err(Trouble::Locked(who)) if start.elapsed() < LOCK_PATIENCE => {
                    if who != holder {
                        bar.suspend(|| eprintln!("another apt is at work ({who}); waiting for it to end"));
                        holder = who;
                    }
                    bar.set_message(format!("waiting for {holder}"));
                    std::thread::sleep(LOOK);
                    bar.set_message(what.to_owned());
                }
                Err(trouble) => break Err(trouble.into()),
            }
        };
        bar.finish_and_clear();
        done
    }

    fn attempt(&self, bar: &ProgressBar, arguments: &[&str]) -> anyhow::Result<Result<(), Trouble>> {
        let mut command = Command::new(if self.0 == Authority::Root { "env" } else { "sudo" });
        command.args((self.0 == Authority::Sudo).then_some("env"));
        // sudo passes on nothing of the environment. A restart of services is not ours to do.
        command.args([
            "LC_ALL=C",
            "DEBIAN_FRONTEND=noninteractive",
            "NEEDRESTART_SUSPEND=1",
            "apt-get",
            "-qq",
        ]);
        watched(command.args(STATUS).args(arguments), bar)
    }
}
