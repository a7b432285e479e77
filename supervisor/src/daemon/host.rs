//! All VMs of a host: making, finding and removing them.

use super::entry::{Entry, VmView};
use super::network::{Attachment, NetworkHandle};
use super::paths::Paths;
use super::spec::{Disk, Mac, SpecError, VmSpec};
use crate::children::Launcher;
use crate::machine::{Machine, segments};
use crate::vm::{Phase, ProcessInfo, Setup, StatusBoard, VmHandle};
use quasar_abi::SegmentError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time for a VM's processes to start.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// Why the host cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No such VM.
    #[error("there is no VM {0}")]
    Unknown(String),
    /// The name is taken.
    #[error("there is a VM {0} already")]
    Exists(String),
    /// Another VM writes to the disk.
    #[error("disk {path} is in use by VM {user}")]
    DiskInUse {
        /// The disk.
        path: PathBuf,
        /// Who uses it.
        user: String,
    },
    /// It cannot be made as asked.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Shared memory.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The host's files.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The network.
    #[error("the network: {0}")]
    Network(String),
    /// It did not start.
    #[error("VM {name} did not start: {reason}")]
    Start {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// It is in a state in which this cannot be done.
    #[error("VM {name} is {phase}")]
    State {
        /// Which.
        name: String,
        /// Its state.
        phase: &'static str,
    },
    /// The VM's controller refused.
    #[error("VM {name}: {reason}")]
    Refused {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// The daemon is going down.
    #[error("the daemon is ending")]
    Ending,
}

/// What the API shows of the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostView {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The host's architecture.
    pub arch: String,
    /// Processes that serve all VMs.
    pub processes: Vec<ProcessInfo>,
    /// Number of VMs listed.
    pub vms: usize,
}

#[derive(Default)]
struct Registry {
    vms: BTreeMap<String, Option<Arc<Entry>>>,
    ending: bool,
    /// Since when nothing of this host is alive.
    idle_since: Option<Instant>,
}

/// The host.
pub struct Host {
    paths: Paths,
    launcher: Launcher,
    /// The networks.
    pub network: NetworkHandle,
    registry: Mutex<Registry>,
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> HostError {
    let what = what.into();
    |source| HostError::Io { what, source }
}

fn open_log(path: &Path) -> Result<File, HostError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(io(format!("cannot write {}", path.display())))
}

/// Two VMs may read one disk; a disk that is written belongs to one.
fn disks_are_free(registry: &Registry, spec: &VmSpec) -> Result<(), HostError> {
    let live = |entry: &&Arc<Entry>| entry.handle.status().phase != Phase::Stopped;
    for other in registry.vms.values().flatten().filter(live) {
        for disk in &spec.disks {
            let clash = |theirs: &Disk| theirs.path == disk.path && !(theirs.read_only && disk.read_only);
            if other.spec.disks.iter().any(clash) {
                return Err(HostError::DiskInUse { path: disk.path.clone(), user: other.spec.name.clone() });
            }
        }
    }
    Ok(())
}

impl Host {
    /// A host without VMs.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub fn new(paths: Paths, launcher: Launcher) -> Result<Arc<Self>, HostError> {
        let directory = paths.directory();
        let log = Arc::new(open_log(&directory.join("network.log"))?);
        let network = NetworkHandle::start(launcher.clone(), directory, log)
            .map_err(io("the network thread cannot be started"))?;
        Ok(Arc::new(Self { paths, launcher, network, registry: Mutex::default() }))
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the programs are.
    pub(super) fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    /// A VM.
    ///
    /// # Errors
    /// [`HostError::Unknown`].
    pub fn find(&self, name: &str) -> Result<Arc<Entry>, HostError> {
        let found = self.registry().vms.get(name).cloned().flatten();
        found.ok_or_else(|| HostError::Unknown(name.to_owned()))
    }

    /// All VMs by name.
    #[must_use]
    pub fn list(&self) -> Vec<VmView> {
        let entries: Vec<Arc<Entry>> = self.registry().vms.values().flatten().cloned().collect();
        entries.iter().map(|entry| entry.view()).collect()
    }

