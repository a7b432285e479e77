//! `quasar`: the command line and, as `quasar host`, the per-host daemon.

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod program;

use quasar_abi::note;
use quasar_abi::output::OutputError;
use quasar_cli as cli;
use quasar_supervisor::errand;
use std::process::ExitCode;

fn main() -> ExitCode {
    let _log = quasar_abi::logging::start("warn");
    quasar_supervisor::children::survive_file_limits();
    if let Some(code) = errand::as_child() {
        return code;
    }
    cli::answer_shells();
    let arguments = cli::args::parse(std::env::args_os());
    match arguments
        .map_or_else(|told| cli::tell(&told), |arguments| cli::execute(arguments, &program::Quasar))
    {
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
