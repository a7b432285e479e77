//! What people type: the command line of `quasar`, and the client of the daemon's API ([`client`]).
//!
//! Most commands ask a daemon, of which this crate knows the API alone (`lib/api`). What the program does itself is
//! behind [`Program`].

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod about;
mod access;
pub mod args;
pub mod attach;
pub mod client;
mod commands;
pub mod complete;
mod daemon;
mod disks;
mod display;
mod host;
mod interrupts;
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

use anyhow::Context;
use args::{
    Arguments, Command, DiskCommand, ExeFor, HostOptions, ImageCommand, IsaCommand, IsaRun, Restart, Vms,
};
use client::Client;
use quasar_abi::control::ProcessKind;
use quasar_abi::output::OutputError;
use quasar_peer::Neighbours;
use quasar_places::Paths;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

/// What the program does itself, without asking a daemon. A directory of its programs is one that was given.
pub trait Program {
    /// Serves a host until it is told to end.
    ///
    /// # Errors
    /// With a message for people, as of the others.
    fn serve(&self, order: Serve) -> anyhow::Result<()>;

    /// Runs a bare program, and says how it ended.
    ///
    /// # Errors
    /// When it cannot be run.
    fn run_bare(&self, run: &IsaRun, exe_dir: Option<PathBuf>) -> anyhow::Result<ExitCode>;

    /// Prints the instructions of a bare program.
    ///
    /// # Errors
    /// When whoever does it cannot be started.
    fn disassemble(&self, elf: &Path, exe_dir: Option<PathBuf>) -> anyhow::Result<ExitStatus>;

    /// Carries a published IPv6 port, the socket at standard input, until it is ended.
    ///
    /// # Errors
    /// When that is no such socket.
    fn relay(&self, to: SocketAddr, udp: bool) -> anyhow::Result<()>;

    /// Where a process's program is.
    ///
    /// # Errors
    /// When the directory of the programs is not found.
    fn sibling(&self, kind: ProcessKind, exe_dir: Option<PathBuf>) -> anyhow::Result<PathBuf>;
}

/// How a host is to be served.
#[derive(Clone, Debug)]
pub struct Serve {
    /// Where.
    pub paths: Paths,
    /// The directory of the other programs, when it was given.
    pub exe_dir: Option<PathBuf>,
    /// Programs that stand in for others.
    pub exe_for: Vec<ExeFor>,
    /// End when no VM is listed any more and no client is connected.
    pub exit_when_idle: bool,
    /// Whoever started it holds the other end of its standard input, and it stays as long as that is open.
    pub background: bool,
    /// How long a process may do nothing until it is taken for dead.
    pub patience: Duration,
    /// The daemon that serves now is about to end by itself, and is waited for.
    pub follows_idle: bool,
    /// What it is to other hosts.
    pub neighbours: Neighbours,
}

/// Answers a shell that asks for completions, and ends the process then.
pub fn answer_shells() {
    complete::answer_shells(<Arguments as clap::CommandFactory>::command);
}

