//! Bare programs with processes that are builds for other architectures: each alone beside this machine's own
//! (a mixed VM), and all three. The foreign ones are emulated; about 15 s per architecture.
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
    let mut guest = Recipe::initramfs("det")?.with(&["--icount", "--memory", "192M"]).start(&host)?;
    let result = (|| {
        // The kernel initialises its devices now; there is no need to wait for more.
        guest.console.expect("Linux version")?;
        for (arch, ..) in FOREIGN {
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

/// The alignments of what a program has loaded, in the byte order that its header says.
fn load_alignments(program: &[u8]) -> Vec<u64> {
    const LOAD: u64 = 1;
    let big = program[5] == 2;
    let number = |at: usize, len: usize| {
        let bytes = &program[at..at + len];
        let digits: Vec<u8> = if big { bytes.to_vec() } else { bytes.iter().rev().copied().collect() };
        digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit))
    };
    let index = |number: u64| usize::try_from(number).expect("an offset");
    let (table, size, count) = (index(number(32, 8)), index(number(54, 2)), index(number(56, 2)));
    let headers = (0..count).map(|n| table + n * size).filter(|at| number(*at, 4) == LOAD);
    headers.map(|at| number(at + 48, 8)).collect()
}

/// Kernels of these architectures may have pages of 64 KiB: a program of smaller alignment would not even start.
#[test]
fn programs_load_on_kernels_with_large_pages() {
    for arch in ["aarch64", "powerpc64"] {
        for program in quasar_tests::programs::PROGRAMS {
            let path = foreign(arch).expect("the builds for other architectures").join(program);
            let found = load_alignments(&std::fs::read(&path).expect("the program"));
            assert!(
                !found.is_empty() && found.iter().all(|a| a.is_multiple_of(64 << 10)),
                "{path:?}: {found:?}"
            );
        }
    }
}
