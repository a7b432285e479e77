//! Set-up: what the machine must have, found or installed.

use crate::command::{cargo, exists, output, run};
use anyhow::bail;
use std::process::Command;

/// cargo-deny's version: one that this toolchain builds.
const CARGO_DENY: &str = "0.20.2";

/// Programs with the Debian package that brings each, and what needs it.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("riscv64-linux-gnu-gcc", "gcc-riscv64-linux-gnu", "compiles the guest's test programs"),
    ("riscv64-linux-gnu-objdump", "binutils-riscv64-linux-gnu", "checks the disassembler"),
    ("qemu-riscv64-static", "qemu-user-static", "independent emulator for differential tests"),
    ("qemu-system-riscv64", "qemu-system-misc", "independent emulator and peer of the benchmarks"),
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
    (
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
        "verifies the guest's packages",
    ),
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
    let programs = PROGRAMS.iter().filter(|(program, ..)| !exists(program));
    let files = FILES.iter().filter(|(file, ..)| !std::path::Path::new(file).exists());
    let mut missing: Vec<&str> = vec![];
    for (what, package, why) in programs.chain(files) {
        eprintln!("missing {what} ({why}): Debian package {package}");
        if !missing.contains(package) {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !exists("apt-get") {
        bail!("install these with your distribution's tools, then run this again: {}", missing.join(" "));
    }
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    let apt = |arguments: &[&str]| {
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.arg("apt-get");
        }
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        run(&mut command)
    };
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(missing);
    apt(&arguments)
}

/// cargo-deny, for the licence and source checks.
pub fn cargo_deny() -> anyhow::Result<()> {
    if output(cargo().args(["deny", "--version"])).is_ok() {
        return Ok(());
    }
    run(cargo().args(["install", "cargo-deny", "--locked", "--version", CARGO_DENY]))
}
