//! `quasar-netswitch`: the host's Ethernet switch. Started by the supervisor.

#![forbid(unsafe_code)]

use clap::Parser;
use quasar_abi::control::child::{self, Control};
use std::process::ExitCode;

/// Ethernet switch of a Quasar host. It is started by `quasar host`.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    control: Control,
}

fn main() -> ExitCode {
    child::main(|Arguments { control }| {
        control.serve(env!("CARGO_PKG_VERSION"), quasar_netswitch::serve::SwitchService::new)
    })
}
