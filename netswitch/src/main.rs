//! `quasar-netswitch`: the host's Ethernet switch. Started by the supervisor.

#![forbid(unsafe_code)]

use anyhow::Context;
use clap::Parser;
use quasar_abi::control::{Child, ProcessKind, Transport};
use std::os::fd::RawFd;

/// Ethernet switch of a Quasar host. It is started by `quasar host`.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Inherited socket to the supervisor.
    #[arg(long)]
    control_fd: RawFd,
    /// What carries the commands: ipc or socket.
    #[arg(long, default_value_t = Transport::Ipc)]
    transport: Transport,
}

fn main() -> anyhow::Result<()> {
    let _log = quasar_abi::logging::start("info");
    let arguments = Arguments::parse();
    let child = Child::inherit(
        arguments.control_fd,
        ProcessKind::Netswitch,
        env!("CARGO_PKG_VERSION"),
        arguments.transport,
    )
    .context("no connection to the supervisor")?;
    quasar_netswitch::serve::serve(&child).context("the channel to the supervisor failed")
}
