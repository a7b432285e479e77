//! All VMs of a host: making, finding and removing them.

use super::check::{self, CheckError, Content};
use super::disks::{self, Claim, Disks, remove_disk};
use super::entry::{Entry, Past};
use super::error::{HostError, io};
use super::journey::Journey;
use super::network::{LinkOptions, NetworkHandle};
use super::whereabouts::{Away, Doubt, Registry, Travel};
use crate::children::{CappedLog, Launcher};
use crate::errand::{self, Errand};
use parking_lot::{Mutex, MutexGuard};
use quasar_api::{Disk, HostView, Phase, VmSpec, VmView};
use quasar_peer::{Neighbours, Strangers};
use quasar_places::Paths;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What stands under the names of this host.
pub(super) type Names = Registry<Entry, Journey>;

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
    registry: Mutex<Names>,
    /// Machines made so far: a VM that comes back must not meet its own old memory.
    pub(super) births: AtomicU64,
    /// VMs on their way here.
    arrivals: Mutex<Vec<Weak<Journey>>>,
    arrivals_log: CappedLog,
    /// Who is at the door for VMs and has not proved yet to be a host.
    pub(super) strangers: Arc<Strangers>,
}

pub(super) fn open_log(path: &Path) -> Result<CappedLog, HostError> {
    CappedLog::open(path).map_err(io(format!("cannot write {}", path.display())))
}

fn random_id() -> std::io::Result<String> {
    Ok(format!("{:016x}", u64::from_le_bytes(quasar_abi::random::bytes()?)))
}

/// What a VM begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Its kernel.
    Boot,
    /// What a migrator puts into it.
    Arrive {
        /// A user has paused it.
        paused: bool,
    },
}

/// The disks of a VM, in order.
pub(super) fn claims(spec: &VmSpec) -> Result<Vec<Claim>, HostError> {
    let claim = |disk: &Disk| {
        let id = disks::identify(&disk.path).map_err(io(format!("disk {}", disk.path.display())))?;
        Ok(Claim { path: disk.path.clone(), id, read_only: disk.read_only })
    };
    spec.disks.iter().map(claim).collect()
}

