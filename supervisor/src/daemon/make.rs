//! Making a VM: its segments, its port, its controller.

use super::disks::DiskId;
use super::entry::{Entry, Held, Past};
use super::error::{HostError, io};
use super::host::{Host, Start, open_log};
use super::network::Attachment;
use crate::machine::{Machine, segments};
use crate::vm::{Loader, Setup, StatusBoard, VmHandle};
use quasar_abi::files::{self, Access};
use quasar_abi::vm::pause;
use quasar_abi::{Grant, Segment};
use quasar_api::{Mac, Phase, UplinkSpec, VmSpec};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Time for a VM's processes to start.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// The length of a disk, and which it is.
fn disk_bytes(path: &Path) -> std::io::Result<(u64, DiskId)> {
    let disk = files::open(path, Access::Read)?;
    Ok((disk.bytes, DiskId::of(&disk.file.metadata()?)))
}

impl Host {
    fn hold(&self, id: &str, spec: &VmSpec) -> Result<Held, HostError> {
        let mut held = Held {
            addresses: Arc::clone(self.network.addresses()),
            troubles: Arc::clone(self.network.troubles()),
            ..Held::default()
        };
        for (slot, disk) in (0..).zip(&spec.disks) {
            let cannot = io(format!("disk {}", disk.path.display()));
            let (bytes, file) = disk_bytes(&disk.path).map_err(cannot)?;
            held.disks.push(file);
            if bytes > 0 {
                held.disk_maps.push((slot, bytes, segments::create_disk_maps(id, slot, bytes)?));
            }
        }
        if spec.net.is_some() {
            held.port = Some(segments::create_port(id)?);
        }
        Ok(held)
    }

    fn attachment(spec: &VmSpec, rings: Option<Grant>, past: &Past, held: bool) -> Option<Attachment> {
        let net = spec.net.as_ref()?;
        let at_home = !past.abroad;
        Some(Attachment {
            vm: spec.name.clone(),
            network: spec.network_name(net).to_owned(),
            rings: rings?,
            mac: net.mac.unwrap_or_else(|| Mac::derived(&spec.name)).0,
            uplink: if at_home { net.uplink.clone() } else { UplinkSpec::None },
            publish: if at_home { net.publish.clone() } else { vec![] },
            way_out: net.uplink == UplinkSpec::Passt,
            outer: matches!(net.uplink, UplinkSpec::Tap(_)),
            address: spec.wished_address(net),
            held,
        })
    }

    pub(super) fn make(&self, spec: VmSpec, past: Past, start: Start) -> Result<Entry, HostError> {
        let name = spec.name.clone();
        let directory = self.paths.vm(&name);
        std::fs::create_dir_all(&directory).map_err(io(format!("cannot make {}", directory.display())))?;
        let log = open_log(&directory.join("log"))?;
        let id = format!("{name}.{}", self.births.fetch_add(1, Ordering::Relaxed));
        let mut machine = Machine::create(&id, &spec.machine)?;
        machine.grants.vm.clone_from(&name);
        if start == (Start::Arrive { paused: true }) {
            machine.vm.pause(pause::USER);
        }
        let held = self.hold(&id, &spec)?;
        let rings = held.port.as_ref().map(Segment::grant);
        if let Some(attachment) = Self::attachment(&spec, rings, &past, start != Start::Boot) {
            self.network.attach(attachment).map_err(HostError::Network)?;
        }
        let detach = || {
            if let Some(port) = &held.port {
                self.network.detach(&name, &port.grant());
            }
        };
        let setup = Setup {
            config: spec.machine.clone(),
            machine: Arc::new(machine),
            virtio: held.virtio(&spec),
            launcher: self.launcher.clone(),
            log: Arc::new(log.writer().map_err(io("a VM's log"))?),
            board: Arc::new(StatusBoard::default()),
            arriving: start != Start::Boot,
            loader: Loader::Child,
        };
        let board = Arc::clone(&setup.board);
        let started = VmHandle::start(setup).map_err(io("a VM's thread cannot be started"));
        let handle = started.inspect_err(|_| detach())?;
        let status = board.wait(START_DEADLINE, |phase| phase != Phase::Starting);
        let reason = match status.phase {
            Phase::Starting => format!("its processes were not ready within {START_DEADLINE:?}"),
            Phase::Failed => status.reason.unwrap_or_default(),
            _ => {
                let links = Arc::clone(&self.network.links);
                return Ok(Entry::new(spec, handle, directory, log, held, past, links));
            }
        };
        handle.stop_and_release();
        detach();
        Err(HostError::Start { name, reason })
    }

    /// Attaches the port of a VM again whose journey ended unclear and that goes on here.
    ///
    /// # Errors
    /// In words for people.
    pub(super) fn attach_again(&self, entry: &Entry) -> Result<(), HostError> {
        let attachment = Self::attachment(&entry.spec, entry.port(), &entry.past, false);
        let Some(attachment) = attachment else { return Ok(()) };
        self.network.attach(attachment).map_err(HostError::Network)?;
        self.network.release(&entry.spec.name);
        Ok(())
    }
}
