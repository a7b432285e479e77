//! The addresses of a network whose guests are served by the switch (DHCP, DNS), and whose way out is passt.
//!
//! The plan is that of QEMU's user network, which guests with a fixed address know. Every network has the same one:
//! networks share nothing.

use std::net::Ipv4Addr;

/// Length of the network's prefix.
pub const PREFIX_LEN: u8 = 24;
/// The network's mask.
pub const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// The way out: the host, as guests see it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The switch itself: it answers DHCP and DNS.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// What a VM has on a network of its own.
pub const ALONE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The first and the last address that VMs of a shared network are given; those below are free for fixed ones.
pub const SHARED: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 0, 2, 32), Ipv4Addr::new(10, 0, 2, 254));
/// Domain of the VMs' names.
pub const DOMAIN: &str = "internal";
/// The card's address of the switch, the same on every host, so that a VM that has moved need not ask anew.
pub const SWITCH_MAC: [u8; 6] = [0x5a, 0x55, 0x9a, 0x00, 0x00, 0x03];

/// The card's address of the way out of a VM's own: no other VM's has it, and a VM never has it.
#[must_use]
pub const fn gateway_mac(vm: [u8; 6]) -> [u8; 6] {
    let [a, b, c, d, e, f] = vm;
    [a ^ 0x08, b, c, d, e, f]
}

/// Whether a VM can be given this address.
#[must_use]
pub fn is_assignable(address: Ipv4Addr) -> bool {
    let [.., last] = address.octets();
    address & MASK == GATEWAY & MASK && address > RESOLVER && last != 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_consistent() {
        for address in [ALONE, SHARED.0, SHARED.1] {
            assert!(is_assignable(address), "{address}");
        }
        for address in [GATEWAY, RESOLVER, Ipv4Addr::new(10, 0, 2, 255), Ipv4Addr::new(10, 0, 3, 15)] {
            assert!(!is_assignable(address), "{address}");
        }
        assert_eq!(MASK.to_bits().leading_ones(), u32::from(PREFIX_LEN));
        let vm = [0x52, 0x54, 0, 1, 2, 3];
        assert_ne!(gateway_mac(vm), vm);
        // A single card's, not a group's.
        assert_eq!(gateway_mac(vm)[0] & 1, 0);
        assert_eq!(gateway_mac(gateway_mac(vm)), vm);
    }
}
