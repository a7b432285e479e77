//! What people type.

mod about;
mod access;
pub mod args;
pub mod attach;
pub mod client;
mod commands;
pub mod complete;
mod daemon;
mod disks;
mod host;
mod interrupts;
mod journey;
mod migrate;
pub mod pki;
mod progress;
mod ps;
mod run;
pub mod size;
mod stats;
pub mod table;
mod verify;
mod vms;

pub use complete::answer_shells;

use crate::children::Launcher;
use crate::daemon::ServeOptions;
use anyhow::Context;
use args::{Arguments, Command, DiskCommand, HostOptions, ImageCommand, IsaCommand, Restart, Vms};
use client::Client;
use quasar_abi::control::ProcessKind;
use quasar_abi::note;
use quasar_abi::output::{OutputError, Stdout};
use quasar_places::Paths;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

/// Carries a command line out; the exit code is the process's.
///
/// # Errors
/// With a message for people: what happened, and what to do.
pub fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { exe_dir, socket, command } = arguments;
    match command {
        Command::Isa(IsaCommand::Run(run)) => isa_run(&run, &launcher(exe_dir, &run.exe_for)?),
        Command::Isa(IsaCommand::Dis { elf }) => {
            Ok(same(crate::isa::disassemble(&elf, &launcher(exe_dir, &[])?)?))
        }
        Command::Pki(command) => pki::execute(&command),
        Command::Relay { to, udp } => {
            crate::relay::serve(to, udp).context("the relay cannot serve")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Host(options) => {
            let (paths, neighbours) = (Paths::locate(socket), host::neighbours(&options)?);
            let launcher = launcher(exe_dir, &options.exe_for)?;
            let HostOptions { exit_when_idle, background, .. } = options;
            if background {
                // From here on no terminal's hang-up and no Ctrl-C in it concerns us.
                if let Err(error) = nix::unistd::setsid() {
                    log::warn!("the daemon stays with its terminal: {error}");
                }
            }
            let follows_idle = !background && host::another_is_idle(&paths)?;
            crate::daemon::serve(&ServeOptions {
                paths,
                launcher,
                exit_when_idle,
                background,
                follows_idle,
                neighbours,
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Image(ImageCommand::Inspect { file }) => {
            let migrator = launcher(exe_dir, &[])?.program(ProcessKind::Migrator);
            let status = std::process::Command::new(&migrator).arg("inspect").arg(file).status();
            let status = status.with_context(|| format!("{} cannot be started", migrator.display()))?;
            Ok(same(status))
        }
        Command::Image(ImageCommand::Build { what: args::ImageKind::Debian, options }) => {
            commands::build_image(&options)
        }
        Command::Completions(completions) => complete::script(completions),
        Command::Man(man) => about::manual(&man.directory),
        command => {
            let client = Client { paths: Paths::locate(socket) };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let result = runtime.block_on(ask(&client, command, exe_dir.as_deref()));
            // A thread that reads the terminal may still wait for it.
            runtime.shutdown_background();
            result
        }
    }
}

/// What a program ended with that did our work.
fn same(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Prints help, a version, or what is wrong with a command line.
///
/// # Errors
/// [`OutputError`].
pub fn tell(told: &clap::Error) -> anyhow::Result<ExitCode> {
    let printed = told.print().and_then(|()| std::io::stdout().flush());
    if !told.use_stderr() {
        printed.map_err(OutputError::from)?;
    }
    Ok(u8::try_from(told.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The commands that need the daemon.
async fn ask(client: &Client, command: Command, exe_dir: Option<&Path>) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(run) => run::run(client, &run, exe_dir, run::Begin::Now).await,
        Command::Create(run) => run::run(client, &run, exe_dir, run::Begin::Later).await,
        Command::Start(Vms { names }) => vms::start(client, &names).await,
        Command::Restart(Restart { stop }) => vms::restart(client, &stop).await,
        Command::Ps(listing) => ps::ps(client, &listing).await,
        Command::Inspect(Vms { names }) => about::inspect(client, &names).await,
        Command::Info { json } => about::info(client, json).await,
        Command::Version { json } => about::version(client, json).await,
        Command::Ssh(login) => access::log_in(client, &login).await,
        Command::Console { name, port, no_input, no_history } => {
            commands::console(client, &name, port, no_input, no_history).await
        }
        Command::Stats { name, watch, json } => stats::stats(client, &name, watch, json).await,
        Command::Pause(Vms { names }) => vms::change_each(client, &names, "pause").await,
        Command::Resume { what, name } => migrate::resume_each(client, &what, name, exe_dir).await,
        Command::Migrate(order) => migrate::migrate(client, &order).await,
        Command::Suspend { name, file, shared_disk, json } => {
            migrate::suspend(client, &name, &file, shared_disk, json).await
        }
        Command::Swap(swap) => commands::swap(client, &swap).await,
        Command::Verify(order) => verify::verify(client, &order).await,
        Command::Stop(stop) => vms::stop(client, &stop).await,
        Command::Kill(kill) => vms::kill(client, &kill).await,
        Command::Rm { names, force } => vms::remove(client, &names, force).await,
        Command::Logs { name, follow } => commands::logs(client, &name, follow).await,
        Command::Disk(DiskCommand::Ls { json }) => disks::list(client, json).await,
        Command::Disk(DiskCommand::Rm { names }) => disks::remove(client, &names).await,
        Command::Isa(_)
        | Command::Host(_)
        | Command::Image(_)
        | Command::Pki(_)
        | Command::Relay { .. }
        | Command::Completions(_)
        | Command::Man(_) => unreachable!("handled before"),
    }
}

fn launcher(directory: Option<PathBuf>, exe_for: &[args::ExeFor]) -> anyhow::Result<Launcher> {
    let launcher = Launcher::locate(directory)
        .context("the directory of Quasar's programs cannot be found; give --exe-dir")?;
    Ok(exe_for.iter().fold(launcher, |launcher, exe| launcher.with_program(exe.kind, exe.path.clone())))
}

fn isa_run(run: &args::IsaRun, launcher: &Launcher) -> anyhow::Result<ExitCode> {
    use crate::isa::{Ending, Kernel, Options};
    let options = Options {
        elf: run.elf.clone(),
        harts: run.harts,
        memory: run.memory.0,
        signature: run.signature.clone(),
        granularity: run.signature_granularity,
        max_instructions: run.max_instructions,
        icount: run.icount,
        hash: run.hash,
        kernel: run
            .kernel
            .then(|| Kernel { initrd: run.initrd.clone(), append: run.append.clone().unwrap_or_default() }),
    };
    let elf = run.elf.display();
    let ended = crate::isa::run(&options, launcher, &mut Stdout).map_err(|error| match error {
        crate::isa::IsaError::Output(error) => anyhow::Error::from(error),
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
