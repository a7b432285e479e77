//! Integer arithmetic that is more than one operator (RISC-V Unprivileged, chapters "RV64I" and "M").

/// Sign-extends the low 32 bits.
#[inline(always)]
pub const fn word(value: u64) -> u64 {
    value as i32 as u64
}

#[inline(always)]
pub const fn mulh(a: u64, b: u64) -> u64 {
    ((a as i64 as i128 * b as i64 as i128) >> 64) as u64
}

#[inline(always)]
pub const fn mulhsu(a: u64, b: u64) -> u64 {
    ((a as i64 as i128 * b as i128) >> 64) as u64
}

#[inline(always)]
pub const fn mulhu(a: u64, b: u64) -> u64 {
    ((a as u128 * b as u128) >> 64) as u64
}

/// Division by zero gives all ones, overflow the dividend.
#[inline(always)]
pub const fn div(a: u64, b: u64) -> u64 {
    if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 }
}

#[inline(always)]
pub fn divu(a: u64, b: u64) -> u64 {
    a.checked_div(b).unwrap_or(u64::MAX)
}

/// The remainder of a division by zero is the dividend, of overflow zero.
#[inline(always)]
pub const fn rem(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 }
}

#[inline(always)]
pub const fn remu(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { a % b }
}

#[inline(always)]
pub const fn divw(a: u64, b: u64) -> u64 {
    if b as i32 == 0 { u64::MAX } else { (a as i32).wrapping_div(b as i32) as u64 }
}

#[inline(always)]
pub fn divuw(a: u64, b: u64) -> u64 {
    (a as u32).checked_div(b as u32).map_or(u64::MAX, |quotient| word(quotient.into()))
}

#[inline(always)]
pub const fn remw(a: u64, b: u64) -> u64 {
    if b as i32 == 0 { word(a) } else { (a as i32).wrapping_rem(b as i32) as u64 }
}

#[inline(always)]
pub const fn remuw(a: u64, b: u64) -> u64 {
    if b as u32 == 0 { word(a) } else { word((a as u32 % b as u32) as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: u64 = i64::MIN as u64;
    const MIN_W: u64 = i32::MIN as u64;
    const ONES: u64 = u64::MAX;

    #[test]
    fn division_by_zero_and_overflow_as_the_table_says() {
        assert_eq!((div(7, 0), divu(7, 0), rem(7, 0), remu(7, 0)), (ONES, ONES, 7, 7));
        assert_eq!((div(MIN, ONES), rem(MIN, ONES)), (MIN, 0));
        assert_eq!((divw(7, 1 << 32), divuw(7, 1 << 32)), (ONES, ONES));
        assert_eq!((remw(MIN_W, 0), remuw(0x8000_0000, 0)), (MIN_W, MIN_W));
        assert_eq!((divw(MIN_W, ONES), remw(MIN_W, ONES)), (MIN_W, 0));
        assert_eq!(divuw(0xffff_ffff, 1), ONES);
    }

    #[test]
    fn high_products_of_each_signedness() {
        assert_eq!((mulh(ONES, ONES), mulhsu(ONES, ONES), mulhu(ONES, ONES)), (0, ONES, ONES - 1));
        assert_eq!((mulh(MIN, 2), mulhsu(MIN, 2), mulhu(MIN, 2)), (ONES, ONES, 1));
    }
}
