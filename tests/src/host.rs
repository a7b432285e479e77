//! A daemon of one's own, in a directory of its own.

use crate::namespace::Namespace;
use crate::process::{self, output};
use crate::turn::Turn;
use crate::{console, http, leftovers, programs, wait_for};
use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Where a daemon runs.
enum Place<'a> {
    /// On this machine's network, known to nobody.
    Alone,
    /// The same, taking VMs over loopback, unprotected.
    Loopback,
    /// The same, with so many MiB for memory and for data.
    Cramped(u32, u32),
    /// In a network of its own, with the keys in a directory.
    Network(&'a Namespace, &'a Path),
    /// At one of these, as a build for another architecture: its program, and the emulator of that.
    Foreign(&'a Place<'a>, PathBuf, PathBuf),
}

/// Mounts file systems of these sizes over those for memory and for data, seen by the program alone.
const CRAMPED: &str = r#"
mount -t tmpfs -o "$1" tmpfs /dev/shm
mkdir -p "$3"
mount -t tmpfs -o "$2" tmpfs "$3"
shift 3
exec "$@""#;

impl<'a> Place<'a> {
    fn foreign(place: &'a Self, arch: &str) -> anyhow::Result<Self> {
        let program = programs::foreign(arch)?.join("quasar");
        Ok(Self::Foreign(place, program, programs::emulator(arch)?))
    }

    /// The program, as a command that keeps its process number.
    fn program(&self, quasar: &Path, data: &Path) -> Command {
        match self {
            Self::Alone | Self::Loopback => Command::new(quasar),
            Self::Cramped(memory, disks) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-ec", CRAMPED, "sh"]);
                command.args([&format!("size={memory}M"), &format!("size={disks}M")]).arg(data).arg(quasar);
                command
            }
            Self::Network(network, _) => network.command(quasar),
            Self::Foreign(place, program, emulator) => {
                let mut command = place.program(emulator, data);
                command.arg(program);
                command
            }
        }
    }

    /// Where it takes VMs, and links of switches.
    fn listens(&self) -> anyhow::Result<Option<(SocketAddr, SocketAddr)>> {
        let ports = |address: IpAddr| {
            Ok(Some(((address, http::free_port()?).into(), (address, http::free_port()?).into())))
        };
        match self {
            Self::Alone => Ok(None),
            Self::Loopback | Self::Cramped(..) => ports(Ipv4Addr::LOCALHOST.into()),
            Self::Network(network, _) => network.inside(|| ports(network.address())),
            Self::Foreign(place, ..) => place.listens(),
        }
    }

    fn trust(&self, command: &mut Command) {
        match self {
            Self::Alone => command,
            Self::Loopback | Self::Cramped(..) => command.arg("--insecure"),
            Self::Network(_, keys) => command.arg("--pki").arg(keys),
            Self::Foreign(place, ..) => {
                place.trust(command);
                command
            }
        };
    }
}

/// A running `quasar host`. Dropping it ends it; [`Host::stop`] also looks at what it leaves behind.
pub struct Host {
    child: Child,
    directory: TempDir,
    quasar: PathBuf,
    listens: Option<(SocketAddr, SocketAddr)>,
    _turn: Option<Turn>,
}

/// Time for a daemon to end its VMs.
const END: Duration = Duration::from_secs(60);

