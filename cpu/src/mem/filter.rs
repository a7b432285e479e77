//! A small set of page numbers that may say yes too often, never no wrongly.

/// Bits.
const BITS: usize = 8192;

#[derive(Debug)]
pub(super) struct PageFilter {
    bits: Box<[u64; BITS / 64]>,
    empty: bool,
}

impl PageFilter {
    pub fn new() -> Self {
        Self { bits: Box::new([0; BITS / 64]), empty: true }
    }

    const fn at(page: u64) -> (usize, u64) {
        let bit = page as usize % BITS;
        (bit / 64, 1 << (bit % 64))
    }

    pub fn add(&mut self, page: u64) {
        let (word, bit) = Self::at(page);
        self.bits[word] |= bit;
        self.empty = false;
    }

    pub fn has(&self, page: u64) -> bool {
        let (word, bit) = Self::at(page);
        self.bits[word] & bit != 0
    }

    pub const fn is_empty(&self) -> bool {
        self.empty
    }

    pub fn clear(&mut self) {
        if !self.empty {
            self.bits.fill(0);
            self.empty = true;
        }
    }
}
