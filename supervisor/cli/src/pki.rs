//! `quasar pki`.

use clap::{Args, Subcommand};
use quasar_abi::say;
use quasar_pki::{Authority, default_directory};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Commands about keys.
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Make an authority for the hosts that may migrate VMs and link networks with one another.
    #[command(after_help = "Examples:
  quasar pki init
  quasar pki init --dir /etc/quasar/pki")]
    Init {
        /// Where.
        #[command(flatten)]
        at: At,
    },
    /// Issue a certificate and a key to a host.
    ///
    /// The directory that it makes holds ca.pem, host.pem and host.key: bring it to the host and give it to
    /// `quasar host --pki`. The authority's key (ca.key) stays here.
    #[command(after_help = "Examples:
  quasar pki issue alpha
  quasar pki issue alpha --out /etc/quasar/host && quasar host --pki /etc/quasar/host
  quasar pki issue 192.0.2.7 --json | jq -r .directory")]
    Issue {
        /// The host's name or address.
        name: String,
        /// Where to put the three files (default: a directory of the host's name beside the authority).
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Where the authority is.
        #[command(flatten)]
        at: At,
    },
}

/// Options of both.
#[derive(Debug, Args)]
pub struct At {
    /// The authority's directory (default: quasar/pki in $XDG_CONFIG_HOME or ~/.config).
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Replace files that are there.
    #[arg(long)]
    pub force: bool,
    /// Say what was made as JSON.
    #[arg(long)]
    pub json: bool,
}

impl At {
    fn directory(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(default_directory)
    }

    fn tell(&self, made: &impl Serialize, text: &str) -> anyhow::Result<ExitCode> {
        if self.json {
            say!("{}", serde_json::to_string_pretty(made)?)?;
        } else {
            say!("{text}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Carries out `quasar pki`.
///
/// # Errors
/// [`quasar_pki::PkiError`], for people.
pub fn execute(command: &PkiCommand) -> anyhow::Result<ExitCode> {
    match command {
        PkiCommand::Init { at } => {
            let dir = at.directory();
            let made = Authority::init(&dir, at.force)?;
            let option = if at.dir.is_some() { format!(" --dir {}", dir.display()) } else { String::new() };
            let text = format!(
                "authority in {} (certificate {:.16}…)\nfor each host: quasar pki issue NAME{option}",
                dir.display(),
                made.sha256
            );
            at.tell(&made, &text)
        }
        PkiCommand::Issue { name, out, at } => {
            let issued = Authority::open(&at.directory())?.issue(name, out.as_deref(), at.force)?;
            let dir = issued.directory.display();
            let text = format!("certificate and key of {name} in {dir}\non {name}: quasar host --pki {dir}");
            at.tell(&issued, &text)
        }
    }
}
