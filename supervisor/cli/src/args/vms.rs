//! Options of the commands that concern VMs that are there.

use crate::complete::{names, processes};
use clap::Args;
use std::ffi::OsString;

/// One or more VMs.
#[derive(Clone, Debug, Args)]
pub struct Vms {
    /// The VMs.
    #[arg(required = true, value_name = "VM", add = names())]
    pub names: Vec<String>,
}

/// How to list.
#[derive(Clone, Debug, Default, Args)]
pub struct Listing {
    /// As JSON.
    #[arg(long, conflicts_with_all = ["quiet", "processes"])]
    pub json: bool,
    /// The names alone.
    #[arg(long, short, conflicts_with = "processes")]
    pub quiet: bool,
    /// The processes of each VM and of the host, with their process numbers.
    #[arg(long, alias = "pids")]
    pub processes: bool,
    /// Stopped ones too, which are always listed.
    #[arg(long, short, hide = true)]
    pub all: bool,
}

/// How to shut down.
#[derive(Clone, Debug, Args)]
pub struct Stop {
    /// The VMs.
    #[arg(required = true, value_name = "VM", add = names())]
    pub names: Vec<String>,
    /// End their processes without asking the guests.
    #[arg(long, short)]
    pub force: bool,
    /// Seconds to wait for each guest.
    #[arg(long, short, alias = "time", default_value_t = 60, value_name = "SECONDS")]
    pub timeout: u64,
}

/// How to shut down and start again.
#[derive(Clone, Debug, Args)]
pub struct Restart {
    /// How to stop them.
    #[command(flatten)]
    pub stop: Stop,
}

/// `quasar kill`.
#[derive(Clone, Debug, Args)]
pub struct Kill {
    /// The VM.
    #[arg(value_name = "VM", add = names())]
    pub name: String,
    /// Its processes: cpu (all harts), cpu0, cpu1, …, mmu, devices, netswitch (serves every VM of the host), passt,
    /// migrator. Other VMs' names may stand here when whole VMs are to be killed.
    #[arg(value_name = "PROCESS", add = processes())]
    pub processes: Vec<String>,
    /// Signal to send to the processes: a name or a number.
    #[arg(long, short, value_name = "SIGNAL", default_value = "KILL", requires = "processes")]
    pub signal: String,
}

/// `quasar ssh`.
#[derive(Clone, Debug, Args)]
pub struct Login {
    /// The VM.
    #[arg(value_name = "VM", add = names())]
    pub name: String,
    /// A command to run instead of a shell.
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
    /// Log in as this user.
    #[arg(long, short = 'l', default_value = "root", value_name = "USER")]
    pub user: String,
}
