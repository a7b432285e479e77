//! Privilege modes.

/// Privilege modes (RISC-V Privileged 1.13, table 1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Privilege {
    /// User.
    U = 0,
    /// Supervisor.
    S = 1,
    /// Machine.
    M = 3,
}

impl Privilege {
    /// The mode with this encoding; 2 is reserved.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match bits {
            0 => Some(Self::U),
            1 => Some(Self::S),
            3 => Some(Self::M),
            _ => None,
        }
    }

    /// The encoding.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self as u64
    }
}
