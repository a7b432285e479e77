//! Which bits of a 32-bit encoding are fixed, and to what: the vocabulary of the instruction list.

/// The fixed bits of an encoding: `word` is this instruction exactly when `word & mask == bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The value of the fixed bits; zero elsewhere.
    pub bits: u32,
    /// One where a bit is fixed.
    pub mask: u32,
}

impl Pattern {
    /// Whether `word` carries all the fixed bits.
    #[must_use]
    pub const fn matches(self, word: u32) -> bool {
        (word ^ self.bits) & self.mask == 0
    }

    /// Whether some word matches both patterns.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        (self.bits ^ other.bits) & self.mask & other.mask == 0
    }

    const fn and(self, low: u32, width: u32, value: u32) -> Self {
        let field = (1 << width) - 1;
        assert!(value <= field, "a fixed field's value exceeds the field");
        Self { bits: self.bits | value << low, mask: self.mask | field << low }
    }
}

/// Only the major opcode is fixed.
pub(super) const fn opcode(opcode: u32) -> Pattern {
    Pattern { bits: 0, mask: 0 }.and(0, 7, opcode)
}

/// Opcode and funct3.
pub(super) const fn funct3(major: u32, funct3: u32) -> Pattern {
    opcode(major).and(12, 3, funct3)
}

/// Opcode, funct3 and the six bits above a 6-bit shift amount.
pub(super) const fn funct6(major: u32, minor: u32, funct6: u32) -> Pattern {
    funct3(major, minor).and(26, 6, funct6)
}

/// Opcode, funct3 and funct7.
pub(super) const fn funct7(major: u32, minor: u32, funct7: u32) -> Pattern {
    funct3(major, minor).and(25, 7, funct7)
}

/// Opcode, funct3, funct7 and a fixed destination field.
pub(super) const fn funct7_rd(major: u32, minor: u32, high: u32, rd: u32) -> Pattern {
    funct7(major, minor, high).and(7, 5, rd)
}

/// Opcode, funct3 and the upper twelve bits.
pub(super) const fn funct12(major: u32, minor: u32, funct12: u32) -> Pattern {
    funct3(major, minor).and(20, 12, funct12)
}

/// Every bit.
pub(super) const fn exact(word: u32) -> Pattern {
    Pattern { bits: word, mask: u32::MAX }
}

/// An atomic of `funct3` width; bits 26 and 25 are aq and rl.
pub(super) const fn atomic(width: u32, funct5: u32) -> Pattern {
    funct3(0x2f, width).and(27, 5, funct5)
}

/// `lr`: an atomic without rs2.
pub(super) const fn load_reserved(width: u32) -> Pattern {
    atomic(width, 0x02).and(20, 5, 0)
}

/// A fused multiply-add of the format `fmt`; the rest are four registers and the rounding mode.
pub(super) const fn fused(major: u32, fmt: u32) -> Pattern {
    opcode(major).and(25, 2, fmt)
}

/// OP-FP with a rounding mode.
pub(super) const fn float(funct7: u32) -> Pattern {
    opcode(0x53).and(25, 7, funct7)
}

/// OP-FP with a rounding mode and a fixed rs2 field.
pub(super) const fn float_rs2(funct7: u32, rs2: u32) -> Pattern {
    float(funct7).and(20, 5, rs2)
}
