//! The command line: what it says when something is wrong, and that nothing is left behind when it is
//! interrupted. One boot, about 20 s.

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use quasar_tests::images::images;
use quasar_tests::turn::Turn;
use quasar_tests::{Console, Host, PATIENCE, Recipe, leftovers, process, programs, wait_for};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

#[test]
fn errors_say_what_to_do() -> anyhow::Result<()> {
    let host = Host::start()?;
    let kernel = images()?.kernel.display().to_string();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let publish = format!("{}:80", taken.local_addr()?.port());
    let says = |arguments: &[&str], words: &[&str]| {
        let text = host.refusal(arguments)?;
        let missing = words.iter().find(|word| !text.contains(**word));
        ensure!(missing.is_none(), "quasar {}: no {missing:?} in {text}", arguments.join(" "));
        Ok(())
    };
    says(&["run", "a", "--kernel", "/nonexistent/Image", "--detach"], &["/nonexistent/Image"])?;
    says(&["run", "a", "--kernel", &kernel, "--initrd", "/nonexistent/i", "--detach"], &["/nonexistent/i"])?;
    says(&["run", "a", "--kernel", &kernel, "--disk", "/nonexistent/d", "--detach"], &["/nonexistent/d"])?;
    says(
        &["run", "a", "--kernel", &kernel, "--firmware", "/nonexistent/f", "--detach"],
        &["/nonexistent/f"],
    )?;
    says(&["run", "a", "--kernel", "/etc/hostname", "--net", "none", "--detach"], &["/etc/hostname"])?;
    says(&["run", "a", "--kernel", &kernel, "--memory", "12Q", "--detach"], &["12Q", "K, M, G or T"])?;
    says(&["run", "a", "--kernel", &kernel, "--memory", "4097", "--detach"], &["4097", "4K"])?;
    says(&["run", "a", "--kernel", &kernel, "--memory", "4M", "--net", "none", "--detach"], &["memory"])?;
    says(&["run", "a", "--kernel", &kernel, "--harts", "99", "--detach"], &["99", "16"])?;
    says(&["run", "a/b", "--kernel", &kernel, "--detach"], &["a/b"])?;
    says(&["run", "a", "--kernel", &kernel, "--publish", &publish, "--detach"], &["in use"])?;
    says(&["stop", "nobody"], &["nobody", "quasar ps"])?;
    says(&["isa", "run", "/nonexistent/elf"], &["/nonexistent/elf"])?;
    ensure!(host.json(&["ps", "--json"])?.as_array().is_some_and(Vec::is_empty), "a refused VM is listed");

    let run = ["run", "a", "--kernel", &kernel, "--net", "none", "--detach"];
    host.quasar(&run)?;
    says(&run, &["a", "already", "quasar rm"])?;
    says(&["rm", "a"], &["running", "--force"])?;
    host.quasar(&["rm", "a", "--force"])?;
    host.stop()
}

#[test]
fn without_a_daemon() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut command = Command::new(programs::quasar()?);
    command.env("QUASAR_SOCKET", directory.path().join("host.sock")).args(["stats", "web"]);
    let out = process::run(&mut command)?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(!out.status.success() && text.contains("quasar host"), "{text}");
    Ok(())
}

#[test]
fn sigterm_ends_the_daemon_and_everything_of_it() -> anyhow::Result<()> {
    let host = Host::start()?;
    let kernel = images()?.kernel.display().to_string();
    for name in ["one", "two"] {
        host.quasar(&["run", name, "--kernel", &kernel, "--memory", "128M", "--harts", "2", "--detach"])?;
    }
    ensure!(!leftovers::segments(host.pid()).is_empty(), "the VMs' segments are not found");
    ensure!(process::descendants(host.pid()).len() > 2 * 4, "the VMs' processes are not found");
    host.stop()
}

#[test]
fn ctrl_c_of_an_attached_run_leaves_nothing() -> anyhow::Result<()> {
    let _turn = Turn::take()?;
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("run/host.sock");
    let recipe = Recipe::initramfs("brief")?;
    let mut command = Command::new(programs::quasar()?);
    // Attached: the recipe's arguments but for --detach.
    command.args(recipe.arguments().into_iter().filter(|word| *word != "--detach"));
    command.env("QUASAR_SOCKET", &socket);
    let mut console = Console::attach(&mut command)?;
    console.expect("GUEST READY ")?;
    let mark = socket.display().to_string();
    let daemon = process::list().into_iter().find(|p| p.line.contains(&mark) && p.line.contains(" host "));
    let daemon = daemon.context("the daemon in the background is not found")?;
    let mut family = process::descendants(daemon.pid);
    ensure!(family.len() >= 4, "{family:?}");
    family.push(daemon.clone());

    process::signal(console.pid(), Signal::SIGINT)?;
    let status = process::wait(console.child(), PATIENCE)?;
    ensure!(status.code() == Some(130), "an interrupted run ended with {status}");
    // The daemon was started for this VM, and goes when it is idle.
    wait_for("the daemon's end", || (!process::lives(&daemon)).then_some(()))?;
    let left = leftovers::of(daemon.pid, &family, &[]);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    ensure!(!socket.exists(), "the daemon's socket is left behind");
    Ok(())
}
