//! A VM as the daemon lists it.

use super::spec::VmSpec;
use crate::vm::{Phase, VmHandle, VmStatus};
use quasar_abi::Segment;
use quasar_abi::console::{Console, OUTPUT_BYTES};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// A VM of this host.
pub struct Entry {
    /// What it was made from.
    pub spec: VmSpec,
    /// Its controller.
    pub handle: VmHandle,
    /// Its directory.
    pub directory: PathBuf,
    /// Seconds since 1970 when it was made.
    created: u64,
    port: Mutex<Option<Segment>>,
    /// What the consoles showed when their memory was let go.
    history: Mutex<Option<[Vec<u8>; 2]>>,
}

/// What the API shows of a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmView {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    #[serde(flatten)]
    pub status: VmStatus,
    /// Bytes of RAM.
    pub memory: u64,
    /// Harts.
    pub harts: u8,
    /// Its network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Published ports.
    pub publish: Vec<String>,
    /// Seconds since 1970 when it was made.
    pub created: u64,
    /// What it was made from.
    pub spec: VmSpec,
}

/// All that a console has kept.
#[must_use]
pub fn console_text(console: &Console) -> Vec<u8> {
    let mut text = vec![0; OUTPUT_BYTES];
    let (count, _) = console.read(0, &mut text);
    text.truncate(count);
    text
}

impl Entry {
    /// An entry of a VM that has just been started.
    #[must_use]
    pub fn new(spec: VmSpec, handle: VmHandle, directory: PathBuf, port: Option<Segment>) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Self { spec, handle, directory, created, port: Mutex::new(port), history: Mutex::new(None) }
    }

    /// The file that holds its processes' messages.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// What is shown of it.
    #[must_use]
    pub fn view(&self) -> VmView {
        let net = self.spec.net.as_ref();
        VmView {
            name: self.spec.name.clone(),
            status: self.handle.status(),
            memory: self.spec.machine.memory,
            harts: self.spec.machine.harts,
            network: net.map(|net| self.spec.network_name(net).to_owned()),
            publish: net.iter().flat_map(|net| &net.publish).map(ToString::to_string).collect(),
            created: self.created,
            spec: self.spec.clone(),
        }
    }

    /// What a console has shown, whether the VM still is or not.
    #[must_use]
    pub fn console_history(&self, port: usize) -> Vec<u8> {
        if let Some(machine) = self.handle.machine() {
            return machine.consoles().consoles.get(port).map(console_text).unwrap_or_default();
        }
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
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
            *self.history.lock().unwrap_or_else(PoisonError::into_inner) = Some(texts);
        }
        self.handle.release();
        self.port.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
