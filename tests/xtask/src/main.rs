//! `cargo xtask`: set-up, demonstration, tests and measurements of Quasar.
#![forbid(unsafe_code)]

mod checks;
mod command;
mod setup;

use clap::{Parser, Subcommand};

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
    /// Formatting, lints, licences, and all tests, with their set-up.
    Test {
        /// Only the tests whose name contains this; no formatting, lints and licences.
        filter: Option<String>,
    },
    /// Formatting, lints and licences alone.
    Check,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Setup => setup::everything(),
        Task::Test { filter } => {
            setup::everything()?;
            if filter.is_none() {
                checks::run()?;
            }
            checks::tests(filter.as_deref())
        }
        Task::Check => {
            setup::cargo_deny()?;
            checks::run()
        }
    }
}
