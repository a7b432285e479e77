//! What `quasar` does itself: as the daemon, for bare programs, as the relay of a port.

use anyhow::Context;
use quasar_abi::control::ProcessKind;
use quasar_abi::note;
use quasar_abi::output::Stdout;
use quasar_cli::args::{ExeFor, IsaRun};
use quasar_cli::{Program, Serve};
use quasar_supervisor::children::Launcher;
use quasar_supervisor::daemon::{self, ServeOptions};
use quasar_supervisor::{isa, relay};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

/// This program.
pub struct Quasar;

impl Program for Quasar {
    fn serve(&self, order: Serve) -> anyhow::Result<()> {
        let Serve { paths, exe_dir, exe_for, exit_when_idle, background, patience, follows_idle, neighbours } =
            order;
        let launcher = Launcher { patience, ..launcher(exe_dir, &exe_for)? };
        let options = ServeOptions { paths, launcher, exit_when_idle, background, follows_idle, neighbours };
        Ok(daemon::serve(&options)?)
    }

    fn run_bare(&self, run: &IsaRun, exe_dir: Option<PathBuf>) -> anyhow::Result<ExitCode> {
        run_bare(run, &launcher(exe_dir, &run.exe_for)?)
    }

    fn disassemble(&self, elf: &Path, exe_dir: Option<PathBuf>) -> anyhow::Result<ExitStatus> {
        Ok(isa::disassemble(elf, &launcher(exe_dir, &[])?)?)
    }

    fn relay(&self, to: SocketAddr, udp: bool) -> anyhow::Result<()> {
        relay::serve(to, udp).context("the relay cannot serve")
    }

    fn sibling(&self, kind: ProcessKind, exe_dir: Option<PathBuf>) -> anyhow::Result<PathBuf> {
        Ok(launcher(exe_dir, &[])?.program(kind))
    }
}

fn launcher(directory: Option<PathBuf>, exe_for: &[ExeFor]) -> anyhow::Result<Launcher> {
    let launcher = Launcher::locate(directory)
        .context("the directory of Quasar's programs cannot be found; give --exe-dir")?;
    Ok(exe_for.iter().fold(launcher, |launcher, exe| launcher.with_program(exe.kind, exe.path.clone())))
}

fn run_bare(run: &IsaRun, launcher: &Launcher) -> anyhow::Result<ExitCode> {
    use quasar_supervisor::isa::{Ending, IsaError, Kernel, Options};
    let options = Options {
        elf: run.elf.clone(),
        harts: run.harts,
        memory: run.memory.0,
        signature: run.signature.clone(),
        granularity: run.signature_granularity.bytes(),
        max_instructions: run.max_instructions,
        icount: run.icount,
        engine: run.engine.clone(),
        hash: run.hash,
        kernel: run
            .kernel
            .then(|| Kernel { initrd: run.initrd.clone(), append: run.append.clone().unwrap_or_default() }),
    };
    let elf = run.elf.display();
    let ended = quasar_supervisor::isa::run(&options, launcher, &mut Stdout).map_err(|error| match error {
        IsaError::Output(error) => anyhow::Error::from(error),
        error => error.into(),
    });
    match ended? {
        Ending::Passed => Ok(ExitCode::SUCCESS),
        Ending::Failed(code) => {
            note!("quasar: {elf}: failed with {code} (the number of the failing test)");
            Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
        }
        Ending::Limit => {
            note!("quasar: {elf}: stopped after {} instructions of a hart", run.max_instructions);
            Ok(ExitCode::from(124))
        }
        Ending::Stuck => {
            note!(
                "quasar: {elf}: every hart waits in wfi with no interrupt enabled (mie is 0): it cannot go on"
            );
            Ok(ExitCode::from(124))
        }
        Ending::Interrupted => Ok(ExitCode::from(130)),
    }
}
