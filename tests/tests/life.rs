//! The life of a daemon in the background: who starts it, what holds it, when it ends; and what is left of VMs then.
//! No guest boots here.

#![forbid(unsafe_code)]

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};
use quasar_abi::eintr;
use quasar_tests::outputs::AtTerminal;
use quasar_tests::process::{self, Listed};
use quasar_tests::turn::Turn;
use quasar_tests::{PATIENCE, bare, leftovers, programs, wait_for};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A user's home without a daemon.
struct Home {
    directory: TempDir,
    quasar: PathBuf,
    kernel: String,
    _turn: Turn,
}

impl Home {
    fn new() -> anyhow::Result<Self> {
        let turn = Turn::take()?;
        let directory = tempfile::tempdir()?;
        let kernel = bare::program("chatter", directory.path()).display().to_string();
        Ok(Self { directory, quasar: programs::quasar()?, kernel, _turn: turn })
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/host.sock")
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data/quasar")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.quasar);
        command.args(arguments).env("QUASAR_SOCKET", self.socket()).stdin(Stdio::null());
        command.env("XDG_DATA_HOME", self.directory.path().join("data"));
        command
    }

    /// `quasar run` of a guest that talks for ever, with more arguments.
    fn run(&self, name: &str, more: &[&str]) -> Command {
        self.command(
            &[&["run", name, "--kernel", &self.kernel, "--net", "none", "--memory", "64M"], more].concat(),
        )
    }

    fn quasar(&self, arguments: &[&str]) -> anyhow::Result<String> {
        process::output(&mut self.command(arguments))
    }

    fn refusal(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let out = process::run(&mut self.command(arguments))?;
        ensure!(!out.status.success(), "quasar {} succeeded", arguments.join(" "));
        Ok(String::from_utf8_lossy(&out.stderr).into_owned())
    }

    fn json(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.quasar(arguments)?)?)
    }

    /// The phase of a VM, if it is listed; an error when nobody says what is.
    fn listed(&self, name: &str) -> anyhow::Result<Option<String>> {
        let vms = self.json(&["ps", "--json"])?;
        let vm = vms.as_array().context("an array")?.iter().find(|vm| vm["name"] == name);
        Ok(vm.map(|vm| vm["phase"].as_str().unwrap_or("?").to_owned()))
    }

    fn phase(&self, name: &str) -> anyhow::Result<String> {
        self.listed(name)?.with_context(|| format!("{name} is not listed"))
    }

    fn daemons(&self) -> Vec<Listed> {
        let mark = self.socket().display().to_string();
        process::list().into_iter().filter(|p| p.line.contains(&mark) && p.line.contains(" host ")).collect()
    }

    /// The only one; another that was not needed may just be ending.
    fn daemon(&self) -> anyhow::Result<Listed> {
        wait_for("one daemon", || self.daemons().pop().filter(|_| self.daemons().len() == 1))
    }

    /// Waits until the daemon has ended by itself and looks at what it has left.
    fn ends(&self, daemon: &Listed) -> anyhow::Result<()> {
        let family = process::descendants(daemon.pid);
        wait_for("the daemon's end", || (!process::lives(daemon)).then_some(()))?;
        let left = leftovers::of(daemon.pid, &family, &[]);
        ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        ensure!(!self.socket().exists(), "the socket is left behind");
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for daemon in self.daemons() {
            drop(process::signal(daemon.pid, Signal::SIGTERM));
        }
    }
}

fn status(child: &mut Child) -> anyhow::Result<Option<i32>> {
    Ok(process::wait(child, PATIENCE)?.code())
}