/// Two VMs may read one disk; a disk that is written belongs to one. `name` is the VM that asks.
pub(super) fn disks_are_free(registry: &Names, name: &str, claims: &[Claim]) -> Result<(), HostError> {
    let taken = |claim: &Claim, user: &str| {
        Err(HostError::DiskInUse { path: claim.path.clone(), user: user.to_owned() })
    };
    for claim in claims {
        let maker = registry.claims().find(|(user, other)| *user != name && claim.conflicts(other));
        if let Some((user, _)) = maker {
            return taken(claim, user);
        }
        let live = |entry: &&Arc<Entry>| entry.handle.status().phase != Phase::Stopped;
        if let Some(user) = registry.all().filter(live).find(|entry| entry.needs_alone(claim)) {
            return taken(claim, &user.spec.name);
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
                host.registry().forget(&vm);
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
        self.arrivals.lock()
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

    pub(super) fn registry(&self) -> MutexGuard<'_, Names> {
        self.registry.lock()
    }

    /// Whether the daemon is going down.
    pub(super) fn is_ending(&self) -> bool {
        self.registry().is_ending()
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
        self.registry().find(name)
    }

    /// A VM's journey, while it is on one. Whoever hears that a VM has come may do with it what he wants.
    #[must_use]
    pub fn journey(&self, name: &str) -> Option<Arc<Journey>> {
        let journey = self.registry().journey(name);
        journey.filter(|journey| journey.goes_on())
    }

    /// A VM's last journey, whether it is over or not.
    #[must_use]
    pub fn last_journey(&self, name: &str) -> Option<Arc<Journey>> {
        self.registry().last_journey(name)
    }

    /// Where a VM may run, when its last journey ended unclear and its user has not decided.
    #[must_use]
    pub fn doubt(&self, name: &str) -> Option<Doubt> {
        self.registry().doubt(name)
    }

    /// All VMs by name.
    #[must_use]
    pub fn list(&self) -> Vec<VmView> {
        let registry = self.registry();
        let entries: Vec<Arc<Entry>> = registry.all().cloned().collect();
        let mut views: Vec<VmView> = registry.others().cloned().collect();
        drop(registry);
        views.extend(entries.iter().map(|entry| self.show(entry)));
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// What is shown of a VM that is here.
    #[must_use]
    pub fn show(&self, entry: &Arc<Entry>) -> VmView {
        let name = &entry.spec.name;
        let registry = self.registry();
        let journey = registry.is_here(name, entry).then(|| registry.journey(name)).flatten();
        drop(registry);
        VmView { journey: journey.map(|journey| journey.view()), ..entry.view() }
    }

    /// What is shown of the host.
    #[must_use]
    pub fn view(&self) -> HostView {
        HostView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            arch: std::env::consts::ARCH.to_owned(),
            processes: self.network.processes(),
            vms: self.registry().len(),
            ends_when_idle: self.ends_when_idle,
        }
    }

    /// Whether nothing is listed, not even a VM that has stopped, and nothing is on its way here.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let empty = self.registry().is_empty();
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
        let past = Past { home: self.id.clone(), ..Past::default() };
        Ok(self.show(&self.settle(spec, past, Start::Boot)?))
    }

    /// Makes a VM under its name and lists it.
    pub(super) fn settle(
        self: &Arc<Self>,
        spec: VmSpec,
        past: Past,
        start: Start,
    ) -> Result<Arc<Entry>, HostError> {
        let name = spec.name.clone();
        let claims = claims(&spec)?;
        {
            let mut registry = self.registry();
            disks_are_free(&registry, &name, &claims)?;
            registry.reserve(&name, start != Start::Boot, claims)?;
        }
        let made = self.make(spec, past, start);
        self.list_made(&name, made, start)
    }

    /// Lists what was made under a name that was kept for it.
    pub(super) fn list_made(
        self: &Arc<Self>,
        name: &str,
        made: Result<Entry, HostError>,
        start: Start,
    ) -> Result<Arc<Entry>, HostError> {
        match made {
            Ok(entry) => {
                let entry = Arc::new(entry);
                let listed = self.registry().made(name, Arc::clone(&entry), start != Start::Boot);
                if listed.is_err() {
                    self.unmake(&entry, Disks::Keep);
                    return Err(HostError::Ending);
                }
                self.watch(&entry);
                Ok(entry)
            }
            Err(error) => {
                let is_another_there = self.registry().not_made(name);
                if !is_another_there {
                    // Its log is in the error.
                    drop(std::fs::remove_dir_all(self.paths.vm(name)));
                }
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
    pub(super) fn detach(&self, entry: &Arc<Entry>) {
        // It runs, or ran, here while its home is elsewhere.
        let is_guest = entry.past.abroad && !self.registry().never_arrived(&entry.spec.name, entry);
        match entry.port() {
            Some(rings) if is_guest => self.network.end(&entry.spec.name, &rings),
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
                self.registry().forget(name);
                self.network.forget(name);
                return Ok(());
            }
            found => found?,
        };
        let phase = entry.handle.status().phase;
        if !phase.is_final() && !force {
            return Err(HostError::State { name: name.to_owned(), phase: phase.word() });
        }
        if let Some(journey) = self.journey(name) {
            journey.abort();
            journey.wait();
        }
        match self.doubt(name) {
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
        if self.registry().leave(name, entry) {
            self.unmake(entry, disks);
            self.registry().left(name, entry, away);
        }
    }

    pub(super) fn unmake(&self, entry: &Arc<Entry>, disks: Disks) {
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
        self.registry().end();
        let arrivals: Vec<Arc<Journey>> = self.arrivals().iter().filter_map(Weak::upgrade).collect();
        let here = self.registry().journeys();
        for journey in arrivals.iter().chain(&here) {
            journey.abort();
            journey.wait();
        }
        let entries: Vec<Arc<Entry>> = self.registry().all().cloned().collect();
        std::thread::scope(|scope| {
            for entry in &entries {
                scope.spawn(|| self.unmake(entry, Disks::Keep));
            }
        });
        self.registry().clear();
        self.network.stop();
        drop(std::fs::remove_dir_all(self.paths.directory()));
    }
}
