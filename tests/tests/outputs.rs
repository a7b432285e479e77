//! What the command line does when its output takes nothing: it says so or ends quietly, and never by SIGABRT.

#![forbid(unsafe_code)]

use anyhow::ensure;
use quasar_tests::outputs::{Sink, status};
use quasar_tests::{Host, bare, programs};
use std::process::Command;

/// Looks at how a command ends that prints something: with 1 and a word where its output is full, quietly where nobody
/// reads.
fn check(command: impl Fn() -> Command) -> anyhow::Result<()> {
    let (code, said) = status(&mut command(), Sink::Full)?;
    let told = said.contains("quasar: ") && said.contains("No space left on device");
    ensure!(code == 1 && told, "{:?} > /dev/full: {code}: {said}", command());
    let (code, said) = status(&mut command(), Sink::Left)?;
    ensure!(code == 141 && !said.contains("Broken pipe"), "{:?} | true: {code}: {said}", command());
    Ok(())
}

#[test]
fn without_a_daemon() -> anyhow::Result<()> {
    let quasar = programs::quasar()?;
    let directory = tempfile::tempdir()?;
    let keys = directory.path().join("pki").display().to_string();
    let program = bare::program("htif", directory.path()).display().to_string();
    let command = |line: &[&str]| {
        let mut command = Command::new(&quasar);
        command.args(line).env("QUASAR_SOCKET", directory.path().join("no.sock"));
        command.env("XDG_DATA_HOME", directory.path());
        command
    };
    let lines: &[&[&str]] = &[
        &["--help"],
        &["--version"],
        &["run", "--help"],
        &["help", "image"],
        &["ps"],
        &["ps", "--json"],
        &["pki", "init", "--force", "--dir", &keys],
        &["pki", "issue", "a", "--force", "--json", "--dir", &keys],
        &["isa", "dis", &program],
        &["isa", "run", &program],
    ];
    for line in lines {
        check(|| command(line))?;
    }
    Ok(())
}

#[test]
fn with_a_daemon() -> anyhow::Result<()> {
    let host = Host::start()?;
    let kernel = bare::program("chatter", host.directory()).display().to_string();
    let run = ["run", "talker", "--kernel", &kernel, "--net", "none", "--detach"];
    host.quasar(&run)?;
    let file = host.directory().join("talker.vm").display().to_string();
    let lines: &[&[&str]] = &[
        &["ps"],
        &["ps", "--json"],
        &["console", "talker", "--no-input"],
        &["stats", "talker"],
        &["stats", "talker", "--json"],
        &["stats", "talker", "--watch", "--json"],
        &["pause", "talker"],
        &["resume", "talker"],
        &["swap", "talker", "mmu", "--build", std::env::consts::ARCH],
    ];
    for line in lines {
        check(|| host.command(line))?;
    }
    host.quasar(&["suspend", "talker", &file])?;
    check(|| host.command(&["image", "inspect", &file]))?;
    // What a command has done stays done.
    for (sink, name) in [(Sink::Full, "one"), (Sink::Left, "two")] {
        let (code, said) = status(&mut host.command(&["resume", &file, "--name", name]), sink)?;
        ensure!(code == if sink == Sink::Full { 1 } else { 141 }, "resume: {code}: {said}");
        host.wait_phase(name, "running")?;
        let other = host.directory().join(name).display().to_string();
        let (code, said) = status(&mut host.command(&["suspend", name, &other, "--json"]), sink)?;
        ensure!(code == if sink == Sink::Full { 1 } else { 141 }, "suspend: {code}: {said}");
    }
    // An attached run whose output is lost leaves its VM running.
    let attached = ["run", "heard", "--kernel", &kernel, "--net", "none"];
    let (code, said) = status(&mut host.command(&attached), Sink::Full)?;
    ensure!(code == 1 && said.contains("heard runs on"), "{code}: {said}");
    host.wait_phase("heard", "running")?;
    host.quasar(&["rm", "--force", "heard"])?;
    let (code, said) = status(&mut host.command(&attached), Sink::Left)?;
    ensure!(code == 141, "{code}: {said}");
    host.wait_phase("heard", "running")?;
    host.stop()
}
