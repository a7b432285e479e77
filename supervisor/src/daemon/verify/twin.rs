//! A copy of a VM that runs for some instructions, with nothing outside itself, and ends.

use crate::children::Launcher;
use crate::daemon::entry::Held;
use crate::daemon::leftovers::{COPY, hold};
use crate::machine::{CopyError, Machine, MachineHash, segments};
use crate::vm::{Loader, Request, Setup, StatusBoard, VmHandle};
use quasar_abi::clock::mode;
use quasar_abi::vm::pause;
use quasar_abi::{Segment, SegmentError};
use quasar_api::{Outcome, Phase, VmSpec};
use quasar_places::data_directory;
use std::fs::File;
use std::io::{Read, Seek};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time for its processes to start.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// A build under an emulator manages more than that.
const SLOWEST_INSTRUCTIONS_PER_SECOND: u64 = 500_000;
/// How often it is looked whether somebody still waits for it.
const LOOK: Duration = Duration::from_millis(200);
/// Time for whatever else it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a copy cannot be made or run.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// Shared memory.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The copy.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Files.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// Its processes.
    #[error("the copy: {reason}\n{log}")]
    Failed {
        /// Why.
        reason: String,
        /// What its processes said.
        log: String,
    },
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> TwinError {
    move |source| TwinError::Io { what, source }
}

/// What a copy came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What each process was built for, by role.
    pub programs: Vec<(String, String)>,
    /// The hash at the end.
    pub hash: MachineHash,
    /// How it ended: by its limit, as a rule.
    pub outcome: Outcome,
    /// Instructions that retired.
    pub retired: u64,
}

/// A copy that waits to run.
pub struct Twin {
    handle: VmHandle,
    machine: Arc<Machine>,
    programs: Vec<(String, String)>,
    instructions: u64,
    log: File,
    // Kept until it has ended.
    _port: Option<Segment>,
    _disks: Option<(TempDir, File)>,
}

/// The same machine with disks of its own.
fn copy_disks(spec: &mut VmSpec) -> Result<Option<(TempDir, File)>, TwinError> {
    if spec.disks.iter().all(|disk| disk.read_only) {
        return Ok(None);
    }
    let base = data_directory();
    quasar_places::own_directory(&base).map_err(io("the data directory"))?;
    let directory =
        tempfile::Builder::new().prefix(COPY).tempdir_in(base).map_err(io("the data directory"))?;
    let lock = hold(directory.path()).map_err(io("the data directory"))?;
    for (index, disk) in spec.disks.iter_mut().enumerate().filter(|(_, disk)| !disk.read_only) {
        let copy = directory.path().join(format!("disk{index}"));
        quasar_places::copy_sparse(&disk.path, &copy).map_err(io("copying a disk"))?;
        disk.path = copy;
    }
    Ok(Some((directory, lock)))
}

impl Twin {
    /// Copies `original`, which is at rest and made from `spec`, into a VM of its own that will run for so many
    /// instructions by the programs of `launcher`. `id` goes into its segments' names.
    ///
    /// # Errors
    /// [`TwinError`]; nothing is left of it then.
    pub fn of(
        original: &Machine,
        spec: &VmSpec,
        id: &str,
        launcher: Launcher,
        instructions: u64,
    ) -> Result<Self, TwinError> {
        let mut spec = spec.clone();
        let disks = copy_disks(&mut spec)?;
        let mut held = Held::default();
        if spec.net.is_some() {
            // Nobody is at the other end.
            held.port = Some(segments::create_port(id)?);
        }
        let machine = Arc::new(Machine::create(id, &spec.machine)?);
        let log = tempfile::tempfile().map_err(io("a temporary file"))?;
        let handle = VmHandle::start(Setup {
            config: spec.machine.clone(),
            machine: Arc::clone(&machine),
            virtio: held.virtio(&spec),
            launcher,
            log: Arc::new(log.try_clone().map_err(io("a temporary file"))?),
            board: Arc::new(StatusBoard::default()),
            arriving: true,
            loader: Loader::Child,
        })
        .map_err(io("a thread for the copy"))?;
        let status = handle.board.wait(START_DEADLINE, |phase| phase != Phase::Starting);
        let programs = status.processes.into_iter().map(|process| (process.role, process.arch)).collect();
        let mut twin = Self { handle, machine, programs, instructions, log, _port: held.port, _disks: disks };
        if status.phase != Phase::Arriving {
            let reason = status.reason.unwrap_or_else(|| "its processes were not ready in time".to_owned());
            return Err(twin.failed(reason));
        }
        twin.machine.copy_from(original)?;
        // Nothing comes from outside that it could wait for.
        twin.machine.vm.clock.mode.set(mode::INSTRUCTIONS);
        let retired = twin.machine.vm.hart_state[0].current().retired.get();
        twin.machine.vm.instruction_limit.set(retired.saturating_add(instructions));
        Ok(twin)
    }

    /// Runs it to its end, while `wanted` says so.
    ///
    /// # Errors
    /// [`TwinError`].
    pub fn run(mut self, wanted: &dyn Fn() -> bool) -> Result<Run, TwinError> {
        let vm = &self.machine.vm;
        let before = vm.hart_state[0].current().retired.get();
        if let Err(reason) = self.handle.ask_and_wait(Request::Arrived) {
            return Err(self.failed(reason));
        }
        vm.unpause(pause::MIGRATOR);
        let deadline = PATIENCE + Duration::from_secs(self.instructions / SLOWEST_INSTRUCTIONS_PER_SECOND);
        let begun = Instant::now();
        let status = loop {
            let status = self.handle.board.wait(LOOK, Phase::is_final);
            if status.phase.is_final() || begun.elapsed() > deadline {
                break status;
            }
            if !wanted() {
                return Err(self.failed("its VM, or the daemon, ends".to_owned()));
            }
        };
        // Its processes end; its memory is what they left.
        self.handle.stop_and_release();
        match (status.phase, status.outcome) {
            (Phase::Stopped, Some(outcome)) => Ok(Run {
                programs: std::mem::take(&mut self.programs),
                hash: self.machine.hash().map_err(io("hashing the copy"))?,
                outcome,
                retired: self.machine.vm.hart_state[0].current().retired.get().wrapping_sub(before),
            }),
            (Phase::Failed, _) => Err(self.failed(status.reason.unwrap_or_default())),
            _ => Err(self.failed(format!("it did not come to its end within {deadline:?}"))),
        }
    }

    fn failed(&mut self, reason: String) -> TwinError {
        let mut log = String::new();
        // What cannot be read is not shown.
        drop(self.log.rewind().and_then(|()| self.log.read_to_string(&mut log)));
        TwinError::Failed { reason, log }
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        self.handle.stop_and_release();
    }
}
