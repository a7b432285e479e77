//! Builds for other architectures: their toolchains, and `cargo xtask build`.

use crate::command::{self, cargo, root, run};
use crate::install::{self, Need};
use crate::target::{TARGETS, Target};
use crate::{emulators, rust_std};
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

/// The six processes.
pub const PACKAGES: &[&str] = &[
    "quasar-cpu",
    "quasar-mmu",
    "quasar-devices",
    "quasar-netswitch",
    "quasar-migrator",
    "quasar-supervisor",
];

/// What must be installed to build for targets: the C compiler and its library.
pub fn needs(targets: &[&Target]) -> Vec<Need> {
    let of = |target: &&Target| {
        let (gnu, why) = (target.gnu, "builds Quasar for another architecture");
        [
            Need::new(&format!("{gnu}-gcc"), &format!("gcc-{gnu}"), why),
            Need::new(&format!("{gnu}-ld"), &format!("binutils-{gnu}"), why),
            Need::new(&format!("/usr/{gnu}/lib/libc.a"), target.libc, why),
        ]
    };
    targets.iter().flat_map(of).collect()
}

/// Makes the machine able to build for `targets`; returns cargo's configuration for that.
fn toolchains(targets: &[&Target]) -> anyhow::Result<PathBuf> {
    install::provide("building for other architectures", &needs(targets))?;
    let triples: Vec<&str> = targets.iter().map(|t| t.triple).collect();
    let sysroot = rust_std::provide(&triples)?;
    // Static programs: they run on any machine of their architecture, and under an emulator without that
    // architecture's libraries. All targets are in the file, so that it may be used by hand.
    let mut text = String::from("# Written by `cargo xtask build`; cargo --config THIS build --target …\n");
    // Nobody looks at the lines of a foreign program's frames; their table takes a part of the time to build.
    text.push_str("[profile.release]\ndebug = false\n");
    for target in TARGETS {
        let mut flags = vec!["-C".to_owned(), "target-feature=+crt-static".to_owned()];
        if let Some(sysroot) = sysroot.as_ref().filter(|_| !rust_std::installed(target.triple)) {
            flags.extend(["--sysroot".to_owned(), sysroot.display().to_string()]);
        }
        let (Target { triple, gnu, .. }, emulator) = (target, emulators::of(target));
        writeln!(
            text,
            "[target.{triple}]\nlinker = \"{gnu}-gcc\"\nrunner = [{emulator:?}]\nrustflags = {flags:?}"
        )?;
    }
    let path = root().join("target/cross.toml");
    std::fs::create_dir_all(root().join("target"))?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A build of some of the processes for this machine, or with `--target` for others.
pub fn build_command(packages: &[&str], debug: bool) -> Command {
    let mut command = cargo();
    command.args(["build", "--locked"]).args((!debug).then_some("--release"));
    command.args(packages.iter().flat_map(|package| ["-p", package]));
    command
}

/// `cargo xtask build`: all six processes, for each target; for this machine when none is named.
pub fn build(names: &[String], debug: bool) -> anyhow::Result<()> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH.replace("riscv64", "riscv64gc"));
    let (own, foreign): (Vec<&str>, Vec<&str>) =
        names.iter().map(String::as_str).partition(|name| *name == host);
    if names.is_empty() || !own.is_empty() {
        command::build(&mut build_command(PACKAGES, debug))?;
    }
    if foreign.is_empty() { Ok(()) } else { build_some(&foreign, PACKAGES, debug) }
}

/// Some of the processes for other architectures.
pub fn build_some(names: &[&str], packages: &[&str], debug: bool) -> anyhow::Result<()> {
    let targets: Vec<&Target> = names.iter().map(|n| Target::named(n)).collect::<anyhow::Result<_>>()?;
    if std::env::var_os("RUSTFLAGS").is_some() {
        bail!("RUSTFLAGS is set and would replace the flags that the targets need; unset it");
    }
    if let Err(error) = emulators::programs(&targets) {
        eprintln!("these builds cannot be run here: {error:#}");
    }
    let config = toolchains(&targets)?;
    let mut command = build_command(packages, debug);
    command.arg("--config").arg(config);
    command::build(command.args(targets.iter().flat_map(|target| ["--target", target.triple])))
}

/// Runs the tests whose results could depend on the host's architecture, as builds for each target, under
/// its emulator.
pub fn test(names: &[String], filter: Option<&str>) -> anyhow::Result<()> {
    let targets: Vec<&Target> = names.iter().map(|n| Target::named(n)).collect::<anyhow::Result<_>>()?;
    emulators::programs(&targets)?;
    let config = toolchains(&targets)?;
    for target in &targets {
        let mut command = cargo();
        command.arg("--config").arg(&config).args(["test", "--release", "--locked", "--no-fail-fast"]);
        command.args(["--target", target.triple, "-p", "quasar-abi", "-p", "quasar-cpu"]).args(filter);
        run(&mut command)?;
    }
    Ok(())
}

/// Everything for all of them.
pub fn all() -> Vec<String> {
    TARGETS.iter().map(|t| t.triple.to_owned()).collect()
}
