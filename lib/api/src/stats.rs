//! What a VM and its processes have counted.

use crate::process::ProcessInfo;
use crate::vm::Phase;
use quasar_abi::report::{DevicesReport, HartStats, MmuStats, NetworksReport};
use serde::{Deserialize, Serialize};

/// Counters of a VM at an instant. Rates come from two of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmStats {
    /// The VM.
    pub name: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// The host's monotonic clock in nanoseconds.
    pub at_ns: u64,
    /// Guest time in nanoseconds.
    pub guest_ns: u64,
    /// By hart.
    pub harts: Vec<HartStats>,
    /// The mmu process.
    pub mmu: MmuStats,
    /// What the devices process says; nothing when it does not answer.
    pub devices: Option<DevicesReport>,
    /// What the switch says, about all networks; nothing when it does not answer, or there is none.
    pub network: Option<NetworksReport>,
    /// The VM's processes and the host's.
    pub processes: Vec<ProcessStats>,
}

/// A process and the memory it has mapped in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStats {
    /// Its role and process id.
    #[serde(flatten)]
    pub process: ProcessInfo,
    /// Resident bytes, the VM's shared memory included.
    pub rss_bytes: u64,
    /// Resident bytes that are its own.
    pub private_bytes: u64,
    /// Processor time used, in milliseconds.
    pub cpu_ms: u64,
}
