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
mod known;
mod layout;
mod machines;
mod paging;
mod pieces;
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
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Cases of a run, unless told otherwise.
const CASES: u64 = 3000;

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

    let differing: Vec<usize> = (0..cases.len())
        .filter(|&slot| !differences(&cases[slot], &outcomes[slot].0, &outcomes[slot].1).is_empty())
        .collect();
    let strays = (0..cases.len())
        .filter(|&slot| known::strays(&cases[slot], &outcomes[slot].0, &outcomes[slot].1))
        .count();
    eprintln!("{strays} cases are not compared, for what QEMU is known to do otherwise in them");
    let shown = usize::try_from(number("QUASAR_SHOW").unwrap_or(1)).expect("a count");
    let mut text = String::new();
    for &slot in differing.iter().take(shown) {
        let case = &cases[slot];
        let again = format!("QUASAR_SEED={seed} QUASAR_CASE={}", indices[slot]);
        let alone = &machines.run(std::slice::from_ref(case))[0];
        let fields = differences(case, &alone.0, &alone.1);
        if fields.is_empty() {
            // Something of the cases before it is left: in a TLB, in decoded code, or in memory that nothing sets.
            let (expected, found) = &outcomes[slot];
            let fields = differences(case, expected, found);
            text += &format!("case {} (only after those before it: {again} agrees), ", indices[slot]);
            text += &report(case, slot, expected, found, &fields);
        } else {
            text += &format!("case {} ({again} runs it alone), ", indices[slot]);
            text += &report(case, 0, &alone.0, &alone.1, &fields);
        }
    }
    let (wrong, all) = (differing.len(), cases.len());
    assert!(all < 100 || strays <= all / 20, "{}: {strays} of {all} cases are not compared", profile.name());
    assert!(wrong == 0, "{}: {wrong} of {all} cases differ; the first:\n{text}", profile.name());
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
        let start = Instant::now();
        let expected = self.cpu.run(&image, directory.path(), cases.len()).expect("QEMU runs the image");
        let between = Instant::now();
        let found =
            run_quasar(&self.quasar, &image, directory.path(), cases.len()).expect("quasar runs the image");
        eprintln!("QEMU took {:.1?}, quasar {:.1?}", between - start, between.elapsed());
        expected.into_iter().zip(found).collect()
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
