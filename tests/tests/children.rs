//! What each process owes its supervisor, whatever its work is: hello, refusals that are answers, an end that is one,
//! and its last words when it panics. No VM is needed.

use anyhow::{Context, bail, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use quasar_abi::control::cpu::{Cpu, CpuCommand, CpuRefusal};
use quasar_abi::control::devices::{Devices, DevicesCommand, DevicesRefusal};
use quasar_abi::control::migrator::{Migrator, MigratorCommand, MigratorRefusal};
use quasar_abi::control::mmu::{Mmu, MmuCommand, MmuRefusal};
use quasar_abi::control::netswitch::{Netswitch, NetswitchCommand, NetswitchRefusal};
use quasar_abi::control::{ChannelError, CommandSender, Event, EventReceiver, Interface, Parent, Transport};
use quasar_abi::grants::{HartGrants, MmuGrants};
use quasar_abi::{Grant, Segment, SegmentKind};
use quasar_tests::programs;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// Killed when dropped.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // An error says that it has ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A program as its supervisor has it.
struct Program<I: Interface> {
    child: Guard,
    commands: CommandSender<I>,
    events: EventReceiver<I>,
}

fn command<I: Interface>() -> anyhow::Result<Command> {
    let mut command = Command::new(programs::directory()?.join(I::KIND.program()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn start<I: Interface>(transport: Transport, more: &[&str]) -> anyhow::Result<Program<I>> {
    let (parent, theirs) = Parent::new()?;
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let fd = theirs.as_raw_fd().to_string();
    let mut command = command::<I>()?;
    command.args(["--control-fd", &fd, "--transport", &transport.to_string()]).args(more);
    let child = Guard(command.spawn()?);
    drop(theirs);
    let (hello, commands, events) = parent.greet::<I>(PATIENCE)?.context("no hello in time")?;
    ensure!(hello.kind == I::KIND, "{hello:?}");
    Ok(Program { child, commands, events })
}

/// What was written, and how it ended.
fn end(mut child: Guard) -> anyhow::Result<Output> {
    use std::io::Read;
    let (mut stdout, mut stderr) = (vec![], vec![]);
    child.0.stdout.take().context("stdout")?.read_to_end(&mut stdout)?;
    child.0.stderr.take().context("stderr")?.read_to_end(&mut stderr)?;
    Ok(Output { status: child.0.wait()?, stdout, stderr })
}

impl<I: Interface> Program<I> {
    fn ask(&mut self, command: I::Command) -> anyhow::Result<Result<I::Reply, I::Refusal>> {
        let sent = self.commands.send(command)?;
        match self.events.recv(PATIENCE)?.context("no answer in time")? {
            Event::Done { id, reply } if id == sent => Ok(Ok(reply)),
            Event::Refused { id, refusal } if id == sent => Ok(Err(refusal)),
            other => bail!("{other:?}"),
        }
    }
}

/// The contract. `refused` is a command that a fresh process refuses, and how.
fn keeps_the_contract<I: Interface>(
    refused: &I::Command,
    as_it_should: impl Fn(&I::Refusal) -> bool,
    last: &I::Command,
) -> anyhow::Result<()> {
    for transport in [Transport::Ipc, Transport::Socket] {
        let mut program = start::<I>(transport, &[])?;
        let refusal = program.ask(refused.clone())?.err().context("it was carried out")?;
        ensure!(as_it_should(&refusal), "{refusal:?}");
        // It lives on, and ends when it is told to.
        ensure!(program.ask(last.clone())? == Ok(I::Reply::default()));
        let output = end(program.child)?;
        ensure!(output.status.success(), "{output:?}");

        // It ends with its supervisor, and well.
        let Program { child, mut commands, events } = start::<I>(transport, &[])?;
        commands.send(refused.clone())?;
        events.recv(PATIENCE)?.context("no answer in time")?;
        drop((commands, events));
        let output = end(child)?;
        ensure!(output.status.success(), "{output:?}");
    }

    // A panic of any thread is told, with its place, written to the log, and the end of the process.
    let program = start::<I>(Transport::Socket, &["--panic"])?;
    let Event::Fatal(words) = program.events.recv(PATIENCE)?.context("nothing was said in time")? else {
        bail!("something else was said")
    };
    ensure!(words.contains("victim") && words.contains(".rs:") && words.contains("asked for"), "{words}");
    ensure!(matches!(program.events.recv(PATIENCE), Err(ChannelError::Closed)), "it goes on");
    let output = end(program.child)?;
    ensure!(!output.status.success(), "{output:?}");
    ensure!(String::from_utf8_lossy(&output.stderr).contains("asked for"), "{output:?}");

    // By hand it says what it is.
    let output = command::<I>()?.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("not by hand"), "{output:?}");
    Ok(())
}

/// Something that is given, and is not what it should be.
fn other() -> anyhow::Result<Grant> {
    let name = format!("/quasar-test-{}-other", std::process::id());
    Ok(Segment::create(&name, SegmentKind::Console, 64, 1)?.grant())
}

fn hart(given: &Grant) -> HartGrants {
    let [control, ram, maps, tlb] = [0; 4].map(|_| given.clone());
    HartGrants { vm: "nobody".into(), control, ram, maps, tlb }
}

#[test]
fn a_hart_keeps_the_contract() -> anyhow::Result<()> {
    let given = other()?;
    let start = CpuCommand::Start { grants: hart(&given), hart: 0, engine: None };
    let names_it = |refusal: &CpuRefusal| refusal.to_string().contains(given.name());
    keeps_the_contract::<Cpu>(&start, names_it, &CpuCommand::Shutdown)
}

#[test]
fn an_engine_that_a_hart_does_not_know_is_refused_with_those_that_it_knows() -> anyhow::Result<()> {
    let start = CpuCommand::Start { grants: hart(&other()?), hart: 0, engine: Some("jit".to_owned()) };
    let lists = |refusal: &CpuRefusal| {
        refusal.to_string().contains("there is no engine \"jit\"; this build has interpreter")
    };
    keeps_the_contract::<Cpu>(&start, lists, &CpuCommand::Shutdown)
}

#[test]
fn the_mmu_keeps_the_contract() -> anyhow::Result<()> {
    let given = other()?;
    let [control, ram, maps, tlb] = [0; 4].map(|_| given.clone());
    let start = MmuCommand::Start { grants: MmuGrants { vm: "nobody".into(), control, ram, maps, tlb } };
    let names_it = |refusal: &MmuRefusal| refusal.to_string().contains(given.name());
    keeps_the_contract::<Mmu>(&start, names_it, &MmuCommand::Shutdown)
}

#[test]
fn the_devices_keep_the_contract() -> anyhow::Result<()> {
    let idle = |refusal: &DevicesRefusal| *refusal == DevicesRefusal::Ended;
    keeps_the_contract::<Devices>(&DevicesCommand::Stats, idle, &DevicesCommand::Shutdown)
}

#[test]
fn the_switch_keeps_the_contract() -> anyhow::Result<()> {
    let release = NetswitchCommand::ReleasePort { port: "nobody/0".into(), addresses: vec![] };
    let no_port = |refusal: &NetswitchRefusal| *refusal == NetswitchRefusal::NoPort("nobody/0".into());
    keeps_the_contract::<Netswitch>(&release, no_port, &NetswitchCommand::Shutdown)
}

#[test]
fn a_migrator_keeps_the_contract() -> anyhow::Result<()> {
    let resume = MigratorCommand::Resume { file: "/nonexistent/web.vm".into() };
    let names_it = |refusal: &MigratorRefusal| refusal.to_string().contains("/nonexistent/web.vm");
    keeps_the_contract::<Migrator>(&resume, names_it, &MigratorCommand::Shutdown)
}
