//! `quasar`: the command line and, as `quasar host`, the per-host daemon.

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

use quasar_abi::note;
use quasar_abi::output::OutputError;
use quasar_supervisor::{cli, errand};
use std::process::ExitCode;

fn main() -> ExitCode {
    let _log = quasar_abi::logging::start("warn");
    quasar_supervisor::children::survive_file_limits();
    if let Some(code) = errand::as_child() {
        return code;
    }
    cli::answer_shells();
    let arguments = cli::args::parse(std::env::args_os());
    match arguments.map_or_else(|told| cli::tell(&told), cli::execute) {
        Ok(code) => code,
        Err(error) => conclude(&error),
    }
}

fn conclude(error: &anyhow::Error) -> ExitCode {
    let output = error.downcast_ref::<OutputError>();
    if !output.is_some_and(OutputError::is_quiet) {
        note!("quasar: {}", quasar_abi::words::whole(error.as_ref()));
    }
    output.map_or(ExitCode::FAILURE, |output| ExitCode::from(output.status()))
}