#[test]
fn a_daemon_stays_as_long_as_a_vm_is_listed() -> anyhow::Result<()> {
    let home = Home::new()?;
    ensure!(home.json(&["ps", "--json"])? == serde_json::json!([]), "without a daemon nothing is listed");
    ensure!(home.refusal(&["stop", "a"])?.contains("no daemon"), "there is nothing to stop");
    ensure!(home.daemons().is_empty(), "a daemon was started to list or stop");

    // A dead daemon's socket is in the way, and two want to start the first VM.
    std::fs::create_dir_all(home.socket().parent().context("a directory")?)?;
    drop(std::os::unix::net::UnixListener::bind(home.socket())?);
    let mut both = [home.run("a", &["--detach"]).spawn()?, home.run("b", &["--detach"]).spawn()?];
    for child in &mut both {
        ensure!(status(child)? == Some(0), "one of two first runs failed");
    }
    let daemon = home.daemon()?;
    let file = home.directory.path().join("a.vm").display().to_string();
    home.quasar(&["suspend", "a", &file])?;
    home.quasar(&["stop", "--force", "b"])?;
    // Longer than an idle daemon waits.
    std::thread::sleep(Duration::from_secs(4));
    ensure!(home.phase("b")? == "stopped" && process::lives(&daemon), "the daemon forgot a stopped VM");
    home.quasar(&["rm", "b"])?;
    home.ends(&daemon)?;

    ensure!(home.refusal(&["resume", "/nonexistent/a.vm"])?.contains("/nonexistent/a.vm"), "no such file");
    ensure!(home.daemons().is_empty(), "a daemon was started for no file");
    home.quasar(&["resume", &file])?;
    ensure!(home.phase("a")? == "running", "resumed");
    home.quasar(&["rm", "--force", "a"])?;
    // One that comes in the last moment has a daemon, this one or another.
    for n in 0..4 {
        std::thread::sleep(Duration::from_millis(900 + n * 80));
        let out = process::output(&mut home.run("c", &["--detach"]))?;
        ensure!(out.trim() == "c", "{out}");
        home.quasar(&["rm", "--force", "c"])?;
    }
    wait_for("the daemon's end", || home.daemons().is_empty().then_some(()))?;
    ensure!(!home.socket().exists(), "the socket is left behind");
    Ok(())
}

#[test]
fn who_is_at_work_holds_the_daemon() -> anyhow::Result<()> {
    let home = Home::new()?;
    let mut slow = home.run("a", &["--detach"]).spawn()?;
    // It has started a daemon and is stopped before it has asked it for anything, or soon after.
    wait_for("the daemon's lock", || home.socket().with_extension("lock").exists().then_some(()))?;
    process::signal(slow.id(), Signal::SIGSTOP)?;
    std::thread::sleep(Duration::from_secs(6));
    let daemon = home.daemon()?;
    process::signal(slow.id(), Signal::SIGCONT)?;
    ensure!(status(&mut slow)? == Some(0), "the slow client failed");
    ensure!(process::lives(&daemon) && home.daemons().len() == 1, "another daemon serves it");
    home.quasar(&["rm", "--force", "a"])?;
    home.ends(&daemon)?;
    // One whose client is killed before it has asked ends, and leaves nothing.
    let mut killed = home.run("b", &["--detach"]).spawn()?;
    wait_for("the daemon's lock", || home.socket().with_extension("lock").exists().then_some(()))?;
    killed.kill()?;
    killed.wait()?;
    // Or it had asked: then there is a VM, sooner or later. Who looks again and again does not hold the daemon.
    wait_for("the daemon's end", || {
        if home.phase("b").is_ok() {
            drop(home.quasar(&["rm", "--force", "b"]));
        }
        home.daemons().is_empty().then_some(())
    })
}

#[test]
fn a_daemon_that_idles_makes_room_for_one_that_is_asked_for() -> anyhow::Result<()> {
    let home = Home::new()?;
    home.quasar(&["create", "a", "--kernel", &home.kernel, "--net", "none", "--memory", "64M"])?;
    let first = home.daemon()?;
    let refusal = home.refusal(&["host"])?;
    ensure!(refusal.contains("already"), "it has a VM: {refusal}");
    home.quasar(&["rm", "a"])?;
    // At once: the first one stays for some moments.
    home.quasar(&["host", "--detach"])?;
    ensure!(!process::lives(&first), "both serve");
    let second = home.daemon()?;
    // It was asked for, and stays without a VM.
    std::thread::sleep(Duration::from_secs(4));
    ensure!(process::lives(&second), "it ended");
    let refusal = home.refusal(&["host", "--detach"])?;
    ensure!(refusal.contains("already"), "there is one: {refusal}");
    home.quasar(&["host", "--stop"])?;
    home.ends(&second)?;
    ensure!(home.refusal(&["host", "--stop"])?.contains("no daemon"), "there is none");
    let refusal = home.refusal(&["host", "--detach", "--listen", "127.0.0.1:1"])?;
    ensure!(refusal.contains("--pki"), "it needs keys: {refusal}");
    let refusal =
        home.refusal(&["host", "--detach", "--listen", "192.0.2.1:7700", "--pki", "/nonexistent"])?;
    ensure!(refusal.contains("/nonexistent"), "{refusal}");

    home.quasar(&["create", "a", "--kernel", &home.kernel, "--net", "none", "--memory", "64M"])?;
    home.quasar(&["rm", "a"])?;
    let mut third = home.command(&["host"]).spawn()?;
    wait_for("the daemon in the foreground", || {
        let asked = home.json(&["info", "--json"]).ok()?;
        (asked["pid"].as_u64() == Some(u64::from(third.id()))).then_some(())
    })?;
    process::signal(third.id(), Signal::SIGTERM)?;
    ensure!(status(&mut third)? == Some(0), "it did not end well");
    Ok(())
}

