//! A network's way to another host's part of it.

use super::outbox::Outbox;
use super::wire::{LEASES_SINCE, Message};
use crate::ethernet::Mac;
use crate::port::Port;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// A network's port to the other switch.
pub struct LinkPort {
    /// Of the link's session.
    pub(super) outbox: Arc<Outbox>,
    /// The newest version that both sides speak.
    pub(super) version: u16,
    /// The network's number here.
    pub(super) network: u32,
}

impl LinkPort {
    /// Says something about the network.
    pub fn say(&self, message: impl FnOnce(u32) -> Message<'static>) -> bool {
        self.outbox.say(&message(self.network))
    }

    /// Says how a VM is known that is here, or that it is not here any more, if the other side understands that.
    pub fn lease(&self, mac: Mac, lease: Option<(Ipv4Addr, &str)>) {
        if self.version >= LEASES_SINCE {
            let lease = lease.map(|(address, name)| (address, name.to_owned()));
            self.say(|network| Message::Lease { network, mac, lease });
        }
    }

    /// Sends a frame of the network; `directed` when the address table names this link.
    pub fn frame(&self, frame: &[u8], directed: bool) -> bool {
        self.outbox.frame(&Message::Frame { network: self.network, directed, frame }, directed)
    }

    /// Sends what a card had not taken when it moved.
    pub fn forward(&self, mac: Mac, frame: &[u8]) -> bool {
        self.outbox.say(&Message::Forward { network: self.network, mac, frame })
    }

    /// Sends a frame after a card that has moved, if there is room: who waits here reads no other link's frames.
    pub fn forward_late(&self, mac: Mac, frame: &[u8]) -> bool {
        self.outbox.frame(&Message::Forward { network: self.network, mac, frame }, false)
    }
}

impl Port for LinkPort {
    fn start(self: Arc<Self>) {}

    fn send(&self, frame: &[u8], _patience: Duration) -> bool {
        self.frame(frame, false)
    }

    fn settle(&self) {}

    fn take_back(&self) -> Vec<Vec<u8>> {
        vec![]
    }

    fn stop(&self) {}
}
