//! The state that a case starts from.

use crate::case::{Case, Mode};
use crate::code::lay_out;
use crate::layout::{DATA, DATA_PAGES, DATA_WORDS, LANDING, TABLES, case};
use crate::paging;
use crate::profile::Profile;
use crate::random::Random;
use crate::stream::{BAD_POINTER, POINTERS, STATUS, Shape, Stream, TARGET};
use crate::values;
use quasar_cpu::csr::status;

/// Makes case `index` of a run.
#[must_use]
pub fn generate(seed: u64, profile: Profile, index: u64, zicond: bool) -> Case {
    let mut random = Random::of_case(seed, profile as u64, index);
    let mode = match profile {
        Profile::Paging => random.pick(&[Mode::S, Mode::S, Mode::U, Mode::U, Mode::M]),
        _ => random.pick(&[Mode::M, Mode::M, Mode::S, Mode::U]),
    };
    let mut case = Case::new(mode);
    registers(&mut case, &mut random, profile);
    privileged(&mut case, &mut random, profile);
    let deltas = std::array::from_fn(|_| delta(&mut random));
    if profile == Profile::Paging {
        paging::tables(&mut case, &mut random);
    }
    // M-mode's own addresses aren't translated; those that MPRV translates are virtual ones.
    let translated = case.get(case::SATP) != 0;
    let mprv = mode == Mode::M && (case.get(case::MSTATUS) & status::MPRV != 0 || random.chance(50));
    for (pointer, delta) in POINTERS.iter().zip(deltas) {
        let at = match translated && (mode != Mode::M || mprv) {
            true => paging::boundary(&case, &mut random),
            false => DATA + 4096 * (1 + random.below(DATA_PAGES - 1)),
        };
        case.set(case::X + usize::from(*pointer), at.wrapping_add_signed(delta));
    }
    let virtual_code = translated && mode != Mode::M;
    let (target, bad) = (target(&mut random, virtual_code), bad_pointer(&mut random, translated));
    case.set(case::X + usize::from(TARGET), target);
    case.set(case::X + usize::from(BAD_POINTER), bad);
    let bits = status_bits(&mut random);
    case.set(case::X + usize::from(STATUS), bits);
    let traps_wfi = case.get(case::MSTATUS) & status::TW != 0;
    let shape = Shape { profile, mode, traps_wfi, deltas, zicond };
    case.code = lay_out(&Stream { random: &mut random, shape }.pieces());
    case
}

fn registers(case: &mut Case, random: &mut Random, profile: Profile) {
    for register in 1..32 {
        case.set(case::X + register, values::integer(random));
    }
    for register in 0..32 {
        case.set(case::F + register, values::float(random));
    }
    for word in 0..DATA_WORDS {
        let value = if profile == Profile::Float { values::float(random) } else { values::integer(random) };
        case.set(case::DATA + word, value);
    }
    let frm = if random.chance(93) { random.below(5) } else { 5 + random.below(3) };
    let flags = if random.chance(50) { 0 } else { random.below(32) };
    case.set(case::FCSR, frm << 5 | flags);
}

