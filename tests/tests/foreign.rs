//! Bare programs with processes that are builds for other architectures: each alone beside this machine's own
//! (a mixed VM), and all three. The foreign ones are emulated; about 15 s per
//! architecture.
#![forbid(unsafe_code)]

use quasar_tests::bare::{DETERMINISTIC, PROGRAMS, check, hash};
use quasar_tests::programs::{FOREIGN, foreign};
use quasar_tests::{Host, Recipe, kernel};

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

fn same_as_here(arch: &str) -> anyhow::Result<()> {
    for name in DETERMINISTIC {
        let here = hash(name, &[])?;
        for processes in [&["cpu"][..], &["cpu", "mmu", "devices"]] {
            assert_eq!(hash(name, &instead(arch, processes))?, here, "{name}, {processes:?} for {arch}");
        }
    }
    Ok(())
}

/// The same run gives the same hash of memory, registers and time on every architecture: floating point, timers and
/// device interrupts included.
#[test]
fn deterministic_programs_end_in_the_same_state_everywhere() -> anyhow::Result<()> {
    ["aarch64", "powerpc64", "s390x", "riscv64"].into_iter().try_for_each(same_as_here)
}

/// About 15 s for each of the two.
#[test]
fn a_kernel_boots_the_same_way_on_big_endian_hosts() -> anyhow::Result<()> {
    const INSTRUCTIONS: u64 = 100_000_000;
    let (here, _) = kernel::hash_after(INSTRUCTIONS, &[])?;
    for arch in ["powerpc64", "s390x"] {
        let (there, _) = kernel::hash_after(INSTRUCTIONS, &instead(arch, &["cpu", "mmu", "devices"]))?;
        assert_eq!(there, here, "{arch}");
    }
    Ok(())
}

/// `quasar verify --build`: a running VM goes on in the same way by every architecture's cpu, mmu and devices.
#[test]
fn a_vm_goes_on_in_the_same_way_everywhere() -> anyhow::Result<()> {
    let host = Host::start()?;
    let mut guest = Recipe::initramfs("det")?.with(&["--icount", "--memory", "128M"]).start(&host)?;
    let result = (|| {
        // The kernel initialises its devices now; there is no need to wait for more.
        guest.console.expect("Linux version")?;
        for (arch, _) in FOREIGN {
            let verified =
                host.json(&["verify", "det", "--instructions", "15000000", "--build", arch, "--json"])?;
            anyhow::ensure!(verified["same"] == true, "{verified}");
            let programs = &verified["runs"][1]["programs"];
            anyhow::ensure!(["cpu0", "mmu", "devices"].iter().all(|p| programs[*p] == *arch), "{verified}");
        }
        Ok(())
    })();
    guest.explain(result)?;
    drop(guest);
    host.quasar(&["rm", "--force", "det"])?;
    host.stop()
}
