//! `quasar-cpu`: one hart of a VM as a process.

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

use clap::{Parser, Subcommand};
use quasar_abi::control::child::{self, Control};
use quasar_abi::output::conclude;
use std::path::PathBuf;
use std::process::ExitCode;

/// One hart of a Quasar VM. Started by the supervisor.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    control: Control,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the instructions of an ELF file's executable sections.
    Disassemble {
        /// The file.
        elf: PathBuf,
    },
}

fn main() -> ExitCode {
    child::main(|Arguments { control, command }| match command {
        Some(Command::Disassemble { elf }) => conclude(quasar_cpu::listing::print(&elf)),
        None => control.serve(env!("CARGO_PKG_VERSION"), quasar_cpu::run::HartService::new),
    })
}