impl Host {
    /// Waits for its turn and starts a daemon.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn start() -> anyhow::Result<Self> {
        Self::launch(Some(Turn::take()?), &Place::Alone)
    }

    /// Waits for its turn and starts a daemon that takes VMs from others over loopback.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn listening() -> anyhow::Result<Self> {
        Self::launch(Some(Turn::take()?), &Place::Loopback)
    }

    /// Starts another one that does; it shares this one's turn.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn neighbour(&self) -> anyhow::Result<Self> {
        Self::launch(None, &Place::Loopback)
    }

    /// Waits for its turn and starts a daemon in a network of its own, with the certificate in this directory.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn on(network: &Namespace, keys: &Path) -> anyhow::Result<Self> {
        Self::launch(Some(Turn::take()?), &Place::Network(network, keys))
    }

    /// Starts another one there; it shares this one's turn.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn neighbour_on(&self, network: &Namespace, keys: &Path) -> anyhow::Result<Self> {
        Self::launch(None, &Place::Network(network, keys))
    }

    /// Starts another one that has only so many MiB for memory and for data. Needs root.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn neighbour_with(&self, memory: u32, data: u32) -> anyhow::Result<Self> {
        Self::launch(None, &Place::Cramped(memory, data))
    }

    /// Starts another one whose daemon and processes are all builds for another architecture, emulated.
    ///
    /// # Errors
    /// When these have not been built, or it does not serve.
    pub fn foreign_neighbour(&self, arch: &str) -> anyhow::Result<Self> {
        Self::launch(None, &Place::foreign(&Place::Loopback, arch)?)
    }

    /// The same in a network of its own.
    ///
    /// # Errors
    /// As there.
    pub fn foreign_neighbour_on(&self, network: &Namespace, keys: &Path, arch: &str) -> anyhow::Result<Self> {
        Self::launch(None, &Place::foreign(&Place::Network(network, keys), arch)?)
    }

    /// Where it takes VMs from others.
    ///
    /// # Errors
    /// When it does not.
    pub fn address(&self) -> anyhow::Result<String> {
        Ok(self.doors()?.0.to_string())
    }

    /// Where it takes VMs, and links of switches.
    ///
    /// # Errors
    /// When it does not.
    pub fn doors(&self) -> anyhow::Result<(SocketAddr, SocketAddr)> {
        self.listens.context("this host does not listen")
    }

    fn launch(turn: Option<Turn>, place: &Place<'_>) -> anyhow::Result<Self> {
        let quasar = programs::quasar()?;
        let directory = tempfile::Builder::new().prefix("quasar-test-").tempdir()?;
        std::fs::create_dir(directory.path().join("tmp"))?;
        let log = File::create(directory.path().join("daemon.log"))?;
        let mut command = place.program(&quasar, &directory.path().join("data"));
        command.arg("host").arg("--socket").arg(directory.path().join("run/host.sock"));
        command
            .env("TMPDIR", directory.path().join("tmp"))
            .env("XDG_DATA_HOME", directory.path().join("data"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let listens = place.listens()?;
        if let Some((vms, links)) = listens {
            command.args(["--listen", &vms.to_string(), "--switch-listen", &links.to_string()]);
        }
        place.trust(&mut command);
        let child = command.spawn().context("cannot start quasar host")?;
        let host = Self { child, directory, quasar, listens, _turn: turn };
        wait_for("the daemon", || host.quasar(&["ps", "--json"]).ok().filter(|_| host.socket().exists()))?;
        Ok(host)
    }

    /// The daemon's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("run/host.sock")
    }

    /// A directory for the test's files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A command line to it.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.quasar);
        command.args(arguments).env("QUASAR_SOCKET", self.socket());
        command.env("XDG_DATA_HOME", self.directory.path().join("data"));
        command
    }

    /// What a command prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn quasar(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(&mut self.command(arguments))
    }

    /// What a command prints as JSON.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.quasar(arguments)?;
        serde_json::from_str(&text)
            .with_context(|| format!("quasar {} printed {text:?}", arguments.join(" ")))
    }

    /// What a command says when it fails.
    ///
    /// # Errors
    /// When it does not fail.
    pub fn refusal(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let out = process::run(&mut self.command(arguments))?;
        ensure!(!out.status.success(), "quasar {} succeeded", arguments.join(" "));
        Ok(String::from_utf8_lossy(&out.stderr).into_owned())
    }

    /// A VM as `quasar ps` lists it, if it does.
    ///
    /// # Errors
    /// When `quasar ps` fails: then nobody knows.
    pub fn listed(&self, name: &str) -> anyhow::Result<Option<Value>> {
        let Value::Array(vms) = self.json(&["ps", "--json"])? else { anyhow::bail!("ps lists no array") };
        Ok(vms.into_iter().find(|vm| vm["name"] == name))
    }

    /// A VM as `quasar ps` lists it.
    ///
    /// # Errors
    /// When it is not listed.
    pub fn view(&self, name: &str) -> anyhow::Result<Value> {
        self.listed(name)?.with_context(|| format!("ps does not list {name}"))
    }

    /// Sees that a VM is not listed.
    ///
    /// # Errors
    /// When it is, and when `quasar ps` fails.
    pub fn lacks(&self, name: &str) -> anyhow::Result<()> {
        match self.listed(name)? {
            None => Ok(()),
            Some(view) => anyhow::bail!("{name} is still listed: {view}"),
        }
    }

    /// Waits until a VM is not listed any more.
    ///
    /// # Errors
    /// When it stays; `what` says what was waited for.
    pub fn wait_gone(&self, name: &str, what: &str) -> anyhow::Result<()> {
        wait_for(what, || self.lacks(name).ok()).with_context(|| format!("{:?}", self.lacks(name)))
    }

    /// Waits until a VM is in this phase.
    ///
    /// # Errors
    /// When that does not happen; with its logs.
    pub fn wait_phase(&self, name: &str, phase: &str) -> anyhow::Result<Value> {
        let reached = wait_for(phase, || self.view(name).ok().filter(|vm| vm["phase"] == phase));
        reached.with_context(|| format!("{name} is {:?}\n{}", self.view(name), self.last_words(name)))
    }

    /// The process ids of the VM's processes with this role, or of the host's own.
    ///
    /// # Errors
    /// When there is none.
    pub fn pid_of(&self, vm: &str, role: &str) -> anyhow::Result<u32> {
        let stats = self.json(&["stats", vm, "--json"])?;
        let processes = stats["processes"].as_array().context("stats list no processes")?;
        let found = processes.iter().find(|p| p["role"] == role).and_then(|p| p["pid"].as_u64());
        u32::try_from(found.with_context(|| format!("no process {role} in {processes:?}"))?).context("a pid")
    }

    /// What a VM leaves behind here when it has gone: nothing, unless this says so.
    #[must_use]
    pub fn remains(&self, vm: &str) -> Vec<String> {
        let mark = format!("{vm}.");
        let segments = leftovers::segments_of(self.pid(), self.pid()).into_iter();
        let segments = segments.filter(|name| name.starts_with(&mark));
        let directories =
            [self.directory.path().join("run/host.d").join(vm), self.directory.path().join("data/quasar")];
        let files = directories.iter().flat_map(|d| leftovers::files(d)).map(|p| p.display().to_string());
        segments.chain(files).collect()
    }

    /// What a VM's processes and the daemon said last.
    #[must_use]
    pub fn last_words(&self, vm: &str) -> String {
        let logs = self.quasar(&["logs", vm]).unwrap_or_else(|error| format!("{error:#}"));
        let daemon = std::fs::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default();
        let network = std::fs::read_to_string(self.directory.path().join("run/host.d/network.log"));
        format!(
            "--- logs of {vm}\n{}\n--- network\n{}\n--- daemon\n{}",
            console::tail(&logs, 40),
            console::tail(&network.unwrap_or_default(), 20),
            console::tail(&daemon, 20)
        )
    }

    /// Kills the daemon; its processes end with it.
    ///
    /// # Errors
    /// When it has gone already.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends the daemon by a signal and says what it left behind.
    ///
    /// # Errors
    /// When it left anything or did not end well.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let family = process::descendants(self.pid());
        process::signal(self.pid(), Signal::SIGTERM)?;
        let status = process::wait(&mut self.child, END)?;
        let own = self.directory.path();
        let left = leftovers::of(self.pid(), &family, &[&own.join("run"), &own.join("tmp")]);
        ensure!(left.is_empty(), "the daemon left behind:\n{}", left.join("\n"));
        let log = std::fs::read_to_string(own.join("daemon.log")).unwrap_or_default();
        ensure!(status.success(), "the daemon ended with {status}:\n{log}");
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let family = process::descendants(self.pid());
        let ended =
            process::signal(self.pid(), Signal::SIGTERM).and_then(|()| process::wait(&mut self.child, END));
        if let Err(error) = ended {
            eprintln!("the daemon is killed: {error:#}");
            // Its children end with it.
            drop(self.child.kill());
            drop(self.child.wait());
        }
        for left in leftovers::of(self.pid(), &family, &[]) {
            eprintln!("left behind: {left}");
        }
    }
}
