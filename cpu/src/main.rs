//! `quasar-cpu`: one hart of a VM as a process.

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

use anyhow::Context;
use clap::{Parser, Subcommand};
use quasar_abi::control::Transport;
use quasar_abi::note;
use quasar_abi::output::OutputError;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// One hart of a Quasar VM. Started by the supervisor.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Descriptor of the supervisor's channel.
    #[arg(long)]
    control_fd: Option<RawFd>,
    /// What carries the commands: ipc or socket.
    #[arg(long, default_value = "socket")]
    transport: Transport,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the instructions of an ELF file's executable sections.
    Disassemble {
        /// The file.
        elf: PathBuf,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // One line, as from `quasar` itself, which calls this program for its users.
        Err(error) => match error.downcast_ref::<OutputError>() {
            Some(output) => output.conclude(),
            None => {
                note!("quasar: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn run() -> anyhow::Result<()> {
    let _log = quasar_abi::logging::start("warn");
    let arguments = Arguments::parse();
    if let Some(Command::Disassemble { elf }) = arguments.command {
        return quasar_cpu::listing::print(&elf);
    }
    let fd = arguments.control_fd.context("--control-fd is missing; quasar-cpu is started by quasar")?;
    quasar_cpu::run::serve(fd, arguments.transport)?;
    Ok(())
}
