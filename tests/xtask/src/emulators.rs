//! QEMU, where the machine has none that serves: of a later suite, unpacked into the cache and named beside Quasar's
//! programs. Nothing is installed, since Debian's packages of different versions replace one another.

use crate::apt::Apt;
use crate::command::{cache, exists, output, root, run};
use crate::stage::stage;
use crate::target::{TARGETS, Target};
use anyhow::{Context, ensure};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first version that serves: differential tests agree with it, programs of all architectures run.
const OLDEST: u32 = 9;
/// Where to take it from.
const SUITE: &str = "trixie";
/// The machine of the differential tests.
const MACHINE: &str = "qemu-system-riscv64";

/// Major version that a QEMU says; 0 when it says none.
pub fn version(mut qemu: Command) -> u32 {
    let text = output(qemu.arg("--version")).unwrap_or_default();
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
    version.and_then(|v| v.split('.').next()?.parse().ok()).unwrap_or(0)
}

/// Where the tests and the daemon look before they look on the path: beside Quasar's programs.
fn beside(triple: Option<&str>) -> PathBuf {
    root().join("target").join(triple.unwrap_or_default()).join("release")
}

fn serves(program: &Path) -> bool {
    version(Command::new(program)) >= OLDEST
}

/// The emulator of a target's programs: the one beside, or the machine's own.
pub fn of(target: &Target) -> PathBuf {
    let own = beside(None).join(target.emulator);
    if own.is_file() { own } else { target.emulator.into() }
}

/// Sees to it that programs of these targets can be run.
pub fn programs(targets: &[&Target]) -> anyhow::Result<()> {
    if targets.iter().all(|target| serves(Path::new(target.emulator))) {
        return Ok(());
    }
    fetched_here("qemu-user")?;
    let tree = cache()?.join(format!("qemu-user-{SUITE}"));
    let unpacked = |target: &Target| tree.join(target.emulator.trim_end_matches("-static"));
    if !targets.iter().all(|target| serves(&unpacked(target))) {
        stage(
            "fetching the emulator of other architectures' programs (71 MB; unpacked into the cache, not installed)",
        );
        let apt = Apt::new(&tree.with_extension("work"))?;
        apt.look_into("deb", &[SUITE])?;
        apt.download(&["qemu-user"])?;
        std::fs::create_dir_all(&tree)?;
        // The package has some thirty more.
        let names = TARGETS.iter().map(|t| format!("./usr/bin/{}", t.emulator.trim_end_matches("-static")));
        let tar = "dpkg-deb --fsys-tarfile \"$1\" | tar -x -C \"$2\" --strip-components=3 \"$@\"";
        let tar = tar.replace("\"$@\"", &names.collect::<Vec<_>>().join(" "));
        run(Command::new("sh").args(["-ec", &tar, "sh"]).arg(apt.downloaded(".deb")?).arg(&tree))?;
        std::fs::remove_dir_all(tree.with_extension("work"))?;
    }
    for target in targets {
        let program = unpacked(target);
        ensure!(serves(&program), "{} does not run on this machine", program.display());
    }
    // An emulated daemon looks beside its own programs.
    for target in TARGETS.iter().filter(|target| unpacked(target).is_file()) {
        let places = TARGETS.iter().map(|t| Some(t.triple)).chain([None]);
        for place in places.map(beside) {
            link(&unpacked(target), &place.join(target.emulator))?;
        }
    }
    Ok(())
}

/// Sees to it that the differential tests have their machine.
pub fn machine() -> anyhow::Result<()> {
    let own = beside(None).join(MACHINE);
    if serves(&own) || serves(Path::new(MACHINE)) {
        return Ok(());
    }
    fetched_here(MACHINE)?;
    let qemu = Unpacked { name: format!("qemu-{SUITE}"), suites: &[SUITE], oldest: OLDEST };
    if version(qemu.command()?) < OLDEST {
        stage("fetching the differential tests' QEMU (some 35 MB; unpacked into the cache, not installed)");
        qemu.provide()?;
    }
    let command = qemu.command()?;
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    std::fs::create_dir_all(beside(None))?;
    // Not through a link, if there was one.
    drop(std::fs::remove_file(&own));
    std::fs::write(&own, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")))?;
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755))?;
    ensure!(serves(&own), "{} does not run", own.display());
    Ok(())
}

fn fetched_here(program: &str) -> anyhow::Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64") && exists("apt-get"),
        "install {program} {OLDEST} or later, then run this again: it is fetched for Debian on x86_64 alone"
    );
    Ok(())
}

fn link(program: &Path, name: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(name.parent().context("a name in a directory")?)?;
    // It may lead to an older one, or to one that has gone.
    drop(std::fs::remove_file(name));
    std::os::unix::fs::symlink(program, name).with_context(|| format!("cannot make {}", name.display()))
}

/// A QEMU of whole machines, with the libraries of its own release, so that it runs on older ones.
pub struct Unpacked {
    /// Its directory's name in the cache.
    pub name: String,
    /// The suite that it is from, and others that have its libraries.
    pub suites: &'static [&'static str],
    /// The first version that will do.
    pub oldest: u32,
}

impl Unpacked {
    fn tree(&self) -> anyhow::Result<PathBuf> {
        Ok(cache()?.join(&self.name))
    }

    /// Starts with the arguments of QEMU to come.
    pub fn command(&self) -> anyhow::Result<Command> {
        Ok(with_its_libraries(&self.tree()?))
    }

    /// Fetches it.
    pub fn provide(&self) -> anyhow::Result<()> {
        let tree = self.tree()?;
        let work = tree.with_extension("work");
        std::fs::create_dir_all(&work)?;
        let apt = Apt::new(&work.join("apt"))?;
        apt.look_into("deb", self.suites)?;
        let newest = self.suites.first().context("a suite")?;
        apt.fetch("qemu-system-riscv", newest)?;
        let unpacked = work.join("root");
        std::fs::create_dir_all(&unpacked)?;
        for package in apt.archives()? {
            output(Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked))?;
        }
        let (found, oldest) = (version(with_its_libraries(&unpacked)), self.oldest);
        ensure!(found >= oldest, "{newest} has QEMU {found}; {oldest} or later is needed");
        // One that did not run, as this is not called for others.
        drop(std::fs::remove_dir_all(&tree));
        std::fs::rename(&unpacked, &tree).context("QEMU's tree cannot be named")?;
        Ok(std::fs::remove_dir_all(&work)?)
    }
}

/// By the loader of its release.
fn with_its_libraries(tree: &Path) -> Command {
    let mut command = Command::new(tree.join("usr/lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(tree.join("usr/lib/x86_64-linux-gnu"));
    command.arg(tree.join("usr/bin").join(MACHINE)).arg("-L").arg(tree.join("usr/share/qemu"));
    command
}
