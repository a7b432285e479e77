//! `quasar`: the command line and, as `quasar host`, the per-host daemon.

#![forbid(unsafe_code)]

use clap::Parser;
use quasar_supervisor::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    let _log = quasar_abi::logging::start("warn");
    match cli::execute(cli::args::Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("quasar: {error:#}");
            ExitCode::FAILURE
        }
    }
}
