//! The differential test: random instruction streams on this project's machine and on QEMU's.
//!
//! One image holds thousands of small cases ([`setup`] makes them, [`stream`] their instructions). Its harness,
//! `guest/bare/differential.S`, sets the hart up for each, enters it in its mode, and stores what the trap that
//! ends it shows. [`machines`] runs the image twice, [`compare`] says where the results differ and what may.
//!
//! `QUASAR_SEED` repeats a run, `QUASAR_CASE` (with the seed) runs one case of it, `QUASAR_CASES` says how many
//! cases a run has, `QUASAR_SHOW` how many differing ones are printed.
#![forbid(unsafe_code)]

mod case;
mod code;
mod compare;
mod image;
mod layout;
mod machines;
mod paging;
mod profile;
mod random;
mod setup;
mod stream;
mod system;
mod values;

use case::{Case, Outcome};
use compare::{differences, report};
use machines::{QemuCpu, run_quasar};
use profile::Profile;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Cases of a run, unless told otherwise.
const CASES: u64 = 3000;
/// Differing cases that are looked at one by one.
const MOST_LOOKED_AT: u64 = 50;

#[test]
fn integer_streams_agree() {
    run(Profile::Integer);
}

#[test]
fn floating_point_streams_agree() {
    run(Profile::Float);
}

#[test]
fn privileged_streams_agree() {
    run(Profile::Privileged);
}

#[test]
fn streams_through_page_tables_agree() {
    run(Profile::Paging);
}

fn run(profile: Profile) {
    let seed = number("QUASAR_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        u64::try_from(now.as_micros() & 0xffff_ffff).expect("32 bits")
    });
    let quasar = quasar_tests::programs::quasar().expect("the programs under test");
    let cpu = QemuCpu::detect().expect("QEMU");
    let indices: Vec<u64> = match number("QUASAR_CASE") {
        Some(only) => vec![only],
        None => (0..number("QUASAR_CASES").unwrap_or(CASES)).collect(),
    };
    eprintln!("{}: QUASAR_SEED={seed}, {} cases, -cpu {}", profile.name(), indices.len(), cpu.options());
    let cases: Vec<Case> =
        indices.iter().map(|&index| setup::generate(seed, profile, index, cpu.zicond)).collect();
    let machines = Machines { quasar, cpu };
    let outcomes = machines.run(&cases);

    let mut wrong = 0;
    let mut first = String::new();
    for (slot, case) in cases.iter().enumerate() {
        let (expected, found) = &outcomes[slot];
        if differences(expected, found).is_empty() || wrong >= MOST_LOOKED_AT {
            continue;
        }
        // Alone: memory that no case sets may still hold what an earlier case left differently.
        let (expected, found) = &machines.run(std::slice::from_ref(case))[0];
        let fields = differences(expected, found);
        if fields.is_empty() {
            continue;
        }
        wrong += 1;
        if wrong <= number("QUASAR_SHOW").unwrap_or(1) {
            let again = format!("QUASAR_SEED={seed} QUASAR_CASE={}", indices[slot]);
            first += &format!("case {} ({again} runs it alone), ", indices[slot]);
            first += &report(case, 0, expected, found, &fields);
        }
    }
    assert!(wrong == 0, "{}: {wrong} of {} cases differ; the first:\n{first}", profile.name(), cases.len());
}

struct Machines {
    quasar: PathBuf,
    cpu: QemuCpu,
}

impl Machines {
    /// What QEMU and Quasar leave of each case.
    fn run(&self, cases: &[Case]) -> Vec<(Outcome, Outcome)> {
        let directory = tempfile::tempdir().expect("a directory for the image");
        let image = image::build(cases, directory.path()).expect("the image");
        let expected = self.cpu.run(&image, directory.path(), cases.len()).expect("QEMU runs the image");
        let found =
            run_quasar(&self.quasar, &image, directory.path(), cases.len()).expect("quasar runs the image");
        expected.into_iter().zip(found).collect()
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