    /// What is shown of the host.
    #[must_use]
    pub fn view(&self) -> HostView {
        HostView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            arch: std::env::consts::ARCH.to_owned(),
            processes: self.network.processes(),
            vms: self.registry().vms.len(),
        }
    }

    /// For how long nothing has been alive: no VM but stopped ones.
    #[must_use]
    pub fn idle_for(&self) -> Duration {
        let mut registry = self.registry();
        let live = |entry: &Option<Arc<Entry>>| {
            entry.as_ref().is_none_or(|entry| entry.handle.status().phase != Phase::Stopped)
        };
        if registry.vms.values().any(live) {
            registry.idle_since = None;
            return Duration::ZERO;
        }
        registry.idle_since.get_or_insert_with(Instant::now).elapsed()
    }

    /// Makes a VM and starts it; returns when it runs.
    ///
    /// # Errors
    /// [`HostError`]; nothing is left of the attempt.
    pub fn create(self: &Arc<Self>, spec: VmSpec) -> Result<VmView, HostError> {
        spec.check()?;
        let name = spec.name.clone();
        {
            let mut registry = self.registry();
            if registry.ending {
                return Err(HostError::Ending);
            }
            if registry.vms.contains_key(&name) {
                return Err(HostError::Exists(name));
            }
            disks_are_free(&registry, &spec)?;
            registry.vms.insert(name.clone(), None);
        }
        let made = self.make(spec);
        let mut registry = self.registry();
        match made {
            Ok(entry) if !registry.ending => {
                let entry = Arc::new(entry);
                registry.vms.insert(name, Some(Arc::clone(&entry)));
                drop(registry);
                self.watch(&entry);
                Ok(entry.view())
            }
            Ok(entry) => {
                drop(registry);
                self.unmake(&entry, false);
                Err(HostError::Ending)
            }
            Err(error) => {
                registry.vms.remove(&name);
                drop(registry);
                // Its log is in the error.
                drop(std::fs::remove_dir_all(self.paths.vm(&name)));
                Err(error)
            }
        }
    }

    fn make(&self, spec: VmSpec) -> Result<Entry, HostError> {
        let name = spec.name.clone();
        let directory = self.paths.vm(&name);
        std::fs::create_dir_all(&directory).map_err(io(format!("cannot make {}", directory.display())))?;
        let log = Arc::new(open_log(&directory.join("log"))?);
        let machine = Arc::new(Machine::create(&name, &spec.machine)?);
        let port = match &spec.net {
            Some(net) => {
                let port = segments::create_port(&name)?;
                let attachment = Attachment {
                    vm: name.clone(),
                    network: spec.network_name(net).to_owned(),
                    segment: port.name().to_owned(),
                    mac: net.mac.unwrap_or_else(|| Mac::derived(&name)).0,
                    uplink: net.uplink.clone(),
                    publish: net.publish.clone(),
                };
                self.network.attach(attachment).map_err(HostError::Network)?;
                Some(port)
            }
            None => None,
        };
        let setup = Setup {
            config: spec.machine.clone(),
            machine,
            virtio: spec.virtio(port.as_ref().map(quasar_abi::Segment::name)),
            launcher: self.launcher.clone(),
            log,
            board: Arc::new(StatusBoard::default()),
        };
        let board = Arc::clone(&setup.board);
        let started = VmHandle::start(setup).map_err(io("a VM's thread cannot be started"));
        let handle = started.inspect_err(|_| self.network.detach(&name))?;
        let status = board.wait(START_DEADLINE, |phase| phase != Phase::Starting);
        let reason = match status.phase {
            Phase::Running | Phase::Paused | Phase::Stopping | Phase::Stopped => {
                return Ok(Entry::new(spec, handle, directory, port));
            }
            Phase::Starting => format!("its processes were not ready within {START_DEADLINE:?}"),
            Phase::Failed => status.reason.unwrap_or_default(),
        };
        handle.stop_and_release();
        self.network.detach(&name);
        Err(HostError::Start { name, reason })
    }

    /// Lets go of a VM's memory and port when it has stopped by itself.
    fn watch(self: &Arc<Self>, entry: &Arc<Entry>) {
        let (host, entry) = (Arc::clone(self), Arc::clone(entry));
        let name = entry.spec.name.clone();
        let wait = move || {
            drop(entry.handle.board.wait(Duration::MAX, |phase| phase == Phase::Stopped));
            host.network.detach(&entry.spec.name);
            entry.release();
        };
        if let Err(error) = std::thread::Builder::new().name(format!("watch-{name}")).spawn(wait) {
            log::error!("VM {name} keeps its memory until it is removed: {error}");
        }
    }

    /// Removes a VM; one that has not stopped is ended first if `force` says so.
    ///
    /// # Errors
    /// [`HostError::State`] when it has not stopped.
    pub fn remove(&self, name: &str, force: bool) -> Result<(), HostError> {
        let entry = self.find(name)?;
        let phase = entry.handle.status().phase;
        if !phase.is_final() && !force {
            return Err(HostError::State { name: name.to_owned(), phase: phase.word() });
        }
        self.unmake(&entry, true);
        self.registry().vms.remove(name);
        Ok(())
    }

    fn unmake(&self, entry: &Entry, disks: bool) {
        entry.handle.stop_and_release();
        entry.release();
        self.network.detach(&entry.spec.name);
        for disk in entry.spec.disks.iter().filter(|d| d.owned && disks) {
            if let Err(error) = std::fs::remove_file(&disk.path) {
                log::warn!("disk {} cannot be removed: {error}", disk.path.display());
            }
            // The directory made for it, when nothing else is in it.
            if let Some(directory) = disk.path.parent() {
                drop(std::fs::remove_dir(directory));
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&entry.directory) {
            log::warn!("{} cannot be removed: {error}", entry.directory.display());
        }
    }

    /// Ends every VM and the networks, and removes what the host kept.
    pub fn shut_down(&self) {
        self.registry().ending = true;
        let entries: Vec<Arc<Entry>> = self.registry().vms.values().flatten().cloned().collect();
        std::thread::scope(|scope| {
            for entry in &entries {
                scope.spawn(|| self.unmake(entry, false));
            }
        });
        self.registry().vms.clear();
        self.network.stop();
        drop(std::fs::remove_dir_all(self.paths.directory()));
    }
}
