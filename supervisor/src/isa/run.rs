//! Running a bare program to its end.

use super::htif::{self, Words};
use super::signature::{SignatureError, format_signature};
use crate::children::exec::Executable;
use crate::children::{Launcher, spawn_bound};
use crate::machine::elf::Program;
use crate::machine::{BootError, Machine, Source, room};
use crate::signals;
use crate::vm::{Loader, Setup, StatusBoard, VmHandle};
use quasar_abi::SegmentError;
use quasar_abi::clock::mode;
use quasar_abi::console::UART_CONSOLE;
use quasar_abi::control::ProcessKind;
use quasar_abi::hart::PublishedHart;
use quasar_abi::output::OutputError;
use quasar_abi::party::PartyId;
use quasar_abi::ram::NotRam;
use quasar_abi::vm::{Vm, pause, request};
use quasar_api::{Boot, ConfigError, MachineConfig, Outcome, Phase, VmStatus};
use std::io::{Read, Seek, Write};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The machine's name, in those of its segments.
const MACHINE: &str = "isa";

/// How often it is looked whether the program still runs, when nothing rings.
const LOOK: Duration = Duration::from_millis(100);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// An ELF file.
    pub elf: PathBuf,
    /// Harts; all start at the entry.
    pub harts: u8,
    /// Bytes of RAM.
    pub memory: u64,
    /// Where to write the signature.
    pub signature: Option<PathBuf>,
    /// Bytes per line of it.
    pub granularity: NonZeroU8,
    /// Instructions per hart; 0 for no limit.
    pub max_instructions: u64,
    /// Deterministic mode.
    pub icount: bool,
    /// What executes the harts, by name.
    pub engine: Option<String>,
    /// Print a hash of the machine at the end.
    pub hash: bool,
    /// It is a kernel, started in S-mode over the built-in SBI.
    pub kernel: Option<Kernel>,
}

/// What a kernel is started with.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its initial ramdisk.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub append: String,
}

