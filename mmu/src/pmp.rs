//! Physical memory protection as a pure function (RISC-V Privileged 1.13, 3.7).

use quasar_abi::hart::{PMP_ENTRIES, PmpBlock};
use quasar_abi::tlb::flag;

/// Reads, writes and fetches allowed.
pub const ALL: u64 = flag::PMP_R | flag::PMP_W | flag::PMP_X;

/// A hart's PMP registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PmpWords {
    /// pmpcfg0 and pmpcfg2.
    pub cfg: [u64; 2],
    /// pmpaddr0 to pmpaddr15.
    pub addr: [u64; PMP_ENTRIES],
}

impl PmpWords {
    /// Those that a hart has told.
    #[must_use]
    pub fn of(told: &PmpBlock) -> Self {
        Self {
            cfg: std::array::from_fn(|i| told.cfg[i].get()),
            addr: std::array::from_fn(|i| told.addr[i].get()),
        }
    }
}

/// An entry that is switched on.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u64,
    /// One past the last byte.
    end: u64,
    rights: u64,
    locked: bool,
}

/// Decoded PMP registers.
#[derive(Clone, Debug, Default)]
pub struct Pmp {
    words: PmpWords,
    /// In order of priority.
    entries: Vec<Entry>,
}

impl Pmp {
    /// Decodes registers.
    #[must_use]
    pub fn new(words: PmpWords) -> Self {
        Self { entries: (0..PMP_ENTRIES).filter_map(|index| decode(&words, index)).collect(), words }
    }

    /// The registers that were decoded.
    #[must_use]
    pub const fn words(&self) -> &PmpWords {
        &self.words
    }

    /// What one access to `[start, start + len)` may do, as `flag::PMP_*`: the first entry that has any of
    /// the bytes decides, and allows nothing when it does not have all of them (3.7.1.3).
    ///
    /// `machine` selects M-mode's rules: entries that aren't locked, and no entry at all, allow everything.
    #[must_use]
    pub fn rights(&self, start: u64, len: u64, machine: bool) -> u64 {
        self.decide(start, len, machine).unwrap_or(0)
    }

    /// What every access inside `[start, start + len)` may do; `None` when that depends on the access,
    /// because an entry ends inside.
    #[must_use]
    pub fn uniform(&self, start: u64, len: u64, machine: bool) -> Option<u64> {
        self.decide(start, len, machine)
    }

    /// `None`: the deciding entry has some of the bytes and not all.
    fn decide(&self, start: u64, len: u64, machine: bool) -> Option<u64> {
        let end = start.saturating_add(len);
        let first = self.entries.iter().find(|entry| entry.start < end && start < entry.end);
        match first {
            None if machine => Some(ALL),
            None => Some(0),
            Some(entry) if start < entry.start || entry.end < end => None,
            Some(entry) if machine && !entry.locked => Some(ALL),
            Some(entry) => Some(entry.rights),
        }
    }
}

fn decode(words: &PmpWords, index: usize) -> Option<Entry> {
    const ADDRESS: u64 = (1 << 54) - 1;
    let cfg = words.cfg[index / 8] >> (index % 8 * 8);
    let addr = words.addr[index] & ADDRESS;
    let (start, end) = match (cfg >> 3) & 3 {
        1 => {
            let below = index.checked_sub(1).map_or(0, |i| words.addr[i] & ADDRESS);
            (below << 2, addr << 2)
        }
        2 => (addr << 2, (addr << 2) + 4),
        3 => {
            let size = 8 << addr.trailing_ones();
            let start = (addr << 2) & !(size - 1);
            (start, start + size)
        }
        _ => return None,
    };
    let mut rights = 0;
    for (bit, right) in [(1, flag::PMP_R), (2, flag::PMP_W), (4, flag::PMP_X)] {
        if cfg & bit != 0 {
            rights |= right;
        }
    }
    // Writable and not readable is reserved; registers never hold it, and if they do it grants no write.
    if rights & flag::PMP_R == 0 {
        rights &= !flag::PMP_W;
    }
    (start < end).then_some(Entry { start, end, rights, locked: cfg & 0x80 != 0 })
}
