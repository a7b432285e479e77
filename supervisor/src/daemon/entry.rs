//! A VM as the daemon lists it.

use super::disks::{Claim, DiskId};
use super::journey::description::{Description, Place};
use super::network::{Addresses, LinkBoard, Troubles};
use crate::children::{CappedLog, Launcher};
use crate::vm::VmHandle;
use parking_lot::{Mutex, MutexGuard};
use quasar_abi::console::{Console, OUTPUT_BYTES};
use quasar_abi::control::migrator::{LocalDisk, LocalVm};
use quasar_abi::machine::VirtioDevice;
use quasar_abi::{Grant, Segment};
use quasar_api::{Mac, Phase, VmSpec, VmStatus, VmView};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A VM of this host.
pub struct Entry {
    /// What it was made from.
    pub spec: VmSpec,
    /// Its controller.
    pub handle: VmHandle,
    /// Its directory.
    pub directory: PathBuf,
    /// What its processes say.
    pub log: CappedLog,
    /// Where it was before, and where its network's way out is.
    pub past: Past,
    /// Seconds since 1970 when it was made.
    created: u64,
    held: Mutex<Held>,
    /// What its migrators are started with, when it is not the host's own program.
    migrator: Mutex<Option<Launcher>>,
    /// How the host's links are.
    links: Arc<LinkBoard>,
    /// What the consoles showed when their memory was let go.
    history: Mutex<Option<[Vec<u8>; 2]>>,
}

/// What a VM has behind it.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// The host that its network's way out is at.
    pub home: String,
    /// Other hosts whose switches its network spans.
    pub trail: Vec<Place>,
    /// Addresses of the switches that its network must reach from here.
    pub needs: Vec<String>,
    /// Disks that were made here when it came.
    pub made_disks: Vec<MadeDisk>,
    /// The network's way out is another host's.
    pub abroad: bool,
}

/// A disk that was made here for a VM that comes.
#[derive(Clone, Debug)]
pub struct MadeDisk {
    /// Where.
    pub path: PathBuf,
    /// Its mark, which is locked as long as this is there.
    pub(super) _mark: Arc<File>,
}

/// The segments of a VM beside its machine's.
#[derive(Default)]
pub struct Held {
    /// Its card's packet rings.
    pub port: Option<Segment>,
    /// Its disks' dirty maps, by slot, with the disks' lengths.
    pub disk_maps: Vec<(u8, u64, Segment)>,
    /// Which files its disks are, in order.
    pub disks: Vec<DiskId>,
    /// Where its card's address is seen.
    pub addresses: Addresses,
    /// What is wrong with the programs of the networks.
    pub troubles: Arc<Mutex<Troubles>>,
}

impl Held {
    /// The devices at the virtio slots: disks first, so that their order is their names' order in the guest.
    #[must_use]
    pub fn virtio(&self, spec: &VmSpec) -> Vec<VirtioDevice> {
        let map = |index| self.disk_maps.iter().find(|(slot, ..)| usize::from(*slot) == index);
        let disks = spec.disks.iter().enumerate().map(|(index, disk)| VirtioDevice::Block {
            path: disk.path.clone(),
            read_only: disk.read_only,
            serial: format!("quasar-disk{index}"),
            maps: map(index).map(|(_, _, maps)| maps.grant()),
            on_enospc: spec.on_enospc,
        });
        let card = spec.net.as_ref().zip(self.port.as_ref()).map(|(net, port)| VirtioDevice::Net {
            port: port.grant(),
            mac: net.mac.unwrap_or_else(|| Mac::derived(&spec.name)).0,
        });
        disks
            .chain(card)
            .chain([VirtioDevice::Console, VirtioDevice::Rng, VirtioDevice::PowerButton])
            .collect()
    }
}

/// All that a console has kept.
#[must_use]
pub fn console_text(console: &Console) -> Vec<u8> {
    let mut text = vec![0; OUTPUT_BYTES];
    let (count, _) = console.read(0, &mut text);
    text.truncate(count);
    // A stopped VM keeps it.
    text.shrink_to_fit();
    text
}