impl Options {
    fn boot(&self) -> Boot {
        match &self.kernel {
            None => Boot::Bare { elf: self.elf.clone(), max_instructions: self.max_instructions },
            Some(Kernel { initrd, append }) => Boot::Kernel {
                kernel: self.elf.clone(),
                initrd: initrd.clone(),
                append: append.clone(),
                firmware: None,
            },
        }
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It said that all is well.
    Passed,
    /// It reported the number of a failing test, or another exit code.
    Failed(u64),
    /// A hart reached the limit.
    Limit,
    /// Every hart waits for an interrupt and has none enabled.
    Stuck,
    /// The user interrupted it.
    Interrupted,
}

/// Why it could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum IsaError {
    /// A bad option.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// More memory than there is.
    #[error(transparent)]
    Room(#[from] room::TooMuch),
    /// Shared memory.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A process of the machine failed.
    #[error("the machine failed: {reason}{log}")]
    Machine {
        /// Why.
        reason: String,
        /// What the processes said.
        log: String,
    },
    /// The program has no such symbols.
    #[error("{0} has no symbols begin_signature and end_signature, so there is no signature to write")]
    NoSignature(PathBuf),
    /// A signature that cannot be written.
    #[error("the signature cannot be read: {0}")]
    Signature(#[from] SignatureError),
    /// A program's command to its host names memory that is not there.
    #[error("the program's command cannot be carried out: {0}")]
    Htif(#[from] NotRam),
    /// The file cannot be used; the source says why.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program cannot be run.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Nobody takes the program's output.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs a program; its console goes to `out`.
///
/// # Errors
/// [`IsaError`] when it did not come to an end of its own.
pub fn run(options: &Options, launcher: &Launcher, out: &mut dyn Write) -> Result<Ending, IsaError> {
    let (memory, harts, icount) = (options.memory, options.harts, options.icount);
    let config =
        MachineConfig { memory, harts, boot: options.boot(), icount, engine: options.engine.clone() };
    config.check()?;
    room::check(memory)?;
    let symbols = match options.kernel {
        None => Symbols::of(&options.elf)?,
        Some(_) => Symbols { signature: None, tohost: false },
    };
    if options.signature.is_some() && symbols.signature.is_none() {
        return Err(IsaError::NoSignature(options.elf.clone()));
    }
    if !symbols.tohost && options.kernel.is_none() {
        log::warn!(
            "{} has no symbol tohost: only the test device at 0x100000 or --max-instructions can end it",
            options.elf.display()
        );
    }
    let stop = signals::catch()?;
    let machine = Arc::new(Machine::create(MACHINE, &config)?);
    machine.vm.instruction_limit.set(options.max_instructions);
    if options.icount {
        // Nobody is waiting for a program but at its end.
        machine.vm.clock.mode.set(mode::INSTRUCTIONS);
    }
    let mut log = tempfile::tempfile()?;
    let handle = VmHandle::start(Setup {
        config,
        machine: Arc::clone(&machine),
        virtio: vec![],
        launcher: launcher.clone(),
        log: Arc::new(log.try_clone()?),
        board: Arc::new(StatusBoard::default()),
        arriving: false,
        loader: Loader::Here,
    })?;
    let attended = attend(&handle, &machine, &stop, out);
    // Whatever happened to the output, nothing of the machine may stay.
    handle.stop_and_release();
    let (status, stuck) = attended?;
    match (status.phase, status.outcome) {
        _ if stop.caught() => Ok(Ending::Interrupted),
        (Phase::Stopped, Some(outcome)) => {
            // Every process has ended: the memory is what the program left.
            if let (Some(path), Some(range)) = (&options.signature, symbols.signature) {
                let text = format_signature(&machine.ram, range, options.granularity)?;
                std::fs::write(path, text).map_err(|source| IsaError::File { path: path.clone(), source })?;
            }
            if options.hash {
                // A kernel that was stopped may have been in the middle of a line.
                let line = if options.kernel.is_some() { "\n" } else { "" };
                let hash = machine.hash()?;
                writeln!(out, "{line}hash: {hash}").map_err(OutputError::from)?;
            }
            Ok(if stuck && outcome == Outcome::Limit { Ending::Stuck } else { ending(outcome) })
        }
        _ => {
            log.rewind()?;
            let mut said = String::new();
            log.read_to_string(&mut said)?;
            let reason = status.reason.unwrap_or_else(|| "it is not known why".to_owned());
            Err(IsaError::Machine { log: without(&said, &reason), reason })
        }
    }
}

/// What the log says beyond `reason` and the machine's end, each line after a line break.
fn without(log: &str, reason: &str) -> String {
    let adds = |line: &&str| !line.contains(reason) && !line.starts_with("supervisor: stopped");
    log.lines().filter(adds).flat_map(|line| ["\n", line]).collect()
}

fn ending(outcome: Outcome) -> Ending {
    match outcome {
        Outcome::HtifExit { value } => match htif::HtifCommand::decode(value) {
            htif::HtifCommand::Exit(0) => Ending::Passed,
            htif::HtifCommand::Exit(code) => Ending::Failed(code),
            _ => Ending::Failed(value),
        },
        Outcome::Poweroff => Ending::Passed,
        Outcome::GuestFailure { code } => Ending::Failed(code.max(1)),
        Outcome::Limit => Ending::Limit,
        Outcome::Forced => Ending::Interrupted,
    }
}

/// The symbols that matter to whoever runs the program.
struct Symbols {
    signature: Option<(u64, u64)>,
    tohost: bool,
}

impl Symbols {
    fn of(path: &Path) -> Result<Self, IsaError> {
        let program = Program::open_bare(Source::open("program", path)?)?;
        Ok(Self {
            signature: program.symbol("begin_signature").zip(program.symbol("end_signature")),
            tohost: program.symbol("tohost").is_some(),
        })
    }
}

/// Whether no hart can ever go on: each waits in WFI and its mie is zero, which only the hart itself could
/// change. A hart publishes its state when it begins such a wait.
fn is_stuck(vm: &Vm) -> bool {
    let harts = usize::try_from(vm.harts.get()).unwrap_or(0);
    let dead = |hart: &PublishedHart| {
        let state = hart.current();
        state.waiting.get() != 0 && state.mie.get() == 0
    };
    vm.guest_request.load(Ordering::Acquire) == request::NONE && vm.hart_state.iter().take(harts).all(dead)
}

/// Serves the program until it has ended; returns the status then, and whether it was ended for being stuck.
fn attend(
    handle: &VmHandle,
    machine: &Machine,
    stop: &signals::Caught,
    out: &mut dyn Write,
) -> Result<(VmStatus, bool), IsaError> {
    let vm = &machine.vm;
    let bell = &vm.party(PartyId::Supervisor).doorbell;
    let console = &machine.consoles().consoles[UART_CONSOLE];
    let mut shown = 0;
    let mut stuck = false;
    loop {
        let seen = bell.seen();
        let words = Words { tohost: vm.tohost.get(), fromhost: vm.fromhost.get() };
        if vm.htif.pending() {
            let answered = htif::answer(&machine.ram, words, vm.htif_value.get(), out);
            if let Some(code) = answered.map_err(OutputError::from)? {
                vm.ask(request::HTIF_EXIT, code << 1 | 1);
            }
            vm.htif.complete();
        }
        let status = handle.status();
        let mut text = [0; 4096];
        loop {
            let (count, next) = console.read(shown, &mut text);
            shown = next;
            if count == 0 {
                break;
            }
            out.write_all(&text[..count]).and_then(|()| out.flush()).map_err(OutputError::from)?;
        }
        if status.phase.is_final() || stop.caught() {
            return Ok((status, stuck));
        }
        if !stuck && status.phase == Phase::Running && is_stuck(vm) {
            stuck = true;
            vm.pause(pause::LIMIT);
            bell.ring();
        }
        bell.wait(seen, Some(LOOK));
    }
}

/// Prints a program's instructions.
///
/// # Errors
/// When the disassembler cannot be started.
pub fn disassemble(elf: &Path, launcher: &Launcher) -> Result<ExitStatus, IsaError> {
    let path = launcher.program(ProcessKind::Cpu);
    let start = |path: &Path| {
        let mut command = Executable::open(path)?.command()?;
        command.arg("disassemble").arg(elf);
        spawn_bound(&mut command, &[])
    };
    let (mut child, _) = start(&path).map_err(|source| IsaError::File { path, source })?;
    Ok(child.wait()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::vm::CONTROL_BYTES;
    use quasar_abi::{Segment, SegmentKind};

    #[test]
    fn a_failure_is_told_once() {
        let log = "cpu0: no such hart\nsupervisor: failed: it broke\nsupervisor: stopped (Forced)\n";
        assert_eq!(without(log, "it broke"), "\ncpu0: no such hart");
    }

    #[test]
    fn only_harts_that_nothing_can_wake_are_stuck() {
        let name = format!("/quasar-test-{}-stuck", std::process::id());
        let segment = Segment::create(&name, SegmentKind::Control, CONTROL_BYTES, 1).expect("control");
        let vm = Vm::new(Arc::new(segment)).expect("vm");
        vm.harts.set(2);
        assert!(!is_stuck(&vm), "they run");
        vm.hart_state[0].current().waiting.set(1);
        assert!(!is_stuck(&vm), "one of them runs");
        vm.hart_state[1].current().waiting.set(1);
        assert!(is_stuck(&vm));
        vm.hart_state[1].current().mie.set(1 << 7);
        assert!(!is_stuck(&vm), "the timer may wake it");
        vm.hart_state[1].current().mie.set(0);
        vm.ask(request::POWEROFF, 0);
        assert!(!is_stuck(&vm), "the program has ended already");
    }
}
