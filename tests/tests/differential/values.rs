//! Values with which arithmetic goes wrong where it does.

use crate::random::Random;

const CORNERS: [u64; 16] = [
    0,
    1,
    2,
    u64::MAX,
    u64::MAX - 1,
    1 << 63,
    (1 << 63) - 1,
    1 << 31,
    (1 << 31) - 1,
    (1 << 31) + 1,
    0xffff_ffff,
    0xffff_ffff_8000_0000,
    0xffff_ffff_7fff_ffff,
    0x1_0000_0000,
    0x5555_5555_5555_5555,
    0x8000_0000_8000_0000,
];

/// An integer register's value.
pub fn integer(random: &mut Random) -> u64 {
    match random.below(6) {
        0..=1 => random.pick(&CORNERS),
        2 => random.pick(&CORNERS).wrapping_add_signed(random.range(-4, 4)),
        3 => random.word() >> random.below(64),
        4 => (random.word().cast_signed() >> random.below(64)).cast_unsigned(),
        _ => random.word(),
    }
}

const SINGLES: [u64; 20] = [
    0x0000_0000,
    0x8000_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x7f80_0001,
    0xffff_ffff,
    0x0000_0001,
    0x807f_ffff,
    0x0080_0000,
    0x7f7f_ffff,
    0x4f00_0000,
    0x4eff_ffff,
    0x5f00_0000,
    0xdf00_0000,
    0x3f00_0000,
    0x3fc0_0000,
    0x5f7f_ffff,
];

const DOUBLES: [u64; 20] = [
    0x0000_0000_0000_0000,
    0x8000_0000_0000_0000,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    0xffff_ffff_ffff_fffe,
    0x0000_0000_0000_0001,
    0x800f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x41e0_0000_0000_0000,
    0x41df_ffff_ffc0_0000,
    0x43e0_0000_0000_0000,
    0xc3e0_0000_0000_0000,
    0x3fe0_0000_0000_0000,
    0x47ef_ffff_e000_0000,
    0x3690_0000_0000_0000,
];

/// A floating-point register's value: boxed singles, doubles, and singles that aren't boxed.
pub fn float(random: &mut Random) -> u64 {
    const BOX: u64 = 0xffff_ffff_0000_0000;
    match random.below(16) {
        0..=3 => BOX | random.pick(&SINGLES),
        4 => BOX | random.pick(&SINGLES).wrapping_add_signed(random.range(-2, 2)) & 0xffff_ffff,
        5..=6 => BOX | random.word() >> 32,
        // Near one: sums cancel, products neither overflow nor vanish.
        7 => BOX | 0x3f00_0000 | random.word() & 0x80ff_ffff,
        8..=10 => random.pick(&DOUBLES),
        11 => random.pick(&DOUBLES).wrapping_add_signed(random.range(-2, 2)),
        12..=13 => random.word(),
        14 => 0x3fe0_0000_0000_0000 | random.word() & 0x801f_ffff_ffff_ffff,
        _ => random.pick(&SINGLES) | random.word() << 33,
    }
}
