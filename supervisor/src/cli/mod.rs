//! What people type.

pub mod args;
pub mod size;

use crate::children::Launcher;
use anyhow::Context;
use args::{Arguments, Command, IsaCommand};
use std::process::ExitCode;

/// Carries a command line out; the exit code is the process's.
///
/// # Errors
/// With a message for people: what happened, and what to do.
pub fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Isa(IsaCommand::Run(run)) => isa_run(&run, &launcher(arguments.exe_dir)?),
        Command::Isa(IsaCommand::Dis { elf }) => {
            let status = crate::isa::disassemble(&elf, &launcher(arguments.exe_dir)?)?;
            Ok(status.code().and_then(|c| u8::try_from(c).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
        }
    }
}

fn launcher(directory: Option<std::path::PathBuf>) -> anyhow::Result<Launcher> {
    Launcher::locate(directory).context("the directory of Quasar's programs cannot be found; give --exe-dir")
}

fn isa_run(run: &args::IsaRun, launcher: &Launcher) -> anyhow::Result<ExitCode> {
    use crate::isa::{Ending, Options};
    let options = Options {
        elf: run.elf.clone(),
        harts: run.harts,
        memory: run.memory.0,
        signature: run.signature.clone(),
        granularity: run.signature_granularity,
        max_instructions: run.max_instructions,
    };
    let elf = run.elf.display();
    match crate::isa::run(&options, launcher, &mut std::io::stdout())? {
        Ending::Passed => Ok(ExitCode::SUCCESS),
        Ending::Failed(code) => {
            eprintln!("quasar: {elf}: failed with {code} (the number of the failing test)");
            Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
        }
        Ending::Limit => {
            eprintln!("quasar: {elf}: stopped after {} instructions of a hart", run.max_instructions);
            Ok(ExitCode::from(124))
        }
        Ending::Interrupted => Ok(ExitCode::from(130)),
    }
}
