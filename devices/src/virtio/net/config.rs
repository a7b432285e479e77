//! The network card's features and configuration space (virtio 1.3, 5.1.3 and 5.1.4).

/// `VIRTIO_NET_F_MAC`.
pub const F_MAC: u64 = 1 << 5;
/// `VIRTIO_NET_F_MRG_RXBUF`.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// `VIRTIO_NET_F_STATUS`.
pub const F_STATUS: u64 = 1 << 16;
/// What the card offers beside the transport's features.
pub const FEATURES: u64 = F_MAC | F_MRG_RXBUF | F_STATUS;

const LINK_UP: u8 = 1;

/// The configuration space. The link is always up: frames wait in the port's rings, or are dropped, while
/// nobody serves it.
#[must_use]
pub fn space(mac: [u8; 6]) -> Vec<u8> {
    let mut space = vec![0; 12];
    space[..6].copy_from_slice(&mac);
    space[6] = LINK_UP;
    space[8] = 1;
    space
}
