//! All VMs of a host: making, finding and removing them.

use super::check::{self, CheckError, Content};
use super::disks::{self, DiskId};
use super::entry::{Doubt, Entry, Past};
use super::journey::Journey;
use super::make::Start;
use super::network::{LinkOptions, NetworkHandle};
use crate::children::{CappedLog, Launcher, trouble};
use crate::errand::{self, Errand};
use quasar_abi::SegmentError;
use quasar_abi::files;
use quasar_api::{Disk, HostView, Phase, VmSpec, VmView};
use quasar_peer::{Neighbours, Strangers};
use quasar_places::Paths;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

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
    Spec(#[from] CheckError),
    /// Shared memory.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The host's files.
    #[error("{what}: {source}{}", trouble::shortage(source).map(|why| format!(": {why}")).unwrap_or_default())]
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
    /// It is on a journey.
    #[error("VM {name} is on its way {way}")]
    Travelling {
        /// Which.
        name: String,
        /// Where.
        way: String,
    },
    /// It runs on another host.
    #[error("VM {name} runs at {at} now; its network's way out is still here")]
    Away {
        /// Which.
        name: String,
        /// Where.
        at: String,
    },
    /// It is in a state in which this cannot be done.
    #[error("VM {name} is {phase}")]
    State {
        /// Which.
        name: String,
        /// Its state.
        phase: &'static str,
    },
    /// It is in a state in which this cannot be done, with what can.
    #[error("VM {name} {state}")]
    NotNow {
        /// Which.
        name: String,
        /// Its state, as the rest of the sentence.
        state: String,
        /// What to do.
        hint: String,
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

/// A VM that runs on another host while its network's way out is here.
pub struct Away {
    /// Where.
    pub at: String,
    /// How it was listed last.
    pub view: VmView,
}

#[derive(Default)]
pub(super) struct Registry {
    pub(super) vms: BTreeMap<String, Option<Arc<Entry>>>,
    pub(super) away: BTreeMap<String, Away>,
    /// How those are shown that are being started again, and whose place in `vms` is empty meanwhile.
    pub(super) starting: BTreeMap<String, VmView>,
    pub(super) ending: bool,
}

/// The host.
pub struct Host {
    /// What tells this host from others, for as long as its daemon runs.
    pub id: String,
    pub(super) paths: Paths,
    pub(super) launcher: Launcher,
    pub(super) neighbours: Neighbours,
    ends_when_idle: bool,
    /// The networks.
    pub network: NetworkHandle,
    registry: Mutex<Registry>,
    /// Machines made so far: a VM that comes back must not meet its own old memory.
    pub(super) births: AtomicU64,
    /// VMs on their way here.
    arrivals: Mutex<Vec<Weak<Journey>>>,
    arrivals_log: CappedLog,
    /// Who is at the door for VMs and has not proved yet to be a host.
    pub(super) strangers: Arc<Strangers>,
}

pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> HostError {
    let what = what.into();
    |source| HostError::Io { what, source }
}

pub(super) fn open_log(path: &Path) -> Result<CappedLog, HostError> {
    CappedLog::open(path).map_err(io(format!("cannot write {}", path.display())))
}

fn random_id() -> std::io::Result<String> {
    Ok(format!("{:016x}", u64::from_le_bytes(quasar_abi::random::bytes()?)))
}

/// What becomes of a VM's disks when it ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disks {
    /// They stay.
    Keep,
    /// Those that were made for it go.
    Owned,
    /// Those that were made here when it came go.
    Made,
}

/// Removes a disk, and the directory made for it when nothing else is in it.
pub(super) fn remove_disk(path: &Path) {
    // The disk first: what is left between the two is found by the mark.
    if let Err(error) = std::fs::remove_file(path) {
        log::warn!("disk {} cannot be removed: {error}", path.display());
    }
    if let Err(error) = files::has_arrived(path) {
        log::warn!("the mark of disk {} cannot be removed: {error}", path.display());
    }
    if let Some(directory) = path.parent() {
        drop(std::fs::remove_dir(directory));
    }
}

/// Which files a VM's disks are, in order.
pub(super) fn identify_disks(spec: &VmSpec) -> Result<Vec<DiskId>, HostError> {
    let identify =
        |disk: &Disk| disks::identify(&disk.path).map_err(io(format!("disk {}", disk.path.display())));
    spec.disks.iter().map(identify).collect()
}

/// Two VMs may read one disk; a disk that is written belongs to one.
pub(super) fn disks_are_free(registry: &Registry, spec: &VmSpec, ids: &[DiskId]) -> Result<(), HostError> {
    let live = |entry: &&Arc<Entry>| entry.handle.status().phase != Phase::Stopped;
    for other in registry.vms.values().flatten().filter(live) {
        for (disk, id) in spec.disks.iter().zip(ids) {
            if other.needs_alone(id, disk.read_only) {
                return Err(HostError::DiskInUse { path: disk.path.clone(), user: other.spec.name.clone() });
            }
        }
    }
    Ok(())
}

/// Says whether a VM can start here from its files, before anything is made. The files are looked at by another
/// process.
///
/// # Errors
/// [`HostError::Spec`].
pub(super) fn examine(spec: &VmSpec) -> Result<(), HostError> {
    look_at(spec, Content::New)
}

/// The same for one that has run: its guest may have written anything to its disks.
pub(super) fn examine_again(spec: &VmSpec) -> Result<(), HostError> {
    look_at(spec, Content::Used)
}

fn look_at(spec: &VmSpec, disks: Content) -> Result<(), HostError> {
    spec.check().map_err(CheckError::from)?;
    check::host(spec)?;
    errand::run(&Errand::Examine(Box::new(spec.clone()), disks)).map_err(CheckError::Files)?;
    Ok(())
}

impl Host {
    /// A host without VMs.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub fn new(
        paths: Paths,
        launcher: Launcher,
        neighbours: Neighbours,
        ends_when_idle: bool,
    ) -> Result<Arc<Self>, HostError> {
        let directory = paths.directory();
        let launcher = Launcher { scratch: Some(paths.scratch()), ..launcher };
        let arrivals_log = open_log(&directory.join("arrivals.log"))?;
        let log = open_log(&directory.join("network.log"))?;
        let log = Arc::new(log.writer().map_err(io("the network's log"))?);
        let (outbox, ended) = crossbeam_channel::unbounded();
        let network = NetworkHandle::start(launcher.clone(), directory, log, outbox)
            .map_err(io("the network thread cannot be started"))?;
        let host = Arc::new(Self {
            id: random_id().map_err(io("no random bytes"))?,
            paths,
            launcher,
            neighbours,
            ends_when_idle,
            network,
            registry: Mutex::default(),
            births: AtomicU64::new(0),
            arrivals: Mutex::default(),
            arrivals_log,
            strangers: Arc::default(),
        });
        let listed = Arc::downgrade(&host);
        let strike = move || {
            for vm in ended {
                let Some(host) = listed.upgrade() else { return };
                host.registry().away.remove(&vm);
            }
        };
        let thread = std::thread::Builder::new().name("ended".into()).spawn(strike);
        thread.map_err(io("a thread cannot be started"))?;
        if let (Some(listen), Some(security)) = (host.neighbours.switch, host.neighbours.security.clone()) {
            host.network.listen(LinkOptions { listen, security }).map_err(HostError::Network)?;
            host.neighbours.links.iter().for_each(|to| host.network.link(&to.to_string()));
        }
        Ok(host)
    }

    /// Where a VM's arrival is logged before the VM is known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn arrivals_log(&self) -> Result<File, HostError> {
        self.arrivals_log.writer().map_err(io("the log of arrivals"))
    }

    fn arrivals(&self) -> MutexGuard<'_, Vec<Weak<Journey>>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an arrival in mind until it ends, so that it ends with the daemon.
    pub(super) fn remember(&self, journey: &Arc<Journey>) {
        let mut arrivals = self.arrivals();
        arrivals.retain(|journey| journey.strong_count() > 0);
        arrivals.push(Arc::downgrade(journey));
    }

    /// VMs that are coming.
    #[must_use]
    pub fn arriving(&self) -> usize {
        self.arrivals().iter().filter_map(Weak::upgrade).filter(|journey| !journey.has_ended()).count()
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the daemon is going down.
    pub(super) fn is_ending(&self) -> bool {
        self.registry().ending
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
        let registry = self.registry();
        match (registry.vms.get(name), registry.away.get(name)) {
            (Some(Some(entry)), _) => Ok(Arc::clone(entry)),
            (None, Some(away)) => Err(HostError::Away { name: name.to_owned(), at: away.at.clone() }),
            _ if registry.starting.contains_key(name) => Err(HostError::NotNow {
                name: name.to_owned(),
                state: "is being started".into(),
                hint: "wait until it has started".into(),
            }),
            _ => Err(HostError::Unknown(name.to_owned())),
        }
    }

    /// All VMs by name.
    #[must_use]
    pub fn list(&self) -> Vec<VmView> {
        let registry = self.registry();
        let entries: Vec<Arc<Entry>> = registry.vms.values().flatten().cloned().collect();
        let here = |name: &String| registry.vms.contains_key(name);
        let away = registry.away.iter().filter(|(name, _)| !here(name)).map(|(_, away)| away.view.clone());
        let mut views: Vec<VmView> = away.chain(registry.starting.values().cloned()).collect();
        drop(registry);
        views.extend(entries.iter().map(|entry| entry.view()));
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
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
            ends_when_idle: self.ends_when_idle,
        }
    }

    /// Whether nothing is listed, not even a VM that has stopped, and nothing is on its way here.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let registry = self.registry();
        let empty = registry.vms.is_empty() && registry.away.is_empty();
        drop(registry);
        empty && self.arriving() == 0
    }

    /// Whether it has had a VM.
    #[must_use]
    pub fn has_had_vms(&self) -> bool {
        self.births.load(Ordering::Relaxed) > 0
    }

    /// Makes a VM and starts it; returns when it runs.
    ///
    /// # Errors
    /// [`HostError`]; nothing is left of the attempt.
    pub fn create(self: &Arc<Self>, spec: VmSpec) -> Result<VmView, HostError> {
        examine(&spec)?;
        if let Some(away) = self.registry().away.get(&spec.name) {
            return Err(HostError::Away { name: spec.name, at: away.at.clone() });
        }
        let past = Past { home: self.id.clone(), ..Past::default() };
        Ok(self.settle(spec, past, Start::Boot)?.view())
    }

    /// Makes a VM under its name and lists it.
    pub(super) fn settle(
        self: &Arc<Self>,
        spec: VmSpec,
        past: Past,
        start: Start,
    ) -> Result<Arc<Entry>, HostError> {
        let name = spec.name.clone();
        let ids = identify_disks(&spec)?;
        {
            let mut registry = self.registry();
            if registry.ending {
                return Err(HostError::Ending);
            }
            if registry.vms.contains_key(&name) {
                return Err(HostError::Exists(name));
            }
            disks_are_free(&registry, &spec, &ids)?;
            registry.vms.insert(name.clone(), None);
        }
        let made = self.make(spec, past, start);
        self.list_made(name, made, None)
    }

    /// Lists what was made under a name that was kept for it; `before` is what stood there.
    pub(super) fn list_made(
        self: &Arc<Self>,
        name: String,
        made: Result<Entry, HostError>,
        before: Option<Arc<Entry>>,
    ) -> Result<Arc<Entry>, HostError> {
        let mut registry = self.registry();
        registry.starting.remove(&name);
        match made {
            Ok(entry) if !registry.ending => {
                let entry = Arc::new(entry);
                registry.vms.insert(name, Some(Arc::clone(&entry)));
                drop(registry);
                self.watch(&entry);
                Ok(entry)
            }
            Ok(entry) => {
                drop(registry);
                self.unmake(&entry, Disks::Keep);
                Err(HostError::Ending)
            }
            Err(error) if before.is_some() => {
                registry.vms.insert(name, before);
                Err(error)
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

    /// Lets go of a VM's memory and port when it has stopped by itself.
    fn watch(self: &Arc<Self>, entry: &Arc<Entry>) {
        let (host, entry) = (Arc::clone(self), Arc::clone(entry));
        let name = entry.spec.name.clone();
        let wait = move || {
            drop(entry.handle.board.wait(Duration::MAX, |phase| phase == Phase::Stopped));
            host.detach(&entry);
            entry.release();
        };
        if let Err(error) = std::thread::Builder::new().name(format!("watch-{name}")).spawn(wait) {
            log::error!("VM {name} keeps its memory until it is removed: {error}");
        }
    }

    /// Takes the port of a VM that is no more. Another host may keep its network's way out, and lists it as long as it
    /// believes that the VM is.
    pub(super) fn detach(&self, entry: &Entry) {
        match entry.port() {
            Some(rings) if entry.is_guest() => self.network.end(&entry.spec.name, &rings),
            Some(rings) => self.network.detach(&entry.spec.name, &rings),
            None => {}
        }
    }

    /// Removes a VM; one that has not stopped is ended first if `force` says so, and its journey with it. One whose
    /// journey ended unclear is taken to be where it went: its network's way out stays, and so do disks that both
    /// hosts share. Of a VM that runs elsewhere the network's way out is removed. `keep_disks`: those that were made
    /// for it stay for another VM of its name.
    ///
    /// # Errors
    /// [`HostError::State`] when it has not stopped.
    pub fn remove(&self, name: &str, force: bool, keep_disks: bool) -> Result<(), HostError> {
        let entry = match self.find(name) {
            Err(HostError::Away { .. }) if force => {
                self.registry().away.remove(name);
                self.network.forget(name);
                return Ok(());
            }
            found => found?,
        };
        let phase = entry.handle.status().phase;
        if !phase.is_final() && !force {
            return Err(HostError::State { name: name.to_owned(), phase: phase.word() });
        }
        if let Some(journey) = entry.journey() {
            journey.abort();
            journey.wait();
        }
        match entry.doubt() {
            Some(Doubt { at, shared_disk }) => self.departed(&entry, &at, !shared_disk && !keep_disks),
            None => self.leave(&entry, !keep_disks),
        }
        Ok(())
    }

    /// Ends a VM and takes it off the list.
    pub(super) fn leave(&self, entry: &Arc<Entry>, disks: bool) {
        self.drop_entry(entry, if disks { Disks::Owned } else { Disks::Keep }, None);
    }

    /// Ends a VM that did not arrive.
    pub(super) fn discard(&self, entry: &Arc<Entry>) {
        self.drop_entry(entry, Disks::Made, None);
    }

    /// Ends a VM and takes it off the list, in one step with listing it as away.
    pub(super) fn drop_entry(&self, entry: &Arc<Entry>, disks: Disks, away: Option<Away>) {
        let name = &entry.spec.name;
        let is_listed = |registry: &Registry| {
            registry.vms.get(name).is_some_and(|e| e.as_ref().is_some_and(|e| Arc::ptr_eq(e, entry)))
        };
        {
            let registry = self.registry();
            if !is_listed(&registry) {
                return;
            }
            entry.set_leaving();
        }
        self.unmake(entry, disks);
        let mut registry = self.registry();
        if is_listed(&registry) {
            registry.vms.remove(name);
            if let Some(away) = away {
                registry.away.insert(name.clone(), away);
            }
        }
    }

    pub(super) fn unmake(&self, entry: &Entry, disks: Disks) {
        entry.handle.stop_and_release();
        self.detach(entry);
        entry.release();
        let owned = entry.spec.disks.iter().filter(|d| d.owned).map(|d| &d.path);
        let doomed: Vec<&PathBuf> = match disks {
            Disks::Keep => vec![],
            Disks::Owned => owned.collect(),
            Disks::Made => entry.past.made_disks.iter().map(|disk| &disk.path).collect(),
        };
        for path in doomed {
            remove_disk(path);
        }
        if let Err(error) = std::fs::remove_dir_all(&entry.directory) {
            log::warn!("{} cannot be removed: {error}", entry.directory.display());
        }
    }

    /// Ends every VM and the networks, and removes what the host kept.
    pub fn shut_down(&self) {
        self.registry().ending = true;
        let arrivals: Vec<Arc<Journey>> = self.arrivals().iter().filter_map(Weak::upgrade).collect();
        let here =
            self.registry().vms.values().flatten().filter_map(|entry| entry.journey()).collect::<Vec<_>>();
        for journey in arrivals.iter().chain(&here) {
            journey.abort();
            journey.wait();
        }
        let entries: Vec<Arc<Entry>> = self.registry().vms.values().flatten().cloned().collect();
        std::thread::scope(|scope| {
            for entry in &entries {
                scope.spawn(|| self.unmake(entry, Disks::Keep));
            }
        });
        self.registry().vms.clear();
        self.network.stop();
        drop(std::fs::remove_dir_all(self.paths.directory()));
    }
}
