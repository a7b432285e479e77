//! Bit manipulation that is more than one operator (RISC-V Unprivileged, chapter "B").

use super::int::word;

/// `orc.b`: each byte becomes all ones unless it is zero.
#[inline(always)]
pub const fn orc_b(value: u64) -> u64 {
    let mut folded = value | value >> 4 & 0x0f0f_0f0f_0f0f_0f0f;
    folded |= folded >> 2 & 0x3f3f_3f3f_3f3f_3f3f;
    folded |= folded >> 1 & 0x7f7f_7f7f_7f7f_7f7f;
    (folded & 0x0101_0101_0101_0101).wrapping_mul(0xff)
}

#[inline(always)]
pub const fn rolw(value: u64, by: u64) -> u64 {
    word((value as u32).rotate_left(by as u32 & 31) as u64)
}

#[inline(always)]
pub const fn rorw(value: u64, by: u64) -> u64 {
    word((value as u32).rotate_right(by as u32 & 31) as u64)
}

/// Zero-extends the low 32 bits.
#[inline(always)]
pub const fn uw(value: u64) -> u64 {
    value as u32 as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orc_b_looks_at_each_byte_alone() {
        assert_eq!(orc_b(0x0100_8000_1000_0001), 0xff00_ff00_ff00_00ff);
        assert_eq!(orc_b(0), 0);
        for bit in 0..64 {
            assert_eq!(orc_b(1 << bit), 0xff << (bit / 8 * 8));
        }
    }

    #[test]
    fn word_rotations_extend_the_sign() {
        assert_eq!(rolw(0x4000_0000, 1), 0xffff_ffff_8000_0000);
        assert_eq!(rorw(1, 33), 0xffff_ffff_8000_0000);
    }
}