impl Entry {
    /// An entry of a VM that has just been started.
    #[must_use]
    pub fn new(
        spec: VmSpec,
        handle: VmHandle,
        directory: PathBuf,
        log: CappedLog,
        held: Held,
        past: Past,
        links: Arc<LinkBoard>,
    ) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Self {
            spec,
            handle,
            directory,
            log,
            past,
            created,
            held: Mutex::new(held),
            migrator: Mutex::default(),
            links,
            history: Mutex::new(None),
        }
    }

    /// It is the same VM as this one, which has stopped: started again.
    #[must_use]
    pub fn in_place_of(self, old: &Self) -> Self {
        Self { created: old.created, ..self }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }

    /// From now on it leaves by this launcher's migrator.
    pub fn set_migrator(&self, launcher: Launcher) {
        *self.migrator.lock() = Some(launcher);
    }

    /// What its migrator is started with; `ours` unless it was swapped.
    #[must_use]
    pub fn migrator(&self, ours: &Launcher) -> Launcher {
        let swapped = self.migrator.lock();
        swapped.as_ref().unwrap_or(ours).clone()
    }

    /// How it is shown, as if it were in this phase.
    #[must_use]
    pub fn view_as(&self, phase: Phase) -> VmView {
        let mut view = self.view();
        view.status.phase = phase;
        view
    }

    /// Whether a disk cannot be given to another VM beside this one's.
    #[must_use]
    pub fn needs_alone(&self, claim: &Claim) -> bool {
        let held = self.held();
        let mut ours = self.spec.disks.iter().zip(&held.disks);
        ours.any(|(disk, id)| id.overlaps(&claim.id) && !(disk.read_only && claim.read_only))
    }

    /// Its card's rings.
    #[must_use]
    pub fn port(&self) -> Option<Grant> {
        self.held().port.as_ref().map(Segment::grant)
    }

    /// Its log, to add to it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_log(&self) -> std::io::Result<File> {
        self.log.writer()
    }

    /// The VM as a migrator sees it, while it has memory. Without `shared_disks` its disks' content travels.
    #[must_use]
    pub fn local(&self, description: &Description, shared_disks: bool) -> Option<LocalVm> {
        let grants = self.handle.machine()?.grants.migrator();
        let held = self.held();
        let maps = held.disk_maps.iter().filter(|_| !shared_disks);
        let disks = maps.filter_map(|(slot, bytes, maps)| {
            let path = self.spec.disks.get(usize::from(*slot))?.path.clone();
            Some(LocalDisk { slot: *slot, path, bytes: *bytes, maps: maps.grant() })
        });
        let disks = disks.collect();
        Some(LocalVm { grants, description: serde_json::to_string(description).ok()?, disks })
    }

    /// Its address on its network, while it is attached to it.
    #[must_use]
    pub fn address(&self) -> Option<Ipv4Addr> {
        let held = self.held();
        let addresses = held.addresses.lock();
        addresses.get(&self.spec.name).copied()
    }

    /// What is shown of its life: what is wrong with its network too.
    fn status(&self) -> VmStatus {
        let mut status = self.handle.status();
        if self.spec.net.is_some() && !status.phase.is_final() {
            let held = self.held();
            let network = held.troubles.lock().of(&self.spec.name);
            status.degraded = status.degraded.or(network);
        }
        status
    }

    /// What is shown of it but its journey ([`super::host::Host::show`]).
    #[must_use]
    pub fn view(&self) -> VmView {
        let net = self.spec.net.as_ref();
        VmView {
            name: self.spec.name.clone(),
            status: self.status(),
            memory: self.spec.machine.memory,
            harts: self.spec.machine.harts,
            network: net.map(|net| self.spec.network_name(net).to_owned()),
            address: self.address(),
            publish: net
                .iter()
                .filter(|_| !self.past.abroad)
                .flat_map(|net| &net.publish)
                .map(ToString::to_string)
                .collect(),
            created: self.created,
            journey: None,
            links_down: self.links.down(&self.past.needs),
            spec: self.spec.clone(),
        }
    }

    /// What a console has shown, whether the VM still is or not.
    #[must_use]
    pub fn console_history(&self, port: usize) -> Vec<u8> {
        if let Some(machine) = self.handle.machine() {
            return machine.consoles().consoles.get(port).map(console_text).unwrap_or_default();
        }
        let history = self.history.lock();
        history.as_ref().and_then(|both| both.get(port).cloned()).unwrap_or_default()
    }

    /// After it has stopped: keeps what its consoles showed and lets its memory go.
    pub fn release(&self) {
        if self.handle.status().phase != Phase::Stopped {
            return;
        }
        if let Some(machine) = self.handle.machine() {
            let [uart, virtio] = &machine.consoles().consoles;
            let texts = [console_text(uart), console_text(virtio)];
            *self.history.lock() = Some(texts);
        }
        self.handle.release();
        *self.held() = Held::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VmSpec {
        serde_json::from_value(serde_json::json!({
            "name": "web",
            "machine": {"memory": 1 << 28, "harts": 1, "boot": {"kernel": {"kernel": "/boot/Image"}}},
            "net": {"uplink": "passt", "publish": ["8080:80"]},
        }))
        .expect("spec")
    }

    #[test]
    fn disks_come_first() {
        let mut spec = spec();
        spec.disks.push(quasar_api::Disk { path: "/dev/null".into(), read_only: true, owned: false });
        let port = crate::machine::segments::create_port("spec-test").expect("port");
        let rings = port.grant();
        let virtio = Held { port: Some(port), ..Held::default() }.virtio(&spec);
        assert!(matches!(&virtio[0], VirtioDevice::Block { read_only: true, .. }));
        assert!(matches!(&virtio[1], VirtioDevice::Net { port, .. } if *port == rings));
        assert_eq!(virtio.len(), 5);
    }
}
