//! What a host is to others.

use quasar_abi::control::migrator::Security;
use std::net::SocketAddr;

/// What this host is to others.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    /// How connections to other hosts are protected; without it there are none.
    pub security: Option<Security>,
    /// Where VMs from other hosts are taken.
    pub listen: Option<SocketAddr>,
    /// Where the switch takes links.
    pub switch: Option<SocketAddr>,
    /// Other hosts' switches that it is linked with from the start.
    pub links: Vec<SocketAddr>,
}