#[test]
fn a_daemon_that_does_not_answer_is_named() -> anyhow::Result<()> {
    let home = Home::new()?;
    home.quasar(&["create", "a", "--kernel", &home.kernel, "--net", "none", "--memory", "64M"])?;
    let daemon = home.daemon()?;
    process::signal(daemon.pid, Signal::SIGSTOP)?;
    let commands = [&["ps"][..], &["version"], &["run", "b", "--kernel", &home.kernel, "--detach"]];
    let children = commands
        .map(|arguments| home.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn());
    let asked = children.map(|child| child?.wait_with_output());
    process::signal(daemon.pid, Signal::SIGCONT)?;
    for asked in asked {
        let asked = asked?;
        let (told, wanted) =
            (String::from_utf8_lossy(&asked.stderr), format!("the daemon (process {}) does not", daemon.pid));
        ensure!(!asked.status.success() && told.contains(&wanted), "{told}");
    }
    ensure!(home.phase("a")? == "stopped", "nothing was changed");
    Ok(())
}

/// Reads a terminal until it shows something.
fn reads(terminal: &AtTerminal, wanted: &str) -> anyhow::Result<String> {
    let mut shown = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = eintr::read(&terminal.terminal, &mut buffer).context("the terminal")?;
        ensure!(count > 0, "the terminal ended: {}", String::from_utf8_lossy(&shown));
        shown.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&shown);
        if text.contains(wanted) {
            return Ok(text.into_owned());
        }
    }
}

#[test]
fn a_terminal_that_goes_away_leaves_the_vm_running() -> anyhow::Result<()> {
    let home = Home::new()?;
    let mut attached = AtTerminal::start(&home.run("a", &[]))?;
    reads(&attached, "and so on")?;
    let daemon = home.daemon()?;
    // The connection to the machine is lost: the terminal hangs up, its session's leader gets SIGHUP.
    let AtTerminal { child, terminal } = &mut attached;
    drop(std::mem::replace(terminal, std::fs::File::open("/dev/null")?.into()));
    ensure!(status(child)? == Some(129), "a run whose terminal has hung up");
    ensure!(home.phase("a")? == "running" && process::lives(&daemon), "the VM ended with the terminal");

    // By signals, with a terminal that stays: its mode comes back.
    for (signal, code) in [(Signal::SIGHUP, 129), (Signal::SIGQUIT, 131)] {
        let mut attached = AtTerminal::start(&home.command(&["console", "a"]))?;
        reads(&attached, "and so on")?;
        process::signal(attached.child.id(), signal)?;
        ensure!(status(&mut attached.child)? == Some(code), "{signal}");
        let modes = tcgetattr(&attached.terminal)?.local_flags;
        ensure!(modes.contains(LocalFlags::ECHO | LocalFlags::ICANON), "{signal}: the terminal is left raw");
        ensure!(home.phase("a")? == "running", "{signal}");
    }
    // What goes on for long ends with its terminal, and quietly.
    for line in [["logs", "a", "--follow"].as_slice(), &["stats", "a", "--watch"]] {
        let mut attached = AtTerminal::start(&home.command(line))?;
        std::thread::sleep(Duration::from_millis(300));
        attached.terminal = std::fs::File::open("/dev/null")?.into();
        let ended = process::wait(&mut attached.child, PATIENCE)?;
        use std::os::unix::process::ExitStatusExt;
        ensure!(ended.code() == Some(129) || ended.signal() == Some(1), "{line:?}: {ended}");
    }
    // `nohup` wants what it starts to hear no SIGHUP.
    let mut deaf = Command::new("env");
    let run = home.run("b", &[]);
    deaf.arg("--ignore-signal=HUP").arg(run.get_program()).args(run.get_args());
    deaf.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut deaf = deaf.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    wait_for("b", || (home.phase("b").ok()? == "running").then_some(()))?;
    process::signal(deaf.id(), Signal::SIGHUP)?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(deaf.try_wait()?.is_none(), "a run under nohup ended by SIGHUP");
    // Whoever is interrupted leaves nothing behind.
    process::signal(deaf.id(), Signal::SIGTERM)?;
    ensure!(status(&mut deaf)? == Some(130), "an interrupted run");
    ensure!(home.listed("b")?.is_none() && home.phase("a")? == "running", "b is still listed");
    home.quasar(&["rm", "--force", "a"])?;
    home.ends(&daemon)
}

