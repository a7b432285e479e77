//! Where the programs under test are: the release builds, whichever profile the caller was built with.

use anyhow::{Context, ensure};
use std::path::PathBuf;

/// The processes of Quasar.
pub const PROGRAMS: &[&str] =
    &["quasar", "quasar-cpu", "quasar-mmu", "quasar-devices", "quasar-netswitch", "quasar-migrator"];

/// The directory of the release builds.
///
/// # Errors
/// When they have not been built.
pub fn directory() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("this program's own path")?;
    let profile = own
        .ancestors()
        .find(|path| path.file_name().is_some_and(|name| name == "release" || name == "debug"))
        .with_context(|| format!("{} is in no cargo target directory", own.display()))?;
    let directory = profile.with_file_name("release");
    for program in PROGRAMS {
        let path = directory.join(program);
        ensure!(path.is_file(), "{} is missing; build it: cargo build --release --workspace", path.display());
    }
    Ok(directory)
}

/// The `quasar` command.
///
/// # Errors
/// As [`directory`].
pub fn quasar() -> anyhow::Result<PathBuf> {
    Ok(directory()?.join("quasar"))
}

/// Names of the foreign architectures, with the compiler's names of the targets and the emulators of their programs.
pub const FOREIGN: &[(&str, &str, &str)] = &[
    ("aarch64", "aarch64-unknown-linux-gnu", "qemu-aarch64-static"),
    ("powerpc64", "powerpc64-unknown-linux-gnu", "qemu-ppc64-static"),
    ("s390x", "s390x-unknown-linux-gnu", "qemu-s390x-static"),
    ("riscv64", "riscv64gc-unknown-linux-gnu", "qemu-riscv64-static"),
];

fn known(arch: &str) -> anyhow::Result<&'static (&'static str, &'static str, &'static str)> {
    let found = FOREIGN.iter().find(|(name, ..)| *name == arch);
    found.with_context(|| format!("{arch} is none of the foreign architectures"))
}

/// The emulator of an architecture's programs.
///
/// # Errors
/// When there is no such architecture.
pub fn emulator(arch: &str) -> anyhow::Result<PathBuf> {
    Ok(tool(known(arch)?.2))
}

/// A program of others: the one that set-up put beside Quasar's, or else the one on the path.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    let beside = directory().map(|directory| directory.join(name)).ok();
    beside.filter(|program| program.is_file()).unwrap_or_else(|| name.into())
}

/// The directory of the builds for another architecture.
///
/// # Errors
/// When they have not been built.
pub fn foreign(arch: &str) -> anyhow::Result<PathBuf> {
    let (_, triple, _) = known(arch)?;
    let directory = directory()?.with_file_name(triple).join("release");
    for program in PROGRAMS {
        let path = directory.join(program);
        ensure!(
            path.is_file(),
            "{} is missing; build it: cargo xtask build --target {triple}",
            path.display()
        );
    }
    Ok(directory)
}
