//! What a run concentrates on.

/// A kind of case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Integer, compressed and atomic instructions, loads and stores, without translation.
    Integer,
    /// Floating point: every operation, rounding mode, NaNs, infinities, subnormals.
    Float,
    /// CSRs, traps, delegation, interrupts, trap returns, PMP.
    Privileged,
    /// Sv39, Sv48 and Sv57 with random page tables.
    Paging,
}

/// How often each kind of piece is made, relative to each other; what remains is `other`.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    pub integer: u64,
    pub compressed: u64,
    pub memory: u64,
    pub atomic: u64,
    pub float: u64,
    pub jump: u64,
    pub csr: u64,
    pub other: u64,
}

impl Weights {
    /// Their sum.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.integer
            + self.compressed
            + self.memory
            + self.atomic
            + self.float
            + self.jump
            + self.csr
            + self.other
    }
}

impl Profile {
    /// The mix.
    #[must_use]
    pub const fn weights(self) -> Weights {
        let (integer, compressed, memory, atomic, float, jump, csr, other) = match self {
            Self::Integer => (120, 60, 40, 24, 4, 16, 0, 2),
            Self::Float => (6, 6, 20, 0, 120, 3, 4, 0),
            Self::Privileged => (20, 6, 20, 4, 6, 6, 90, 24),
            Self::Paging => (10, 12, 120, 24, 2, 6, 8, 6),
        };
        Weights { integer, compressed, memory, atomic, float, jump, csr, other }
    }

    /// Its name, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Privileged => "privileged",
            Self::Paging => "paging",
        }
    }
}
