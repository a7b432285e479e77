//! `quasar run`.

use super::DiskArgument;
use crate::size::Size;
use clap::{Args, ValueEnum};
use quasar_abi::machine::OnEnospc;
use quasar_api::{Mac, Publish, UplinkSpec};
use std::path::PathBuf;

/// `quasar run`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["image", "kernel"]))]
pub struct Run {
    /// The VM's name (default: one that is free).
    pub name: Option<String>,
    /// The same.
    #[arg(long = "name", value_name = "NAME", conflicts_with = "name")]
    pub called: Option<String>,
    /// A guest made of Debian packages (`quasar image build debian` runs first where it has not yet).
    #[arg(long, value_enum)]
    pub image: Option<Image>,
    /// A kernel: a RISC-V Linux `Image`, or an ELF.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Initial ramdisk.
    #[arg(long, value_name = "FILE", requires = "kernel", conflicts_with = "image")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line; with --image it is added to the image's own.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// A raw disk image; `,ro` behind it makes it read-only. A file whose name ends in `,ro` is FILE,ro,rw or
    /// FILE,ro,ro. Repeatable.
    #[arg(long = "disk", value_name = "FILE[,ro|,rw]", value_parser = DiskArgument::parser())]
    pub disks: Vec<DiskArgument>,
    /// When this host has no room for what the guest writes to a disk: pause the VM until there is, or tell the guest
    /// of an I/O error.
    #[arg(long, value_enum, default_value_t = FullChoice::Pause, value_name = "ACTION")]
    pub on_enospc: FullChoice,
    /// Firmware started in M-mode (OpenSBI's fw_dynamic) instead of the built-in SBI.
    #[arg(long, value_name = "FILE")]
    pub firmware: Option<PathBuf>,
    /// Size of RAM: 512M, 1G (and 512MB, 1GiB, …; all in powers of 1024).
    #[arg(long, short, alias = "mem", alias = "ram", default_value = "512M", value_name = "SIZE")]
    pub memory: Size,
    /// Number of harts, each a process.
    #[arg(
        long,
        visible_alias = "cpus",
        alias = "smp",
        alias = "vcpus",
        default_value_t = 1,
        value_name = "N"
    )]
    pub harts: u8,
    /// Deterministic mode: time goes with the instructions of the VM's one hart, so that runs without input from
    /// outside are the same everywhere. The guest's randomness is no secret then.
    #[arg(long)]
    pub icount: bool,
    /// What executes the harts, wherever the VM goes (default: what each build prefers). An unknown one is refused with
    /// the list of those that there are.
    #[arg(long, value_name = "NAME")]
    pub engine: Option<String>,
    /// Name of a network to share with other VMs, or `none` (default: one of its own).
    #[arg(long, value_name = "NETWORK")]
    pub net: Option<String>,
    /// Lead a port of this host into the guest. Repeatable.
    #[arg(long, short, value_name = "[HOSTADDR:]PORT:GUESTPORT[/udp]")]
    pub publish: Vec<Publish>,
    /// The way out: passt (the VM's own), tap:INTERFACE (the whole network's) or none (default: passt).
    #[arg(long, value_name = "UPLINK")]
    pub uplink: Option<UplinkSpec>,
    /// The network card's address (default: derived from the name).
    #[arg(long)]
    pub mac: Option<Mac>,
    /// Do not attach to the console.
    #[arg(long, short)]
    pub detach: bool,
    /// Remove the VM when it has stopped.
    #[arg(long)]
    pub rm: bool,
    /// What others' users write for being attached, which is the default here.
    #[arg(short = 'i', long = "interactive", hide = true)]
    pub interactive: bool,
    /// As before.
    #[arg(short = 't', long = "tty", hide = true)]
    pub tty: bool,
}

impl Run {
    /// The name that was given, wherever it stands.
    #[must_use]
    pub fn given_name(&self) -> Option<&String> {
        self.name.as_ref().or(self.called.as_ref())
    }
}

/// What to do when the host has no room for a guest's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FullChoice {
    /// The VM stands still until there is room.
    Pause,
    /// The guest hears of an I/O error.
    Error,
}

impl From<FullChoice> for OnEnospc {
    fn from(choice: FullChoice) -> Self {
        match choice {
            FullChoice::Pause => Self::Pause,
            FullChoice::Error => Self::Error,
        }
    }
}

/// A guest of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Image {
    /// A small one in memory: Debian's kernel, busybox and servers.
    Debian,
    /// Debian with systemd on a disk of its own.
    DebianDisk,
}
