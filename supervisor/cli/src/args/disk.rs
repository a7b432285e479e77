//! `quasar disk`.

use clap::Subcommand;

/// Commands about the disks that Quasar has made.
#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// List the disks that were made for VMs, here or when they came from elsewhere, with whom they belong to.
    ///
    /// An orphan belongs to no VM that is listed. A new VM of its name and kind goes on with it. Disks that you gave a
    /// VM (--disk) are yours, and not listed.
    #[command(visible_alias = "list")]
    Ls {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove disks that belong to no VM, for good.
    #[command(after_help = "Examples:
  quasar disk rm web                 (all that the VM web has left)
  quasar disk rm web/disk0-1.raw     (one of them)")]
    Rm {
        /// Names as `quasar disk ls` shows them: of VMs, or VM/FILE.
        #[arg(required = true, value_name = "VM[/FILE]")]
        names: Vec<String>,
    },
}
