//! Random page tables, and addresses that they translate.

use crate::case::{Case, Mode};
use crate::layout::{DATA, DATA_PAGES, HUGE_PTES, LARGE_PTES, RAM, SMALL_PTES, TABLES, USER_ALIAS};
use crate::layout::{VIRTUAL, VIRTUAL_HIGH, case};
use crate::random::Random;

/// Addresses that no mode of translation maps: not canonical in one or in all of them.
pub const NOWHERE: [u64; 6] =
    [1 << 38, 1 << 47, 1 << 56, 0xffff_ffbf_ffff_f000, 0x7fff_ffff_ffff_f000, 0xffff_ff00_0000_1000];

/// PTE fields (Privileged ISA, 12.3.1, 12.5.1).
mod pte {
    pub const V: u64 = 1 << 0;
    pub const R: u64 = 1 << 1;
    pub const W: u64 = 1 << 2;
    pub const X: u64 = 1 << 3;
    pub const U: u64 = 1 << 4;
    pub const G: u64 = 1 << 5;
    pub const A: u64 = 1 << 6;
    pub const D: u64 = 1 << 7;
    pub const N: u64 = 1 << 63;
}

const KILO: usize = case::PTE;
const MEGA: usize = case::PTE + SMALL_PTES;
const GIGA: usize = case::PTE + SMALL_PTES + LARGE_PTES;

/// Marks a case whose first 16 small entries are one naturally aligned 64 KiB page (Svnapot); of such a page
/// only the observed ones are used.
fn is_napot(case: &Case) -> bool {
    case.get(KILO) & pte::N != 0
}

/// Makes the page tables and satp.
pub fn tables(case: &mut Case, random: &mut Random) {
    let user = case.mode == Mode::U;
    let mode = random.pick(&[8, 8, 8, 9, 10]);
    let root = TABLES + [0, 0x3000, 0x4000][mode - 8];
    let asid = if random.chance(50) { 0 } else { random.below(1 << 16) };
    case.set(case::SATP, (mode as u64) << 60 | asid << 44 | root >> 12);

    for at in 0..SMALL_PTES {
        let page = match random.below(40) {
            0 => 0x0900_0000,
            1 => 0x9000_0000,
            _ => DATA + 4096 * random.below(DATA_PAGES),
        };
        let entry = leaf(page, user, random);
        case.set(KILO + at, entry);
    }
    if random.chance(10) {
        let entry = leaf(DATA + 0x8000, user, random) | pte::N;
        for at in 0..16 {
            case.set(KILO + at, entry);
        }
    }
    let below = pointer(random, TABLES + 0x2000);
    case.set(MEGA, below);
    for at in 1..LARGE_PTES {
        let entry = match random.below(10) {
            0 => pointer(random, TABLES + 0x2000),
            // Not aligned to its size.
            1 => leaf(DATA + 4096 * (1 + random.below(511)), user, random),
            _ => leaf(DATA, user, random),
        };
        case.set(MEGA + at, entry);
    }
    for at in 0..HUGE_PTES {
        let entry = match (at, random.below(10)) {
            (4, _) => pointer(random, TABLES + 0x1000),
            // The harness, and its alias for U-mode.
            (2, _) => RAM >> 2 | 0xcf,
            (3, _) => RAM >> 2 | 0xdf,
            (_, 0) => pointer(random, TABLES + 0x1000),
            // Not aligned to its size; without rights it makes a table of data.
            (_, 1) => leaf(DATA + 4096 * random.below(DATA_PAGES), user, random),
            _ => leaf(RAM, user, random),
        };
        case.set(GIGA + at, entry);
    }
}

fn leaf(page: u64, user: bool, random: &mut Random) -> u64 {
    let rights = match random.below(8) {
        0..=3 => pte::R | pte::W,
        4 => pte::R | pte::W | pte::X,
        _ => (random.below(8)) << 1,
    };
    let mut entry = page >> 12 << 10 | rights;
    let usual = u64::from(user) * 70 + 15;
    for (bit, percent) in
        [(pte::V, 97), (pte::U, usual), (pte::G, 30), (pte::A, 75), (pte::D, 75), (1 << 8, 20), (1 << 9, 20)]
    {
        if random.chance(percent) {
            entry |= bit;
        }
    }
    if random.chance(2) {
        // Reserved bits, and memory types: Svpbmt is off in menvcfg.
        entry |= 1 << (54 + random.below(9));
    }
    entry
}

fn pointer(random: &mut Random, table: u64) -> u64 {
    let mut entry = table >> 2 | pte::V;
    if random.chance(20) {
        entry |= pte::G;
    }
    if random.chance(4) {
        entry ^= random.pick(&[pte::V, pte::A, pte::D, pte::U, 1 << 54, 1 << 61, pte::N]);
    }
    entry
}

/// A boundary between two pages of which both are mapped, if their entries allow it.
pub fn boundary(case: &Case, random: &mut Random) -> u64 {
    let napot = is_napot(case);
    loop {
        let at = boundary_anywhere(random);
        let within = at.wrapping_sub(VIRTUAL) % (1 << 21) / 4096;
        if !napot || !(4..=16).contains(&within) {
            return at;
        }
    }
}

/// A boundary between two pages of some size; data pages, if they are mapped.
pub fn boundary_anywhere(random: &mut Random) -> u64 {
    let base = random.pick(&[VIRTUAL, VIRTUAL, VIRTUAL_HIGH]);
    let in_data = 4096 * (1 + random.below(DATA_PAGES - 1));
    match random.below(10) {
        0..=5 => base + 4096 * (1 + random.below(SMALL_PTES as u64 - 1)),
        6..=7 => base + ((1 + random.below(LARGE_PTES as u64 - 1)) << 21) + in_data,
        8 => DATA + USER_ALIAS * random.below(2) + in_data,
        // Not the second: QEMU's machine has a window to PCI there, in which nothing faults.
        _ => (random.pick(&[0, 5, 6, 7]) << 30) + (DATA - RAM) + in_data,
    }
}
