//! What is shown of a process.

use serde::{Deserialize, Serialize};

/// A process of a VM or of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its role ("cpu0", "mmu", "devices").
    pub role: String,
    /// Its process id.
    pub pid: u32,
    /// How often it was replaced after it had died.
    pub restarts: u64,
    /// Architecture that its program was built for; empty when it is no program of Quasar's.
    #[serde(default)]
    pub arch: String,
}
