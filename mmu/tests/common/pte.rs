//! PTEs taken apart and put together, independently of the crate under test.

/// A PTE's fields.
#[derive(Clone, Copy, Debug)]
pub struct Pte {
    pub valid: bool,
    pub read: bool,
    pub write: bool,
    pub execute: bool,
    pub user: bool,
    pub global: bool,
    pub accessed: bool,
    pub dirty: bool,
    pub ppn: u64,
    pub reserved: u64,
    pub pbmt: u64,
    pub napot: bool,
}

impl Pte {
    pub fn of(raw: u64) -> Self {
        let bit = |n: u32| (raw >> n) & 1 == 1;
        Self {
            valid: bit(0),
            read: bit(1),
            write: bit(2),
            execute: bit(3),
            user: bit(4),
            global: bit(5),
            accessed: bit(6),
            dirty: bit(7),
            ppn: (raw << 10) >> 20,
            reserved: (raw >> 54) & 0x7f,
            pbmt: (raw >> 61) & 3,
            napot: bit(63),
        }
    }
}

/// A PTE that maps or points to the page at `gpa`.
pub fn build(gpa: u64, bits: u64) -> u64 {
    (gpa >> 12 << 10) | bits
}