fn privileged(case: &mut Case, random: &mut Random, profile: Profile) {
    let fs = match profile {
        Profile::Float | Profile::Integer => 3,
        // Clean and Initial come by what a case writes: when they end is an implementation's choice.
        _ => random.pick(&[0, 3, 3, 3]),
    };
    let mut mstatus = case.get(case::MSTATUS) | fs << 13;
    // Everything may be accessed unless an entry of lower number says otherwise.
    case.set(case::PMPADDR + 7, (1 << 54) - 1);
    case.set(case::PMPCFG, 0x1f << 56);
    if matches!(profile, Profile::Privileged | Profile::Paging) {
        for (bit, percent) in [
            (status::SIE, 50),
            (status::SPIE, 50),
            (status::MPIE, 50),
            (status::SPP, 50),
            (status::SUM, 50),
            (status::MXR, 40),
            (status::TVM, 20),
            (status::TW, 30),
            (status::TSR, 20),
            (status::MPRV, if case.mode == Mode::M { 40 } else { 0 }),
        ] {
            if random.chance(percent) {
                mstatus |= bit;
            }
        }
        if random.chance(50) {
            // All but the environment call from S-mode, by which the harness learns of S-mode's traps. Where page
            // tables may be protected, S-mode's handler may be out of reach: that is M-mode's to hear then.
            let all = if profile == Profile::Paging { 0xb1fd } else { 0xb1ff };
            case.set(case::MEDELEG, random.word() & all);
        }
        case.set(case::MIDELEG, random.word() & 0x222);
        case.set(case::MCOUNTEREN, random.word() & 7);
        case.set(case::SCOUNTEREN, random.word() & 7);
        if profile == Profile::Privileged && random.chance(25) {
            case.set(case::MIE, random.word() & 0xaaa);
            // SSIP and SEIP; STIP is stimecmp's, which is never reached.
            case.set(case::MIP, random.word() & 0x202);
        }
        if random.chance(if profile == Profile::Privileged { 40 } else { 25 }) {
            protection(case, random);
        }
    }
    case.set(case::MSTATUS, mstatus);
}

/// Random PMP entries over the data pages and, seldom, the page tables; never over the harness and the code,
/// without which S-mode could not end a case.
fn protection(case: &mut Case, random: &mut Random) {
    let mut configuration = case.get(case::PMPCFG);
    for entry in 0..7 {
        let boundary = DATA + 4096 * random.below(DATA_PAGES + 1);
        let at = match random.below(10) {
            0 => TABLES + 8 * random.below(0x3000 / 8),
            _ => boundary.wrapping_add_signed(4 * random.range(-17, 16)),
        };
        let words = at >> 2;
        let (mode, address) = match random.below(6) {
            0..=1 if entry > 0 => (1, words),
            2 => (2, words),
            3..=4 => {
                let size = random.range(0, 5);
                let ones = (1 << size) - 1;
                // A zero above the ones: else the region would be as large as the address has ones.
                (3, words & !(2 * ones + 1) | ones)
            }
            _ => (0, words),
        };
        let rights = random.pick(&[0, 1, 3, 4, 5, 7, 1, 3]);
        case.set(case::PMPADDR + entry, address);
        configuration |= (mode << 3 | rights) << (8 * entry);
    }
    case.set(case::PMPCFG, configuration);
}

/// How far a pointer is from the boundary between two pages.
fn delta(random: &mut Random) -> i64 {
    match random.below(8) {
        0 => random.range(-64, 56),
        1 => 4 * random.range(-16, 14),
        2 => 0,
        _ => 8 * random.range(-8, 7),
    }
}

/// Where a jump out of the case goes: to the illegal instruction of zeros, or to nowhere.
fn target(random: &mut Random, translated: bool) -> u64 {
    let landing = DATA + 4096 * random.below(DATA_PAGES) + LANDING;
    let odd = u64::from(random.chance(10));
    let target = match random.below(10) {
        0 => random.pick(&paging::NOWHERE),
        1 => 0x0900_0000,
        2 => 0x8800_0000,
        _ if translated => paging::boundary_anywhere(random) + LANDING,
        _ => landing,
    };
    target | odd
}

fn bad_pointer(random: &mut Random, translated: bool) -> u64 {
    match random.below(4) {
        0 => random.pick(&paging::NOWHERE),
        1 if translated => paging::boundary_anywhere(random),
        // Between two devices; behind RAM.
        2 => 0x0900_0000 + random.below(16),
        _ => 0x8800_0000 + random.below(16),
    }
}

/// Bits of mstatus and sstatus whose meaning both sides share; mie and mip see some of them too. MPP is changed
/// as a whole, so that it never gets its reserved value.
fn status_bits(random: &mut Random) -> u64 {
    let all = status::SIE
        | status::MIE
        | status::SPIE
        | status::MPIE
        | status::SPP
        | status::FS
        | status::MPRV
        | status::SUM
        | status::MXR
        | status::TVM
        | status::TW
        | status::TSR;
    let few = random.word() & random.word() & all;
    few | if random.chance(30) { status::MPP } else { 0 }
}
