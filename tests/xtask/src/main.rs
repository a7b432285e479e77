//! `cargo xtask`: set-up, demonstration, tests and measurements of Quasar.
#![forbid(unsafe_code)]

mod apt;
mod bench;
mod building;
mod checks;
mod command;
mod cross;
mod demo;
mod emulators;
mod install;
mod kills;
mod load;
mod machine;
mod moves;
mod passt;
mod peers;
mod progress;
mod qemu;
mod qmp;
mod report;
mod rules;
mod rust_std;
mod setup;
mod simulation;
mod stage;
mod target;
mod tour;
mod trouble;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Everything one does with the repository. Each command does its own set-up.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the other commands need (Debian packages, cargo-deny).
    Setup,
    /// Build all processes, for this machine or for another architecture, with the set-up of its toolchain.
    Build {
        /// A target: aarch64-, powerpc64-, s390x- or riscv64gc-unknown-linux-gnu. Repeatable.
        #[arg(long)]
        target: Vec<String>,
        /// All of these targets.
        #[arg(long, conflicts_with = "target")]
        all: bool,
        /// Without optimisation.
        #[arg(long)]
        debug: bool,
    },
    /// Boot Debian, ask its web server, move it between daemons, kill its processes, print a report, shut it down;
    /// then a tour over architectures.
    Demo {
        /// Without the tour of architectures, its packages and its builds.
        #[arg(long)]
        no_tour: bool,
        /// The report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// The rules of architecture.toml, formatting, lints, licences, and all tests, with their set-up and the builds for other architectures.
    Test {
        /// Only the tests whose name contains this; no rules, formatting, lints and licences.
        filter: Option<String>,
        /// Instead, the tests of the contract, of instructions and of floating point as builds for this
        /// architecture, emulated. Repeatable.
        #[arg(long)]
        target: Vec<String>,
    },
    /// The rules of architecture.toml, formatting, lints, models and licences alone.
    Check {
        /// Only the rules of architecture.toml: seconds.
        #[arg(long)]
        rules: bool,
    },
    /// Measure against QEMU on this machine: boot, programs in the guest, HTTP, migrations.
    Bench {
        /// The migrations alone.
        #[arg(long)]
        moves: bool,
        /// All but the migrations, while every processor has other work as well; and how long the guest waits for the mmu.
        #[arg(long, conflicts_with = "moves")]
        busy: bool,
        /// Less work: some programs, each shorter.
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> ExitCode {
    stage::begin();
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", command::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Setup => setup::everything(),
        Task::Build { all: true, debug, .. } => cross::build(&cross::all(), debug),
        Task::Build { target, debug, .. } => cross::build(&target, debug),
        Task::Test { filter, target, .. } if !target.is_empty() => cross::test(&target, filter.as_deref()),
        Task::Test { filter, .. } => {
            setup::everything()?;
            if filter.is_none() {
                checks::run()?;
            }
            checks::tests(filter.as_deref())
        }
        Task::Demo { json, no_tour } => demo::demo(json, !no_tour),
        Task::Bench { quick, moves, busy } => {
            setup::benchmarks()?;
            qemu::provide()?;
            if !moves {
                bench::bench(quick, busy)?;
            }
            if busy { Ok(()) } else { moves::bench() }
        }
        Task::Check { rules: true } => rules::run(),
        Task::Check { rules: false } => {
            setup::cargo_deny()?;
            checks::run()
        }
    }
}
