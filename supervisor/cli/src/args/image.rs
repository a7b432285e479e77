//! `quasar image`.

use crate::size::Size;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Commands about images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Build a guest image.
    Build {
        /// Which.
        #[arg(value_enum)]
        what: ImageKind,
        /// Options.
        #[command(flatten)]
        options: ImageOptions,
    },
    /// Check a file that `quasar suspend` has written, and print what is in it as JSON.
    Inspect {
        /// The file.
        file: PathBuf,
    },
}

/// What can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImageKind {
    /// Debian for RISC-V: an initramfs and a disk.
    Debian,
}

/// `quasar image build`.
#[derive(Debug, Args)]
pub struct ImageOptions {
    /// Debian suite.
    #[arg(long, default_value = "trixie")]
    pub suite: String,
    /// Size of the disk.
    #[arg(long, default_value = "1G", value_name = "SIZE")]
    pub size: Size,
    /// Put copies of the images into this directory.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Archive to download from (default: the one of the machine's own apt).
    #[arg(long, value_name = "URI")]
    pub mirror: Option<String>,
    /// Keyring to verify the archive with (default: the one of the machine's own apt).
    #[arg(long, value_name = "FILE")]
    pub keyring: Option<PathBuf>,
    /// Ask the archive for newer packages even if that was done today.
    #[arg(long)]
    pub refresh: bool,
    /// Leave the benchmark set out (it needs the riscv64 cross compiler).
    #[arg(long)]
    pub no_bench: bool,
    /// Say where the images are as JSON.
    #[arg(long)]
    pub json: bool,
}
