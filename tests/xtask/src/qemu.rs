//! The peer of the benchmarks: a QEMU whose guests live on after a migration.
//!
//! QEMU 10 does not send a RISC-V guest's pending timer with it, and says that all went well. Debian's backports have a
//! later one; it is unpacked with the libraries of its own release, so that it runs on older ones and nothing is installed.

use crate::apt::Apt;
use crate::command::{cache, output, run};
use crate::setup;
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first version that sends everything.
const WHOLE: u32 = 11;
/// Where it is from, and where its libraries are.
const SUITES: [&str; 2] = ["trixie-backports", "trixie"];
const PROGRAM: &str = "qemu-system-riscv64";

/// Major version that a QEMU says; 0 when it says none.
pub fn version(mut qemu: Command) -> u32 {
    let text = output(qemu.arg("--version")).unwrap_or_default();
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
    version.and_then(|v| v.split('.').next()?.parse().ok()).unwrap_or(0)
}

fn unpacked() -> anyhow::Result<PathBuf> {
    Ok(cache()?.join(format!("qemu-{WHOLE}")))
}

/// The unpacked one, by the loader of its release.
fn with_its_libraries(tree: &Path) -> Command {
    let mut command = Command::new(tree.join("usr/lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(tree.join("usr/lib/x86_64-linux-gnu"));
    command.arg(tree.join("usr/bin").join(PROGRAM)).arg("-L").arg(tree.join("usr/share/qemu"));
    command
}

/// Starts with the arguments of QEMU to come.
pub fn command() -> anyhow::Result<Command> {
    if version(Command::new(PROGRAM)) >= WHOLE {
        return Ok(Command::new(PROGRAM));
    }
    let command = with_its_libraries(&unpacked()?);
    ensure!(
        Path::new(command.get_program()).is_file(),
        "QEMU {WHOLE} is not there; `cargo xtask bench` fetches it"
    );
    Ok(command)
}

/// Sees to it that [`command`] finds one.
pub fn provide() -> anyhow::Result<()> {
    if command().is_ok() {
        return Ok(());
    }
    ensure!(
        cfg!(target_arch = "x86_64"),
        "install {PROGRAM} {WHOLE} or later: it is fetched for x86_64 alone"
    );
    eprintln!("missing {PROGRAM} {WHOLE} or later (peer of the benchmarks)");
    setup::provide([("dpkg-deb", "dpkg", "unpacks Debian packages")].into_iter(), [].into_iter())?;
    let tree = unpacked()?;
    let work = tree.with_extension("work");
    std::fs::create_dir_all(&work)?;
    let apt = Apt::new(&work.join("apt"))?;
    apt.look_into("deb", &SUITES)?;
    let install = ["install", "--download-only", "-y", "--no-install-recommends", "-t", SUITES[0]];
    run(apt.command("apt-get").args(install).arg("qemu-system-riscv"))?;
    let root = work.join("root");
    std::fs::create_dir_all(&root)?;
    for package in apt.archives()? {
        output(Command::new("dpkg-deb").arg("-x").arg(package).arg(&root))?;
    }
    let found = version(with_its_libraries(&root));
    ensure!(found >= WHOLE, "{} has QEMU {found}; the benchmarks need {WHOLE} or later", SUITES[0]);
    std::fs::rename(&root, &tree).context("QEMU's tree cannot be named")?;
    Ok(std::fs::remove_dir_all(&work)?)
}
