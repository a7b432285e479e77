//! The peer of the benchmarks: a QEMU whose guests live on after a migration.
//!
//! QEMU 10 does not send a RISC-V guest's pending timer with it, and says that all went well. Debian's backports have a
//! later one.

use crate::emulators::{Unpacked, version};
use anyhow::ensure;
use std::path::Path;
use std::process::Command;

/// The first version that sends everything.
const WHOLE: u32 = 11;
const PROGRAM: &str = "qemu-system-riscv64";

fn unpacked() -> Unpacked {
    Unpacked { name: format!("qemu-{WHOLE}"), suites: &["trixie-backports", "trixie"], oldest: WHOLE }
}

/// Starts with the arguments of QEMU to come.
pub fn command() -> anyhow::Result<Command> {
    if version(Command::new(PROGRAM)) >= WHOLE {
        return Ok(Command::new(PROGRAM));
    }
    let command = unpacked().command()?;
    ensure!(
        Path::new(command.get_program()).is_file(),
        "QEMU {WHOLE} is not there; `cargo xtask bench` fetches it"
    );
    Ok(command)
}

/// Sees to it that [`command`] finds one.
pub fn provide() -> anyhow::Result<()> {
    if command().is_ok() {
        return Ok(());
    }
    ensure!(
        cfg!(target_arch = "x86_64"),
        "install {PROGRAM} {WHOLE} or later: it is fetched for x86_64 alone"
    );
    eprintln!(
        "missing {PROGRAM} {WHOLE} or later (peer of the benchmarks): unpacked into the cache, not installed"
    );
    unpacked().provide()
}