/// Carries a command line out; the exit code is the process's.
///
/// # Errors
/// With a message for people: what happened, and what to do.
pub fn execute(arguments: Arguments, program: &impl Program) -> anyhow::Result<ExitCode> {
    let Arguments { exe_dir, socket, command } = arguments;
    let daemon = Daemon { socket: socket.clone() };
    match command {
        Command::Isa(IsaCommand::Run(run)) => program.run_bare(&run, exe_dir),
        Command::Isa(IsaCommand::Dis { elf }) => Ok(same(program.disassemble(&elf, exe_dir)?)),
        Command::Pki(command) => pki::execute(&command),
        Command::Relay { to, udp } => {
            program.relay(to, udp)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Host(HostOptions { stop: true, .. }) => {
            daemon.ask(async |client| daemon::stop(client).await.map(|()| ExitCode::SUCCESS))
        }
        Command::Host(options) if options.detach => {
            // What is wrong with them is told before anything starts.
            host::neighbours(&options)?;
            daemon.ask(async |client| daemon::detach(client).await.map(|()| ExitCode::SUCCESS))
        }
        Command::Host(options) => {
            let (paths, neighbours) = (Paths::locate(socket), host::neighbours(&options)?);
            let HostOptions { exe_for, exit_when_idle, background, hang_after: patience, .. } = options;
            if background {
                // From here on no terminal's hang-up and no Ctrl-C in it concerns us.
                if let Err(error) = nix::unistd::setsid() {
                    log::warn!("the daemon stays with its terminal: {error}");
                }
            }
            let follows_idle = !exit_when_idle && host::another_is_idle(&paths)?;
            program.serve(Serve {
                paths,
                exe_dir,
                exe_for,
                exit_when_idle,
                background,
                patience,
                follows_idle,
                neighbours,
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Image(ImageCommand::Inspect { file }) => {
            let migrator = program.sibling(ProcessKind::Migrator, exe_dir)?;
            let status = std::process::Command::new(&migrator).arg("inspect").arg(file).status();
            let status = status.with_context(|| format!("{} cannot be started", migrator.display()))?;
            Ok(same(status))
        }
        Command::Image(ImageCommand::Build { what: args::ImageKind::Debian, options }) => {
            commands::build_image(&options)
        }
        Command::Completions(completions) => complete::script(completions.shell.name()),
        Command::Man(man) => about::manual(&man.directory),
        Command::Run(run) => {
            daemon.ask(async |client| run::run(client, &run, exe_dir.as_deref(), run::Begin::Now).await)
        }
        Command::Create(run) => {
            daemon.ask(async |client| run::run(client, &run, exe_dir.as_deref(), run::Begin::Later).await)
        }
        Command::Start(Vms { names }) => daemon.ask(async |client| vms::start(client, &names).await),
        Command::Restart(Restart { stop }) => daemon.ask(async |client| vms::restart(client, &stop).await),
        Command::Ps(listing) => daemon.ask(async |client| ps::ps(client, &listing).await),
        Command::Inspect(Vms { names }) => daemon.ask(async |client| about::inspect(client, &names).await),
        Command::Info { json } => daemon.ask(async |client| about::info(client, json).await),
        Command::Version { json } => daemon.ask(async |client| about::version(client, json).await),
        Command::Ssh(login) => daemon.ask(async |client| access::log_in(client, &login).await),
        Command::Console { name, port, no_input, no_history } => {
            daemon.ask(async |client| commands::console(client, &name, port, no_input, no_history).await)
        }
        Command::Stats { name, watch, json } => {
            daemon.ask(async |client| stats::stats(client, &name, watch, json).await)
        }
        Command::Pause(Vms { names }) => {
            daemon.ask(async |client| vms::change_each(client, &names, "pause").await)
        }
        Command::Resume { what, name } => {
            daemon.ask(async |client| migrate::resume_each(client, &what, name, exe_dir.as_deref()).await)
        }
        Command::Migrate(order) => daemon.ask(async |client| migrate::migrate(client, &order).await),
        Command::Suspend { name, file, shared_disk, json } => {
            daemon.ask(async |client| migrate::suspend(client, &name, &file, shared_disk, json).await)
        }
        Command::Swap(swap) => daemon.ask(async |client| commands::swap(client, &swap).await),
        Command::Verify(order) => daemon.ask(async |client| verify::verify(client, &order).await),
        Command::Stop(stop) => daemon.ask(async |client| vms::stop(client, &stop).await),
        Command::Kill(kill) => daemon.ask(async |client| vms::kill(client, &kill).await),
        Command::Rm { names, force } => daemon.ask(async |client| vms::remove(client, &names, force).await),
        Command::Logs { name, follow } => {
            daemon.ask(async |client| commands::logs(client, &name, follow).await)
        }
        Command::Disk(DiskCommand::Ls { json }) => daemon.ask(async |client| disks::list(client, json).await),
        Command::Disk(DiskCommand::Rm { names }) => {
            daemon.ask(async |client| disks::remove(client, &names).await)
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

/// The daemon, for commands that ask it.
struct Daemon {
    socket: Option<PathBuf>,
}

impl Daemon {
    fn ask(self, work: impl AsyncFnOnce(&Client) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
        let client = Client { paths: Paths::locate(self.socket) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let result = runtime.block_on(work(&client));
        // A thread that reads the terminal may still wait for it.
        runtime.shutdown_background();
        result
    }
}
