//! `quasar-mmu`: keeps one VM's memory. Started by the supervisor.

#![forbid(unsafe_code)]

use clap::Parser;
use quasar_abi::control::child::{self, Control};
use std::process::ExitCode;

/// Keeps one VM's memory. Started by the supervisor.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    control: Control,
}

fn main() -> ExitCode {
    child::main(|Arguments { control }| {
        control.serve(env!("CARGO_PKG_VERSION"), |_news| quasar_mmu::MmuService::default())
    })
}
