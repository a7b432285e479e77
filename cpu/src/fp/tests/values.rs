//! Operands that are worth testing. Shared with the integration test that asks an emulated processor, therefore
//! without a use of this crate.

/// A small generator of its own (SplitMix64), so that a seed means the same values for ever.
pub struct Random(pub u64);

impl Random {
    /// The seed in `QUASAR_SEED`, or one from the clock; printed, to repeat a failure.
    pub fn from_environment(test: &str) -> Self {
        let seed = match std::env::var("QUASAR_SEED") {
            Ok(text) => text.parse().expect("QUASAR_SEED is a decimal number below 2^64"),
            Err(_) => std::time::UNIX_EPOCH.elapsed().map_or(1, |since| u64::from(since.subsec_nanos())),
        };
        eprintln!("{test}: QUASAR_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The operands of one round of all operations: doubles `a`, `b`, `c` and singles `x`, `y`, `z`, as bits. The
/// conversions from integers take `a` for one.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub x: u32,
    pub y: u32,
    pub z: u32,
}

impl Operands {
    pub fn draw(random: &mut Random) -> Self {
        let [mut a, b, c] = triple(random, 52, 11);
        if random.below(4) == 0 {
            a = boundary_of_a_conversion(random);
        }
        let [x, y, z] = triple(random, 23, 8).map(|bits| u32::try_from(bits).expect("a single has 32 bits"));
        Self { a, b, c, x, y, z }
    }
}

/// Three values, often near each other, so that sums cancel and quotients come out even.
fn triple(random: &mut Random, frac_bits: u32, exp_bits: u32) -> [u64; 3] {
    let [a, b, c] = [(); 3].map(|()| value(random, frac_bits, exp_bits));
    let sign = 1u64 << (frac_bits + exp_bits);
    let one = ((1 << (exp_bits - 1)) - 1) << frac_bits;
    let mask = sign | (sign - 1);
    match random.below(8) {
        0 => [a, a ^ random.below(8), b],
        1 => [a, a ^ sign ^ random.below(8), b],
        // A near exponent.
        2 => [a, a.wrapping_add(random.below(120) << frac_bits).wrapping_sub(60 << frac_bits) & mask, b],
        // c about -a: products with a factor about one cancel.
        3 => [a, one ^ random.below(4), a ^ sign ^ random.below(4)],
        // c about ±ab, by adding exponents and forgetting the fractions' product.
        4 => [a, b, a.wrapping_add(b).wrapping_sub(one) & mask],
        5 => [a, b, a.wrapping_add(b).wrapping_sub(one).wrapping_sub(random.below(120) << frac_bits) & mask],
        _ => [a, b, c],
    }
}

fn value(random: &mut Random, frac_bits: u32, exp_bits: u32) -> u64 {
    let top = (1 << exp_bits) - 1;
    let bias = top / 2;
    let exponent = match random.below(8) {
        0 => 0,
        1 => top,
        2 => random.below(4),
        3 => top - random.below(4),
        // Products and quotients land near the ends.
        4 => bias / 2 + random.below(5),
        5 => bias + random.below(70) - 4,
        _ => random.below(top),
    };
    let ones = (1u64 << frac_bits) - 1;
    let fraction = match random.below(8) {
        0 => 0,
        1 => ones,
        2 => 1 << random.below(frac_bits.into()),
        3 => ones - (1 << random.below(frac_bits.into())),
        4 => ones & !(ones >> random.below(frac_bits.into())),
        5 => random.below(4),
        6 => random.next() & ones & !(ones >> random.below(frac_bits.into())),
        _ => random.next() & ones,
    };
    let sign = random.below(2) << (frac_bits + exp_bits);
    sign | exponent << frac_bits | fraction
}

/// A double at the edge of an integer type or of the singles, a step or a half to one side; or bits that are
/// such an integer.
fn boundary_of_a_conversion(random: &mut Random) -> u64 {
    let edge = [0u32, 1, 8, 23, 24, 25, 31, 32, 52, 53, 54, 63, 64];
    let power = edge[usize::try_from(random.below(13)).expect("below 13")];
    let step = i32::try_from(random.below(9)).expect("below 9") - 4;
    let x = match random.below(5) {
        0 => return 1u64.checked_shl(power).unwrap_or(0).wrapping_add_signed(step.into()),
        1 => return (1 << (power % 64)) | (random.next() >> (random.below(63) + 1)),
        2 => f64::from(f32::MIN_POSITIVE) * (1.0 + f64::from(step) * 0.5_f64.powi(25)),
        3 => {
            f64::from(f32::from_bits(u32::try_from(random.below(1 << 10)).expect("below 2^10")))
                + f64::from(step) * 0.5_f64.powi(151)
        }
        _ => 2.0_f64.powi(power.cast_signed()) + f64::from(step) * 0.25,
    };
    if random.below(2) == 0 { x.to_bits() } else { (-x).to_bits() }
}
