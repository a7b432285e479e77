//! What the host does for VMs that come and go: describing them, making room for them, listing them as away.

use super::check::{self, CheckError, Content};
use super::disks::{Disks, remove_disk};
use super::entry::{Entry, MadeDisk, Past};
use super::error::HostError;
use super::host::{Host, Start};
use super::journey::description::{Description, HostSwitch, Place, VERSION};
use super::journey::incoming::Sizes;
use super::network::links::obstacle;
use super::whereabouts::{Away, Doubt};
use crate::vm::Request;
use quasar_abi::files;
use quasar_api::{Boot, Mac, Phase, VmSpec};
use quasar_places::{self as places, data_directory};
use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the links of a VM that comes may take to stand: its source waits a little longer.
const LINKING: Duration = Duration::from_secs(8);

/// Bytes that a directory's file system still has for us.
fn room(directory: &Path) -> std::io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(directory)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

pub(super) fn has_room(directory: &Path, what: &str, bytes: u64) -> Result<(), String> {
    let there = room(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    if there >= bytes {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    Err(format!(
        "no room for its {what}: it needs {} MiB, {} has {} MiB",
        mib(bytes),
        directory.display(),
        mib(there)
    ))
}

/// Makes the files of disks whose content comes; changes the specification to them.
/// Each has a mark until all of it has come ([`files::arrival_mark`]).
fn make_disks(spec: &mut VmSpec, sizes: &[(u8, u64)]) -> Result<Vec<MadeDisk>, String> {
    let directory = data_directory().join(&spec.name);
    let mut made: Vec<MadeDisk> = vec![];
    if sizes.is_empty() {
        return Ok(made);
    }
    places::own_directory(&directory).map_err(|error| format!("no place for its disks: {error}"))?;
    let all = sizes.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
    let mut make = || {
        has_room(&directory, "disks", all)?;
        for (slot, bytes) in sizes {
            let disk = spec.disks.get_mut(usize::from(*slot)).ok_or("a disk comes that it does not have")?;
            let names = (0..100).map(|n| directory.join(format!("disk{slot}-{n}.raw")));
            let mut free = names.filter(|path| !path.exists() && !files::arrival_mark(path).exists());
            let path = free.next().ok_or_else(|| format!("{} is full of disks", directory.display()))?;
            let cannot = |error| format!("{}: {error}", path.display());
            let mark = OpenOptions::new().write(true).create_new(true).open(files::arrival_mark(&path));
            let mark = mark.and_then(|mark| mark.lock().map(|()| mark)).map_err(cannot)?;
            made.push(MadeDisk { path: path.clone(), _mark: Arc::new(mark) });
            let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(cannot)?;
            file.set_len(*bytes).map_err(cannot)?;
            disk.path = path;
            disk.owned = true;
        }
        Ok(())
    };
    let result = make();
    match result {
        Ok(()) => Ok(made),
        Err(error) => {
            made.iter().for_each(|disk| remove_disk(&disk.path));
            drop(std::fs::remove_dir(&directory));
            Err(error)
        }
    }
}

impl Host {
    /// A VM as another host needs to know it. `stays_paused`: a user's pause goes with it.
    pub(super) fn describe(&self, entry: &Entry, stays_paused: bool) -> Result<Description, HostError> {
        let phase = entry.handle.status().phase;
        if !matches!(phase, Phase::Running | Phase::Paused) {
            return Err(HostError::State { name: entry.spec.name.clone(), phase: phase.word() });
        }
        if let Some(reason) = entry.handle.board.stuck() {
            return Err(HostError::Refused { name: entry.spec.name.clone(), reason });
        }
        if let Some(Doubt { at, .. }) = self.doubt(&entry.spec.name) {
            let name = entry.spec.name.clone();
            let reason = format!(
                "it may run at {at}: look there; then `quasar resume {name}` if it does not, or \
                 remove it by force if it does"
            );
            return Err(HostError::Refused { name, reason });
        }
        if matches!(entry.spec.machine.boot, Boot::Bare { .. }) {
            let reason =
                "a bare program cannot move: what it tells its host has no place in a saved state".into();
            return Err(HostError::Refused { name: entry.spec.name.clone(), reason });
        }
        let mut spec = entry.spec.clone();
        let network = spec.net.as_ref().map(|net| spec.network_name(net).to_owned());
        if let Some(net) = &mut spec.net {
            net.network = network;
            net.mac.get_or_insert_with(|| Mac::derived(&entry.spec.name));
            net.address = self.network.address(&entry.spec.name).or(net.address);
        }
        let switch = self.neighbours.switch.map(|address| {
            let ip = address.ip();
            ((!ip.is_unspecified()).then_some(ip), address.port())
        });
        let dead = |place: &&Place| !self.network.links.down(&[place.switch.to_string()]).is_empty();
        let silent: Vec<String> =
            entry.past.trail.iter().filter(dead).map(|place| place.id.clone()).collect();
        Ok(Description {
            version: match &spec.net {
                Some(net) if net.address.is_some() => VERSION,
                _ if silent.is_empty() => 1,
                _ => 2,
            },
            spec,
            paused: stays_paused && entry.handle.is_paused_by_user(),
            from: HostSwitch { id: self.id.clone(), switch },
            home: entry.past.home.clone(),
            trail: entry.past.trail.clone(),
            silent,
        })
    }

    /// Makes a VM that comes, paused and empty.
    pub(super) fn prepare(
        self: &Arc<Self>,
        description: &Description,
        sizes: &Sizes,
        peer: Option<IpAddr>,
    ) -> Result<Arc<Entry>, HostError> {
        let mut spec = description.spec.clone();
        let name = spec.name.clone();
        let refused = |reason: String| HostError::Refused { name: name.clone(), reason };
        if (spec.machine.memory, u32::from(spec.machine.harts)) != (sizes.ram_bytes, sizes.harts) {
            return Err(refused("its description and its machine are of different sizes".into()));
        }
        if matches!(spec.machine.boot, Boot::Bare { .. }) {
            return Err(refused("a bare program cannot come from elsewhere".into()));
        }
        let at_home = description.home == self.id;
        self.registry().may_reserve(&name, at_home)?;
        // What the sender has spelt out is checked as any user's wish, before anything is made.
        spec.check().map_err(CheckError::from)?;
        has_room(Path::new("/dev/shm"), "memory", sizes.ram_bytes).map_err(refused)?;
        if spec.net.is_some() && peer.is_some() && self.neighbours.switch.is_none() {
            return Err(refused("its network cannot follow it: this host's switch takes no links".into()));
        }
        let refused = |reason: String| HostError::Refused { name: name.clone(), reason };
        let trail = description.places(&self.id, peer);
        if spec.net.is_some() {
            for place in &trail {
                self.network.link(&place.switch.to_string());
            }
        }
        let needs = description.needs(&self.id, peer);
        if let Some(reason) = obstacle(&self.network.links.wait(&needs, LINKING)) {
            return Err(refused(reason));
        }
        let refused = |reason: String| HostError::Refused { name: name.clone(), reason };
        let made_disks = make_disks(&mut spec, &sizes.disks).map_err(refused)?;
        let past = Past {
            home: description.home.clone(),
            trail,
            needs,
            made_disks: made_disks.clone(),
            abroad: !at_home,
        };
        let start = Start::Arrive { paused: description.paused };
        let settled = check::whole(&spec, Content::Used)
            .map_err(HostError::from)
            .and_then(|()| self.settle(spec, past, start));
        settled.inspect_err(|_| made_disks.iter().for_each(|disk| remove_disk(&disk.path)))
    }

    /// A VM that came runs here.
    pub(super) fn arrived(&self, entry: &Arc<Entry>) {
        let name = &entry.spec.name;
        self.registry().arrived(name, entry);
        if entry.spec.net.is_some() {
            self.network.release(name);
        }
        if let Boot::Kernel { kernel, .. } = &entry.spec.machine.boot
            && !kernel.exists()
            && let Ok(mut log) = entry.open_log()
        {
            let path = kernel.display();
            // A full disk must not stop the VM.
            drop(writeln!(log, "supervisor: {path} is not on this host: the guest cannot reboot here"));
        }
    }

    /// A VM runs at `to` now.
    pub(super) fn departed(&self, entry: &Arc<Entry>, to: &str, disks: bool) {
        let disks = if disks { Disks::Owned } else { Disks::Keep };
        let is_kept = self.registry().is_kept(&entry.spec.name, entry);
        let away = is_kept.then(|| {
            let mut view = entry.view();
            view.status.phase = Phase::Away;
            view.status.reason = Some(format!("at {to}"));
            view.status.processes.clear();
            view.links_down.clear();
            Away { at: to.to_owned(), view: Box::new(view) }
        });
        self.drop_entry(entry, disks, away);
    }

    /// Lets a paused VM go on; one whose journey ended unclear gets its port back before.
    pub(super) fn resume_vm(&self, name: &str) -> Result<Arc<Entry>, HostError> {
        let entry = self.find(name)?;
        if entry.handle.status().phase == Phase::Stopped {
            return Err(super::lifecycle::has_stopped(name));
        }
        if let Some(journey) = self.journey(name) {
            return Err(HostError::Travelling { name: name.to_owned(), way: journey.view().way });
        }
        if entry.handle.status().phase == Phase::Paused && self.doubt(name).is_some() {
            self.attach_again(&entry)?;
        }
        let refused = |reason| HostError::Refused { name: name.to_owned(), reason };
        entry.handle.ask_and_wait(Request::Resume).map_err(refused)?;
        self.network.try_now();
        self.registry().stayed(name, &entry);
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_numbers() {
        has_room(Path::new("/dev/shm"), "memory", 4096).expect("a page");
        let error = has_room(Path::new("/dev/shm"), "memory", u64::MAX).expect_err("too much");
        assert!(error.contains("no room for its memory") && error.contains("/dev/shm has"), "{error}");
    }
}
