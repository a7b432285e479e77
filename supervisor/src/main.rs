//! `quasar`: the command line and, as `quasar host`, the per-host daemon.

#![forbid(unsafe_code)]

use clap::Parser;
use quasar_supervisor::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match cli::execute(cli::args::Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("quasar: {error:#}");
            ExitCode::FAILURE
        }
    }
}
