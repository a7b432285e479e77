//! `quasar-migrator`: moves a VM. Started by the supervisor; `inspect` looks into a suspend file.
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

use clap::{Parser, Subcommand};
use quasar_abi::control::channel::inherited;
use quasar_abi::control::child::{self, Control};
use quasar_abi::output::conclude;
use quasar_abi::say;
use quasar_migrator::serve::MigratorService;
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Mover of Quasar's VMs. It is started by `quasar host`.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    control: Control,
    /// Inherited, connected TCP socket of a VM that comes.
    #[arg(long)]
    peer_fd: Option<RawFd>,
    #[command(subcommand)]
    look: Option<Look>,
}

#[derive(Debug, Subcommand)]
enum Look {
    /// Check a suspend file and print what is in it as JSON.
    Inspect {
        /// The file.
        file: PathBuf,
    },
}

fn inspect(file: &Path) -> anyhow::Result<()> {
    let found = quasar_migrator::resume::inspect(file)?;
    say!("{}", serde_json::to_string_pretty(&found)?)?;
    Ok(())
}

fn main() -> ExitCode {
    child::main(|Arguments { control, peer_fd, look }| {
        if let Some(Look::Inspect { file }) = look {
            return conclude(inspect(&file));
        }
        match peer_fd.map(inherited).transpose() {
            Ok(peer) => control.serve(env!("CARGO_PKG_VERSION"), |news| {
                MigratorService::new(news, peer.map(TcpStream::from))
            }),
            Err(error) => conclude(Err(anyhow::Error::from(error).context("--peer-fd"))),
        }
    })
}