#[test]
fn disks_are_not_forgotten() -> anyhow::Result<()> {
    let home = Home::new()?;
    let make = |name: &str| -> anyhow::Result<PathBuf> {
        let path = home.data().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        std::fs::File::create(&path)?.set_len(1 << 20)?;
        Ok(path)
    };
    let (web, old) = (make("web/disk.ext4")?, make("old/disk0-0.raw")?);
    let states = || -> anyhow::Result<Vec<(String, String)>> {
        let disks = home.json(&["disk", "ls", "--json"])?;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
        let all = disks.as_array().context("an array")?;
        Ok(all.iter().map(|disk| (text(&disk["vm"]), text(&disk["state"]))).collect())
    };
    let expect = |expected: &[(&str, &str)]| {
        let found = states()?;
        let expected: Vec<(String, String)> =
            expected.iter().map(|(vm, state)| ((*vm).to_owned(), (*state).to_owned())).collect();
        ensure!(found == expected, "{found:?}, not {expected:?}");
        Ok(())
    };
    expect(&[("old", "orphan"), ("web", "orphan")])?;

    // A new VM of the name goes on with the disk, and says so; interrupted, it leaves it.
    let mut command = home.command(&["run", "web", "--image", "debian-disk", "--net", "none"]);
    let mut run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    wait_for("web", || (home.phase("web").ok()? == "running").then_some(()))?;
    let daemon = home.daemon()?;
    expect(&[("old", "orphan"), ("web", "listed")])?;
    ensure!(home.refusal(&["disk", "rm", "old", "web"])?.contains("quasar rm --force web"), "in use");
    ensure!(old.exists(), "a refused removal removed something");
    process::signal(run.id(), Signal::SIGINT)?;
    ensure!(status(&mut run)? == Some(130), "an interrupted run");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut run.stderr.take().context("its words")?, &mut said)?;
    for words in ["an earlier VM of this name left", "is kept", "quasar disk rm web"] {
        ensure!(said.contains(words), "no {words:?} in {said}");
    }
    home.ends(&daemon)?;
    ensure!(web.exists(), "an interrupted run lost its disk");
    // Another program, or another daemon's VM, has it.
    let lock = std::fs::File::open(&old)?;
    lock.lock()?;
    expect(&[("old", "in_use"), ("web", "orphan")])?;
    ensure!(home.refusal(&["disk", "rm", "old"])?.contains("in use"), "a locked disk");
    drop(lock);
    ensure!(home.refusal(&["disk", "rm", "../web"])?.contains("no disk"), "outside");
    let removed = home.quasar(&["disk", "rm", "old", "web/disk.ext4"])?;
    ensure!(removed == "old/disk0-0.raw\nweb/disk.ext4\n", "{removed}");
    ensure!(
        home.quasar(&["disk", "ls", "--json"])?.trim() == "[]" && !home.data().join("web").exists(),
        "left"
    );
    Ok(())
}

#[test]
fn progress_moves_on_terminals_alone() -> anyhow::Result<()> {
    let home = Home::new()?;
    // Nobody serves there: the first stage fails after apt has tried a few times.
    let mut build = home.command(&["image", "build", "debian", "--mirror", "http://127.0.0.1:9/debian"]);
    build.env("XDG_CACHE_HOME", home.directory.path().join("cache"));
    let mut shown = AtTerminal::start(build.env("TERM", "xterm"))?;
    let text = reads(&shown, "asking the archive")?;
    ensure!(text.contains('\x1b') || text.contains('\r'), "nothing moves: {text:?}");
    shown.child.kill()?;
    shown.child.wait()?;
    let out = process::run(&mut build)?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(!out.status.success() && text.contains("quasar: asking the archive"), "{text}");
    ensure!(!text.contains('\x1b') && !text.contains('\r'), "control characters in a file: {text:?}");
    Ok(())
}
