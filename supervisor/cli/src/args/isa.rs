//! `quasar isa`.

use super::ExeFor;
use crate::size::Size;
use clap::{Args, Subcommand};
use std::num::NonZeroU8;
use std::path::PathBuf;

/// Commands about bare programs.
#[derive(Debug, Subcommand)]
pub enum IsaCommand {
    /// Run an ELF in M-mode until it writes `tohost`.
    ///
    /// RAM begins at 0x80000000; every hart starts at the entry with its number in a0 and the device tree in
    /// a1. The exit status is 0 when the program passed, the number of the failing test when it did not (255
    /// at most), 124 when the instruction limit was reached or every hart waits in wfi with no interrupt enabled.
    #[command(after_help = "Examples:
  quasar isa run rv64ui-p-add
  quasar isa run --signature add.sig --max-instructions 1000000 add-01.elf
  quasar isa run --harts 2 --memory 256M smp.elf
  quasar isa run --icount --hash program.elf
  quasar isa run --icount --hash --limit 100000000 --memory 512M --kernel Image --append 'console=ttyS0'")]
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
    /// Stop when a hart has executed this many instructions, those that trapped included (0: never).
    #[arg(long, visible_alias = "limit", default_value_t = 0, value_name = "N")]
    pub max_instructions: u64,
    /// Deterministic mode: time goes with the instructions of the one hart, so that every run is the same.
    #[arg(long)]
    pub icount: bool,
    /// What executes the harts (default: what the build prefers). An unknown one is refused with the list of those that
    /// there are.
    #[arg(long, value_name = "NAME")]
    pub engine: Option<String>,
    /// Print a hash of memory, registers and time at the end.
    #[arg(long)]
    pub hash: bool,
    /// The program is a kernel (RISC-V Linux `Image`, or an ELF), which the built-in SBI starts in S-mode.
    #[arg(long, conflicts_with = "signature")]
    pub kernel: bool,
    /// The kernel's initial ramdisk.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(long, value_name = "TEXT", requires = "kernel", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// A program that stands in for those of one kind: another version, or a build for another architecture.
    /// Repeatable.
    #[arg(long, value_name = "cpu|mmu|devices=PATH", value_parser = ExeFor::parser())]
    pub exe_for: Vec<ExeFor>,
}

/// Bytes per line of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granularity(NonZeroU8);

impl Granularity {
    /// What the architectural tests expect.
    pub const WORD: Self = Self(NonZeroU8::new(4).expect("four"));

    /// The number: 1, 2, 4, 8 or 16.
    #[must_use]
    pub const fn bytes(self) -> NonZeroU8 {
        self.0
    }
}

impl std::str::FromStr for Granularity {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<NonZeroU8>() {
            Ok(bytes) if matches!(bytes.get(), 1 | 2 | 4 | 8 | 16) => Ok(Self(bytes)),
            _ => Err(format!("{text:?} is no granularity; it is 1, 2, 4, 8 or 16 bytes")),
        }
    }
}

impl std::fmt::Display for Granularity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_power_of_two() {
        for text in ["1", "2", "4", "8", "16"] {
            assert_eq!(text.parse::<Granularity>().expect(text).to_string(), text);
        }
        for text in ["0", "3", "32", "-4", "", "word"] {
            assert!(text.parse::<Granularity>().is_err(), "{text}");
        }
    }
}
