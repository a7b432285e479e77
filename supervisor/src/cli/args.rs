//! The command line.

use super::size::Size;
use crate::isa::Granularity;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// RISC-V virtual machines in which no part is irreplaceable.
#[derive(Debug, Parser)]
#[command(name = "quasar", version, arg_required_else_help = true)]
pub struct Arguments {
    /// Directory of Quasar's programs (default: this executable's own, or $QUASAR_LIBEXEC).
    #[arg(long, global = true, value_name = "DIR")]
    pub exe_dir: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bare RISC-V programs, without a daemon.
    #[command(subcommand)]
    Isa(IsaCommand),
}

/// Commands about bare programs.
#[derive(Debug, Subcommand)]
pub enum IsaCommand {
    /// Run an ELF in M-mode until it writes `tohost`.
    ///
    /// RAM begins at 0x80000000; every hart starts at the entry with its number in a0 and the device tree in
    /// a1. The exit status is 0 when the program passed, the number of the failing test when it did not (255
    /// at most), 124 when the instruction limit was reached.
    #[command(after_help = "Examples:
  quasar isa run rv64ui-p-add
  quasar isa run --signature add.sig --max-instructions 1000000 add-01.elf
  quasar isa run --harts 2 --memory 256M smp.elf")]
    Run(IsaRun),
    /// Print the instructions of an ELF file.
    Dis {
        /// The file.
        elf: PathBuf,
    },
}

/// `quasar isa run`.
#[derive(Debug, Args)]
pub struct IsaRun {
    /// The program.
    pub elf: PathBuf,
    /// Number of harts.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub harts: u8,
    /// Size of RAM.
    #[arg(long, default_value = "128M", value_name = "SIZE")]
    pub memory: Size,
    /// Write the memory from `begin_signature` to `end_signature` to this file, as hexadecimal lines.
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Bytes per line of the signature: 1, 2, 4, 8 or 16.
    #[arg(long, default_value_t = Granularity::WORD, value_name = "BYTES")]
    pub signature_granularity: Granularity,
    /// Stop when a hart has retired this many instructions (0: never).
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub max_instructions: u64,
}
