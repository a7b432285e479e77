//! Set-up: what the machine must have, found or installed.

use crate::command::{cargo, exists, output, run};
use anyhow::{Context, bail, ensure};
use std::path::PathBuf;
use std::process::Command;

/// cargo-deny's version: one that this toolchain builds.
const CARGO_DENY: &str = "0.20.2";

/// QEMU's first version that the differential tests agree with.
const OLDEST_QEMU: u32 = 9;
/// Keys of Debian's archive.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Programs with the Debian package that brings each, and what needs it.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("riscv64-linux-gnu-gcc", "gcc-riscv64-linux-gnu", "compiles the guest's test programs"),
    ("riscv64-linux-gnu-objdump", "binutils-riscv64-linux-gnu", "checks the disassembler"),
    ("qemu-riscv64-static", "qemu-user-static", "independent emulator for differential tests"),
    ("passt", "passt", "unprivileged network uplink"),
    ("dtc", "device-tree-compiler", "checks device trees"),
    ("apt-get", "apt", "downloads the guest's packages"),
    ("mke2fs", "e2fsprogs", "makes disk images"),
    ("debugfs", "e2fsprogs", "sets owners in disk images"),
    ("xz", "xz-utils", "unpacks Debian packages"),
    ("depmod", "kmod", "indexes the guest's kernel modules"),
    ("dpkg-deb", "dpkg", "unpacks Debian packages"),
    ("ip", "iproute2", "network namespaces in tests"),
    ("curl", "curl", "HTTP requests in the demonstration and tests"),
    ("wrk", "wrk", "HTTP load in the benchmarks"),
    ("cc", "gcc", "links everything, and builds test programs for the host"),
    ("ssh", "openssh-client", "sessions into guests"),
    ("ssh-keygen", "openssh-client", "keys of guests"),
];

/// Packages that are no programs: a file that shows whether each is there.
const FILES: &[(&str, &str, &str)] = &[
    (
        "/usr/riscv64-linux-gnu/include/stdio.h",
        "libc6-dev-riscv64-cross",
        "compiles the guest's test programs",
    ),
    ("/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin", "opensbi", "firmware for the tests"),
    (KEYRING, "debian-archive-keyring", "verifies the guest's packages"),
    // The cross compiler and QEMU only recommend these.
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates", "archives that are reached by https"),
];

/// Installs everything.
pub fn everything() -> anyhow::Result<()> {
    packages()?;
    cargo_deny()
}

/// Debian packages.
pub fn packages() -> anyhow::Result<()> {
    provide(PROGRAMS.iter().copied(), FILES.iter().copied())?;
    crate::passt::provide()?;
    qemu()
}

/// Installs the packages of those programs and files that are not there: each with its package and what it
/// is for.
pub fn provide<'a>(
    programs: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
    files: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
) -> anyhow::Result<()> {
    let programs = programs.filter(|(program, ..)| !exists(program));
    let files = files.filter(|(file, ..)| !std::path::Path::new(file).exists());
    let mut missing: Vec<&str> = vec![];
    for (what, package, why) in programs.chain(files) {
        eprintln!("missing {what} ({why}): Debian package {package}");
        if !missing.contains(&package) {
            missing.push(package);
        }
    }
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// Runs apt-get, as root.
fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
    if !root {
        command.arg("apt-get");
    }
    run(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn install(missing: &[&str]) -> anyhow::Result<()> {
    if !exists("apt-get") {
        bail!("install these with your distribution's tools, then run this again: {}", missing.join(" "));
    }
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(missing);
    apt(&arguments)
}

fn qemu_version() -> u32 {
    crate::qemu::version(Command::new("qemu-system-riscv64"))
}

/// QEMU: independent emulator of the differential tests. Debian 12's own gives wrong
/// causes for atomic instructions and ignores reserved bits of page tables; its backports have a newer one.
fn qemu() -> anyhow::Result<()> {
    if qemu_version() >= OLDEST_QEMU {
        return Ok(());
    }
    if !exists("apt-get") {
        bail!("install qemu-system-riscv64, version {OLDEST_QEMU} or later, then run this again");
    }
    eprintln!(
        "missing qemu-system-riscv64 {OLDEST_QEMU} or later (independent emulator for differential tests)"
    );
    let release = std::fs::read_to_string("/etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.context("/etc/os-release names no VERSION_CODENAME: is this Debian?")?;
    let sources = Sources::with_suite(&format!("{codename}-backports"))?;
    let option = format!("Dir::Etc::sourceparts={}", sources.directory.display());
    apt(&["-o", &option, "update", "-qq"])?;
    let suite = format!("{codename}-backports");
    let newest = ["-o", &option, "install", "-y", "-qq", "--no-install-recommends"];
    let packages = ["-t", &suite, "qemu-system-riscv"];
    if apt(&[&newest[..], &packages[..]].concat()).is_err() {
        // A release whose own QEMU is recent enough, and that has no backports of it.
        apt(&[&newest[..], &["qemu-system-riscv"]].concat())?;
    }
    let found = qemu_version();
    ensure!(found >= OLDEST_QEMU, "apt installed QEMU {found}; the tests need {OLDEST_QEMU} or later");
    Ok(())
}

/// The machine's package sources with one suite more, in a directory of their own.
struct Sources {
    directory: PathBuf,
}

impl Sources {
    /// The suite is taken from the archive that the machine's own sources name.
    fn with_suite(suite: &str) -> anyhow::Result<Self> {
        let this =
            Self { directory: std::env::temp_dir().join(format!("quasar-apt-{}", std::process::id())) };
        std::fs::create_dir_all(&this.directory)?;
        for entry in std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path())?;
            std::fs::write(this.directory.join(entry.file_name()), text)?;
        }
        let archive = debian_archive()?;
        let line = format!("deb [signed-by={KEYRING}] {archive} {suite} main\n");
        std::fs::write(this.directory.join("quasar-backports.list"), line)?;
        Ok(this)
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        // A few small files in the directory for such.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// The archive of Debian itself that this machine's apt uses.
pub fn debian_archive() -> anyhow::Result<String> {
    let own = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let addresses = output(Command::new("apt-get").args(own))?;
    let mut addresses = addresses.lines().map(|address| address.trim_end_matches('/'));
    let debian = addresses.find(|address| address.ends_with("/debian"));
    Ok(debian.context("this machine's apt knows no archive of Debian")?.to_owned())
}

/// cargo-deny, for the licence and source checks.
pub fn cargo_deny() -> anyhow::Result<()> {
    if output(cargo().args(["deny", "--version"])).is_ok() {
        return Ok(());
    }
    run(cargo().args(["install", "cargo-deny", "--locked", "--version", CARGO_DENY]))
}
