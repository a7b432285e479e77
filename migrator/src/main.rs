//! `quasar-migrator`: moves a VM. Started by the supervisor; `inspect` looks into a suspend file.
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

use anyhow::Context;
use clap::{Parser, Subcommand};
use quasar_abi::control::channel::inherited;
use quasar_abi::control::{Child, ProcessKind, Transport};
use quasar_abi::output::OutputError;
use quasar_abi::{note, say};
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// Mover of Quasar's VMs. It is started by `quasar host`.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Inherited socket to the supervisor.
    #[arg(long)]
    control_fd: Option<RawFd>,
    /// What carries the commands: ipc or socket.
    #[arg(long, default_value_t = Transport::Ipc)]
    transport: Transport,
    /// Inherited, connected TCP socket of a VM that comes.
    #[arg(long)]
    peer_fd: Option<RawFd>,
    #[command(subcommand)]
    look: Option<Look>,
}

#[derive(Subcommand)]
enum Look {
    /// Check a suspend file and print what is in it as JSON.
    Inspect {
        /// The file.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // One line, as from `quasar` itself, which calls this program for its users.
        Err(error) => match error.downcast_ref::<OutputError>() {
            Some(output) => output.conclude(),
            None => {
                note!("quasar: {}", quasar_abi::words::whole(error.as_ref()));
                ExitCode::FAILURE
            }
        },
    }
}

fn run() -> anyhow::Result<()> {
    let _log = quasar_abi::logging::start("info");
    let arguments = Arguments::parse();
    if let Some(Look::Inspect { file }) = arguments.look {
        let found = quasar_migrator::resume::inspect(&file)?;
        say!("{}", serde_json::to_string_pretty(&found)?)?;
        return Ok(());
    }
    let control =
        arguments.control_fd.context("--control-fd is missing; `quasar host` starts this program")?;
    let peer = arguments.peer_fd.map(inherited).transpose()?.map(TcpStream::from);
    let child =
        Child::inherit(control, ProcessKind::Migrator, env!("CARGO_PKG_VERSION"), arguments.transport)
            .context("no connection to the supervisor")?;
    quasar_migrator::serve::serve(child, peer).context("the channel to the supervisor failed")
}
