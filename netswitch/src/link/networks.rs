//! What a link needs of the switch at this end.

use super::port::LinkPort;
use crate::ethernet::Mac;
use quasar_abi::control::netswitch::NetworkEvent;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The networks of this host.
pub trait Networks: Send + Sync {
    /// Networks that have something of this host, with their numbers.
    fn live(&self) -> BTreeMap<String, u32>;
    /// Joins a link to the network of that name and number; nothing when it is gone.
    fn join(&self, network: (&str, u32), name: &str, link: Arc<LinkPort>) -> Option<Arc<dyn Way>>;
    /// Tells the supervisor what is new.
    fn tell(&self, event: NetworkEvent);
}

/// A link's way into a network.
pub trait Way: Send + Sync {
    /// A frame came; `directed` when the other host's table names ours as its way.
    fn frame(&self, frame: &[u8], directed: bool);
    /// A frame came after a VM that has left the other host.
    fn frame_after(&self, mac: Mac, frame: &[u8]);
    /// A VM has left the other host.
    fn moved(&self, mac: Mac, addresses: &[Ipv4Addr]);
    /// A VM has ended at the other host. Whether that can be.
    #[must_use]
    fn ended(&self, mac: Mac) -> bool;
    /// A VM is at the other host.
    fn here(&self, mac: Mac);
    /// How a VM of the other host is known, or that it has none of this address any more. Answers the ports here whose
    /// VMs have another address now.
    #[must_use]
    fn lease(&self, mac: Mac, lease: Option<(Ipv4Addr, &str)>) -> Vec<(String, Ipv4Addr)>;
    /// Tells the other host which VMs are here.
    fn introduce(&self);
    /// Takes the link out of the network.
    fn leave(&self);
}
