//! Bare programs with processes that are builds for other architectures: each alone beside this machine's own
//! (a mixed VM), and all three. The foreign ones are emulated; about 15 s per
//! architecture.
#![forbid(unsafe_code)]

use quasar_tests::bare::{PROGRAMS, check};
use quasar_tests::programs::foreign;

/// Arguments that have these processes be builds for `arch`.
fn instead(arch: &str, processes: &[&str]) -> Vec<String> {
    let directory = foreign(arch).expect("the builds for other architectures");
    let argument = |process: &&str| {
        let program = directory.join(format!("quasar-{process}"));
        ["--exe-for".to_owned(), format!("{process}={}", program.display())]
    };
    processes.iter().flat_map(argument).collect()
}

fn mixed(arch: &str) {
    for processes in [&["cpu"][..], &["mmu"], &["devices"], &["cpu", "mmu", "devices"]] {
        let arguments = instead(arch, processes);
        PROGRAMS.iter().for_each(|name| check(name, &arguments));
    }
}

#[test]
fn aarch64() {
    mixed("aarch64");
}

#[test]
fn powerpc64() {
    mixed("powerpc64");
}

#[test]
fn s390x() {
    mixed("s390x");
}

#[test]
fn riscv64() {
    mixed("riscv64");
}

/// Two byte orders in one VM, the hart's memory accesses and the mmu's walks on different ones.
#[test]
fn both_byte_orders_and_three_architectures() {
    let mut arguments = instead("s390x", &["cpu"]);
    arguments.extend(instead("aarch64", &["mmu"]));
    arguments.extend(instead("powerpc64", &["devices"]));
    PROGRAMS.iter().for_each(|name| check(name, &arguments));
}
