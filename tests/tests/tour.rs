//! The README's tour, typed line by line at two machines with empty homes: each line does what the README says. Some
//! boots, among them the disk's; about two minutes. Needs root, for network namespaces.

use anyhow::{Context, ensure};
use quasar_tests::images::images;
use quasar_tests::namespace::Namespace;
use quasar_tests::readme::{Machine, steps};
use quasar_tests::terminal::Terminal;
use quasar_tests::turn::Turn;
use quasar_tests::{console, process, programs, wait_for};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The machines' addresses in the README.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];

fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// A directory of the user who runs the tests: `$NAME`, or this one in the home.
fn own(name: &str, default: &str) -> anyhow::Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(default));
    std::env::var_os(name).map(PathBuf::from).or_else(home).context("HOME is not set")
}

/// A terminal at a machine whose user has nothing in the home yet but shares the toolchain and the images with us.
fn terminal(network: &Namespace, home: &Path) -> anyhow::Result<Terminal> {
    for directory in ["home", "run", "tmp"] {
        std::fs::create_dir_all(home.join(directory))?;
    }
    let mut command = network.command("script");
    command.current_dir(repository()).env_clear();
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LANG", "C.UTF-8");
    command.env("HOME", home.join("home")).env("TMPDIR", home.join("tmp"));
    command.env("XDG_RUNTIME_DIR", home.join("run"));
    command
        .env("CARGO_HOME", own("CARGO_HOME", ".cargo")?)
        .env("RUSTUP_HOME", own("RUSTUP_HOME", ".rustup")?);
    command.env("XDG_CACHE_HOME", own("XDG_CACHE_HOME", ".cache")?);
    Terminal::open(command)
}

#[test]
fn the_readme_tells_the_truth() -> anyhow::Result<()> {
    let _turn = Turn::take()?;
    // Its networks lead nowhere.
    images()?;
    programs::directory()?;
    let text = std::fs::read_to_string(repository().join("README.md"))?;
    let steps = steps(&text, "A tour")?;
    let homes = tempfile::Builder::new().prefix("quasar-tour-").tempdir()?;
    // The user's commands find the daemons that they started below this directory.
    let mark = homes.path().display().to_string();
    let (a, b) = Namespace::pair_at(ADDRESSES)?;
    let mut terminals = [terminal(&a, &homes.path().join("a"))?, terminal(&b, &homes.path().join("b"))?];
    // No ssh server runs there: what is copied to the other machine is copied to its home.
    let other = homes.path().join("b/home");
    terminals[0].run(&format!(r#"scp() {{ cp -r "$2" "{}/${{3#*:}}"; }}"#, other.display()))?;
    let walked = steps.iter().try_for_each(|step| {
        eprintln!("{}", step.command);
        let terminal = &mut terminals[usize::from(step.machine == Machine::B)];
        terminal.take(step).with_context(|| {
            let shown: Vec<String> =
                terminals.iter().map(|terminal| console::tail(&terminal.text(), 60)).collect();
            format!("--- at a\n{}\n--- at b\n{}", shown[0], shown[1])
        })
    });
    drop(terminals);
    let find = || -> Vec<_> { process::list().into_iter().filter(|p| p.line.contains(&mark)).collect() };
    // Those that were started for a VM go some moments after it.
    let gone = walked.is_err() || wait_for("the daemons' end", || find().is_empty().then_some(())).is_ok();
    let daemons = find();
    for daemon in &daemons {
        process::signal(daemon.pid, nix::sys::signal::Signal::SIGKILL)?;
    }
    walked?;
    ensure!(gone, "the tour leaves {daemons:?}");
    Ok(())
}
