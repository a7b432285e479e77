//! Whose address is whose, for an uplink that does not resolve addresses.
//!
//! passt sends to the one neighbour that spoke last, and to the broadcast address while none has spoken; a system
//! drops TCP from a broadcast frame. So a guest with a static address that has said nothing yet would not be reached,
//! and of two guests only the one that spoke last.

use crate::announce::{Said, sender_address};
use crate::ethernet::Mac;
use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

const IPV4: [u8; 2] = [0x08, 0x00];
/// Addresses remembered; a guest that invents more only spoils its own network's memory.
const MOST: usize = 4096;

/// What is known of the network's VMs.
#[derive(Debug, Default)]
pub struct Neighbours {
    present: BTreeSet<Mac>,
    addresses: HashMap<Ipv4Addr, Mac>,
}

impl Neighbours {
    /// A VM has joined.
    pub fn introduce(&mut self, mac: Mac) {
        self.present.insert(mac);
    }

    /// A VM has left. Its IP address still belongs to it: it may have moved to another host.
    pub fn forget(&mut self, mac: Mac) {
        self.present.remove(&mac);
    }

    /// Listens to a frame that goes out.
    pub fn hear(&mut self, frame: &[u8]) {
        let Some(&[.., _, _, _, _, _, _, s0, s1, s2, s3, s4, s5]) = frame.first_chunk::<12>() else { return };
        if let Some(Said::Arp(address) | Said::Packet(address)) = sender_address(frame)
            && (self.addresses.len() < MOST || self.addresses.contains_key(&address))
        {
            self.addresses.insert(address, Mac([s0, s1, s2, s3, s4, s5]));
        }
    }

    /// Corrects the destination of a frame that came in: to the owner of the IPv4 address, or, while nobody has
    /// named it, to the network's only VM.
    pub fn direct(&self, frame: &mut [u8]) {
        let Some((header, packet)) = frame.split_at_mut_checked(14) else { return };
        let Some(address) = packet.get(16..20).and_then(|b| b.first_chunk::<4>()) else { return };
        let to = Ipv4Addr::from(*address);
        if header[12..14] != IPV4 || to.is_multicast() || to.is_broadcast() {
            return;
        }
        let only = self.present.first().filter(|_| self.present.len() == 1);
        let unnamed = header[0] & 1 != 0;
        if let Some(mac) = self.addresses.get(&to).or(only.filter(|_| unnamed)) {
            header[..6].copy_from_slice(&mac.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn packet(to: [u8; 6], from: Mac, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&from.0);
        frame[12..14].copy_from_slice(&IPV4);
        frame[14] = 0x45;
        frame[26..30].copy_from_slice(&source);
        frame[30..34].copy_from_slice(&destination);
        frame
    }

    fn directed(neighbours: &Neighbours, to: [u8; 6], address: [u8; 4]) -> [u8; 6] {
        let mut frame = packet(to, Mac([9; 6]), [10, 0, 2, 2], address);
        neighbours.direct(&mut frame);
        *frame.first_chunk().expect("a header")
    }

    #[test]
    fn a_silent_guest_that_is_alone_is_reached() {
        let mut neighbours = Neighbours::default();
        assert_eq!(directed(&neighbours, [0xff; 6], [10, 0, 2, 15]), [0xff; 6]);
        neighbours.introduce(GUEST);
        assert_eq!(directed(&neighbours, [0xff; 6], [10, 0, 2, 15]), GUEST.0);
        assert_eq!(directed(&neighbours, [0xff; 6], [255; 4]), [0xff; 6]);
        assert_eq!(directed(&neighbours, [1, 0, 0x5e, 0, 0, 1], [224, 0, 0, 1]), [1, 0, 0x5e, 0, 0, 1]);
        neighbours.introduce(OTHER);
        assert_eq!(directed(&neighbours, [0xff; 6], [10, 0, 2, 15]), [0xff; 6]);
    }

    #[test]
    fn frames_go_to_the_owner_of_the_address_whoever_spoke_last() {
        let mut neighbours = Neighbours::default();
        neighbours.introduce(GUEST);
        neighbours.introduce(OTHER);
        neighbours.hear(&packet([0xff; 6], GUEST, [10, 0, 2, 15], [10, 0, 2, 2]));
        neighbours.hear(&packet([0xff; 6], OTHER, [10, 0, 2, 16], [10, 0, 2, 2]));
        assert_eq!(directed(&neighbours, OTHER.0, [10, 0, 2, 15]), GUEST.0);
        assert_eq!(directed(&neighbours, OTHER.0, [10, 0, 2, 16]), OTHER.0);
        assert_eq!(directed(&neighbours, OTHER.0, [10, 0, 2, 17]), OTHER.0);
        neighbours.forget(GUEST);
        assert_eq!(directed(&neighbours, OTHER.0, [10, 0, 2, 15]), GUEST.0);
    }

    #[test]
    fn short_frames_pass_as_they_are() {
        for length in 0..34 {
            let mut frame = vec![7; length];
            Neighbours::default().hear(&frame);
            Neighbours::default().direct(&mut frame);
            assert_eq!(frame, vec![7; length]);
        }
    }
}
