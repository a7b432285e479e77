//! What is shown of a host.

use crate::process::ProcessInfo;
use quasar_abi::report::NetworksReport;
use serde::{Deserialize, Serialize};

/// What is shown of the host.
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
    /// Whether it ends by itself when none is.
    #[serde(default)]
    pub ends_when_idle: bool,
}

/// A link to another host's switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// Where the other switch listens.
    pub to: String,
    /// Whether frames pass. A link that is down is tried again until it is up.
    pub up: bool,
    /// Why they do not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Seconds since 1970 when it came up or went down.
    pub since: u64,
}

/// `GET /v1/host`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostReport {
    /// The host.
    #[serde(flatten)]
    pub host: HostView,
    /// Its links to other hosts' switches.
    pub links: Vec<LinkView>,
    /// What the switch has counted, by network; nothing while it is being replaced.
    pub networks: Option<NetworksReport>,
    /// Why there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks_error: Option<String>,
}
