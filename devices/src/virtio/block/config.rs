//! The block device's features and configuration space (virtio 1.3, 5.2.3 and 5.2.4).

/// Bytes of a sector, in which the protocol counts.
pub const SECTOR: u64 = 512;
/// `VIRTIO_BLK_F_SIZE_MAX`.
pub const F_SIZE_MAX: u64 = 1 << 1;
/// `VIRTIO_BLK_F_SEG_MAX`.
pub const F_SEG_MAX: u64 = 1 << 2;
/// `VIRTIO_BLK_F_RO`.
pub const F_RO: u64 = 1 << 5;
/// `VIRTIO_BLK_F_BLK_SIZE`.
pub const F_BLK_SIZE: u64 = 1 << 6;
/// `VIRTIO_BLK_F_FLUSH`.
pub const F_FLUSH: u64 = 1 << 9;
/// `VIRTIO_BLK_F_DISCARD`.
pub const F_DISCARD: u64 = 1 << 13;
/// `VIRTIO_BLK_F_WRITE_ZEROES`.
pub const F_WRITE_ZEROES: u64 = 1 << 14;

const SEGMENT_BYTES: u32 = 1 << 20;
const SEGMENTS: u32 = 126;
/// Sectors that one discard or write-zeroes range may have.
pub const MAX_RANGE_SECTORS: u32 = 1 << 22;
/// Ranges that one such request may have.
pub const MAX_RANGES: u32 = 32;
const DISCARD_ALIGNMENT_SECTORS: u32 = 8;

/// What the device offers beside the transport's features.
#[must_use]
pub fn features(read_only: bool) -> u64 {
    let always = F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH;
    always | if read_only { F_RO } else { F_DISCARD | F_WRITE_ZEROES }
}

/// The configuration space of a disk with so many sectors.
#[must_use]
pub fn space(sectors: u64) -> Vec<u8> {
    let mut space = vec![0; 60];
    let mut put = |at: usize, value: u32| space[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(8, SEGMENT_BYTES);
    put(12, SEGMENTS);
    put(20, 512);
    put(36, MAX_RANGE_SECTORS);
    put(40, MAX_RANGES);
    put(44, DISCARD_ALIGNMENT_SECTORS);
    put(48, MAX_RANGE_SECTORS);
    put(52, MAX_RANGES);
    space[..8].copy_from_slice(&sectors.to_le_bytes());
    // write_zeroes_may_unmap
    space[56] = 1;
    space
}
