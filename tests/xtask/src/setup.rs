//! Set-up: what the machine must have for each command, found or installed. Nothing that is installed is changed.

use crate::apt::{KEYRING, debian_archive};
use crate::command::{cargo, output, run};
use crate::cross;
use crate::install::{self, Need};
use crate::stage::stage;
use crate::target::{TARGETS, Target};
use crate::{emulators, passt};

/// cargo-deny's version: one that this toolchain builds.
const CARGO_DENY: &str = "0.20.2";

/// A program or file, the Debian package that brings it, and what needs it.
type Entry = (&'static str, &'static str, &'static str);

/// What Quasar's build and the guest images take.
const GUESTS: &[Entry] = &[
    ("cc", "gcc", "links everything, and builds test programs for the host"),
    ("riscv64-linux-gnu-gcc", "gcc-riscv64-linux-gnu", "compiles the programs that run in the guest"),
    (
        "/usr/riscv64-linux-gnu/include/stdio.h",
        "libc6-dev-riscv64-cross",
        "compiles the programs that run in the guest",
    ),
    ("apt-get", "apt", "downloads the guest's packages"),
    ("dpkg-deb", "dpkg", "unpacks the guest's packages"),
    (KEYRING, "debian-archive-keyring", "verifies the guest's packages"),
    ("xz", "xz-utils", "unpacks the guest's kernel modules"),
    ("depmod", "kmod", "indexes the guest's kernel modules"),
    ("mke2fs", "e2fsprogs", "makes the guest's disk"),
    ("debugfs", "e2fsprogs", "makes the guest's disk"),
    ("ssh-keygen", "openssh-client", "makes the guest's keys"),
];

/// What tests take besides.
const TESTS: &[Entry] = &[
    ("riscv64-linux-gnu-objdump", "binutils-riscv64-linux-gnu", "checks the disassembler"),
    ("dtc", "device-tree-compiler", "checks device trees"),
    ("ip", "iproute2", "network namespaces in tests"),
    ("curl", "curl", "HTTP requests in tests"),
    ("ssh", "openssh-client", "sessions into guests"),
    ("/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin", "opensbi", "firmware for the tests"),
];

/// What benchmarks take besides.
const BENCHMARKS: &[Entry] = &[("wrk", "wrk", "HTTP load in the benchmarks")];

fn needs(lists: &[&[Entry]]) -> Vec<Need> {
    let all = lists.iter().copied().flatten();
    let mut needs: Vec<Need> = all.map(|(what, package, why)| Need::new(what, package, why)).collect();
    needs.extend(passt::needs());
    if debian_archive().is_ok_and(|archive| archive.starts_with("https:")) {
        let why = "archives that are reached by https";
        needs.push(Need::new("/etc/ssl/certs/ca-certificates.crt", "ca-certificates", why));
    }
    needs
}

/// What all commands need.
pub fn everything() -> anyhow::Result<()> {
    stage("set-up");
    let targets: Vec<&Target> = TARGETS.iter().collect();
    let mut needs = needs(&[GUESTS, TESTS, BENCHMARKS]);
    needs.extend(cross::needs(&targets));
    install::provide("the repository", &needs)?;
    passt::provide()?;
    emulators::machine()?;
    emulators::programs(&targets)?;
    cargo_deny()
}

/// What a guest needs: images, and a way out of its network.
pub fn guests() -> anyhow::Result<()> {
    stage("set-up of what the guest needs");
    install::provide("the guest", &needs(&[GUESTS]))?;
    passt::provide()
}

/// The same, and what measures it.
pub fn benchmarks() -> anyhow::Result<()> {
    stage("set-up of the benchmarks");
    install::provide("the benchmarks", &needs(&[GUESTS, BENCHMARKS]))?;
    passt::provide()
}

/// cargo-deny, for the licence and source checks.
pub fn cargo_deny() -> anyhow::Result<()> {
    if output(cargo().args(["deny", "--version"])).is_ok() {
        return Ok(());
    }
    run(cargo().args(["install", "cargo-deny", "--locked", "--version", CARGO_DENY]))
}
