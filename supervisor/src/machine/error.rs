//! Why a machine cannot be started.

use super::cmdline;
use super::image::ImageFault;
use quasar_abi::ram::NotRam;
use std::path::PathBuf;

/// Longest file whose symbols are looked up: a bare program with all that a debugger wants is far smaller.
pub(super) const MOST_BYTES_WITH_SYMBOLS: u64 = 256 << 20;

/// Why an ELF file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ElfFault {
    /// Damaged or no 64-bit little-endian ELF.
    #[error("it is no 64-bit little-endian ELF file, or it is damaged: {0}")]
    Malformed(String),
    /// Another machine's program.
    #[error("it is a program for machine {0}{1}, not for RISC-V (243)")]
    Machine(u16, &'static str),
    /// Longer than any program whose symbols are of use.
    #[error("it has {0} bytes, more than {MOST_BYTES_WITH_SYMBOLS}, which a bare program has at most")]
    Long(u64),
    /// Nothing to load.
    #[error("it has nothing to load")]
    Empty,
    /// It does not fit.
    #[error("it does not fit into RAM: {0}; give the machine more memory or link the program elsewhere")]
    Range(#[from] NotRam),
}

/// Why a machine cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file cannot be read.
    #[error("cannot read the {what} {path}: {source}")]
    Read {
        /// Its role.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is no kernel.
    #[error("the kernel {path} cannot be started: {source}")]
    Image {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ImageFault,
    },
    /// A file of another kind than it was given for.
    #[error("the {what} {path} cannot be used: {why}")]
    Kind {
        /// Its role.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// An ELF that cannot be loaded.
    #[error("{path} cannot be loaded: {source}")]
    Elf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ElfFault,
    },
    /// It does not fit.
    #[error(
        "the {what} needs {need} bytes at {at:#x}, but RAM ends at {end:#x}; give the machine more memory"
    )]
    Memory {
        /// What does not fit.
        what: &'static str,
        /// First address.
        at: u64,
        /// Bytes.
        need: u64,
        /// First address behind RAM.
        end: u64,
    },
    /// The kernel would lose the end of its command line.
    #[error(transparent)]
    CommandLine(#[from] cmdline::TooLong),
    /// The kernel would stand there without its files.
    #[error(
        "memory of {} MiB is too little: a kernel of {} MiB with an initial ramdisk of {} MiB and {} MiB of files in it \
         needs {} MiB at least",
        memory >> 20, kernel.div_ceil(1 << 20), ramdisk.div_ceil(1 << 20), content.div_ceil(1 << 20),
        need.div_ceil(1 << 20)
    )]
    Unpack {
        /// Bytes of the kernel.
        kernel: u64,
        /// Bytes of the ramdisk.
        ramdisk: u64,
        /// Bytes of what is in it.
        content: u64,
        /// All of them and what the kernel needs besides.
        need: u64,
        /// Bytes of RAM.
        memory: u64,
    },
    /// The device tree.
    #[error("the device tree cannot be made: {0}; is there a NUL byte in the kernel's command line?")]
    Tree(#[from] vm_fdt::Error),
    /// A range that was checked is no RAM after all.
    #[error(transparent)]
    Ram(#[from] NotRam),
}
