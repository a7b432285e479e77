//! `quasar`: the command line and, as `quasar host`, the per-host daemon.

#![forbid(unsafe_code)]

use quasar_supervisor::{cli, errand};
use std::process::ExitCode;

fn main() -> ExitCode {
    let _log = quasar_abi::logging::start("warn");
    if let Some(code) = errand::as_child() {
        return code;
    }
    cli::answer_shells();
    let arguments = cli::args::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match cli::execute(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("quasar: {}", quasar_abi::words::whole(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
