//! The page walk: cases from the specification, then random tables against a second, naive walk.

mod common;

use common::pte::{Pte, build};
use proptest::prelude::*;
use quasar_abi::tlb::flag;
use quasar_mmu::request::{AccessKind, Mode, Root};
use quasar_mmu::walk::{Leaf, PteError, PteMemory, Walk, WalkError, pte, walk};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

const TABLES: u64 = 0x8000_0000;

/// Page tables at 8-byte addresses; what isn't there is denied.
#[derive(Default)]
struct Memory {
    words: RefCell<BTreeMap<u64, u64>>,
    /// PTEs may be read and not written.
    read_only: bool,
    /// So many compare-exchanges lose to someone who sets an RSW bit.
    races: Cell<u32>,
}

impl Memory {
    fn set(&self, gpa: u64, value: u64) {
        self.words.borrow_mut().insert(gpa, value);
    }
    fn get(&self, gpa: u64) -> u64 {
        self.words.borrow()[&gpa]
    }
}

impl PteMemory for Memory {
    fn load(&self, gpa: u64) -> Result<u64, PteError> {
        assert_eq!(gpa % 8, 0);
        self.words.borrow().get(&gpa).copied().ok_or(PteError::Denied)
    }
    fn compare_exchange(&self, gpa: u64, old: u64, new: u64) -> Result<bool, PteError> {
        if self.read_only {
            return Err(PteError::Denied);
        }
        let mut words = self.words.borrow_mut();
        let cell = words.get_mut(&gpa).ok_or(PteError::Denied)?;
        if self.races.get() != 0 {
            self.races.set(self.races.get() - 1);
            *cell ^= 1 << 8;
        }
        if *cell != old {
            return Ok(false);
        }
        *cell = new;
        Ok(true)
    }
}

fn request(levels: u32, va: u64, kind: AccessKind, mode: Mode) -> Walk {
    let root = Root { levels, table: TABLES };
    Walk { root, va, kind, mode, sum: false, mxr: false, adue: false, pbmte: false }
}

/// A table per level at TABLES, + 4 KiB, … each with one pointer for `va`, and `leaf` at `level`.
fn chain(levels: u32, va: u64, level: u32, leaf: u64) -> Memory {
    let memory = Memory::default();
    for at in (level..levels).rev() {
        let table = TABLES + u64::from(levels - 1 - at) * 4096;
        let slot = table + ((va >> (12 + 9 * at)) & 511) * 8;
        let pointer = build(table + 4096, pte::V);
        memory.set(slot, if at == level { leaf } else { pointer });
    }
    memory
}

const RWX: u64 = pte::V | pte::R | pte::W | pte::X;
const USED: u64 = pte::A | pte::D;

#[test]
fn every_mode_and_level_finds_its_leaf() {
    for levels in 3..=5 {
        for level in 0..levels.min(4) {
            let va = 0x2a_bcde_f123 & ((1 << (11 + 9 * levels)) - 1);
            let size = 1u64 << (12 + 9 * level);
            let memory = chain(levels, va, level, build(size * 3, RWX | USED));
            let leaf = walk(&memory, &request(levels, va, AccessKind::Read, Mode::S)).expect("mapped");
            assert_eq!(leaf.page, size * 3 + (va & (size - 1) & !0xfff));
            assert_eq!((leaf.level, leaf.updated), (level, false));
            assert_eq!(leaf.flags, flag::R | flag::W | flag::X | flag::A | flag::D);
        }
    }
}

#[test]
fn addresses_that_are_not_canonical_fault() {
    for (levels, bits) in [(3, 39), (4, 48), (5, 57)] {
        let va = 1 << (bits - 1);
        let memory = chain(levels, va, 0, build(0x1000, RWX | USED));
        let ask = |va| walk(&memory, &request(levels, va, AccessKind::Read, Mode::S)).map(|l| l.page);
        assert_eq!(ask(va), Err(WalkError::PageFault));
        assert_eq!(ask(va | (u64::MAX << bits)), Ok(0x1000));
        assert_eq!(ask(va | (u64::MAX << bits) & !(1 << 63)), Err(WalkError::PageFault));
    }
}

#[test]
fn reserved_bits_and_encodings_fault() {
    let va = 0x1000;
    let ask = |leaf: u64, pbmte: bool| {
        let walked = Walk { pbmte, ..request(3, va, AccessKind::Read, Mode::S) };
        walk(&chain(3, va, 0, leaf), &walked).map(|l| l.page)
    };
    let good = build(0x9000, RWX | USED);
    assert_eq!(ask(good, false), Ok(0x9000));
    assert_eq!(ask(good | (3 << 8), false), Ok(0x9000), "RSW is software's");
    assert_eq!(ask(good & !pte::V, false), Err(WalkError::PageFault));
    assert_eq!(ask(good & !pte::R, false), Err(WalkError::PageFault), "W without R");
    assert_eq!(ask(good & !(pte::R | pte::X), false), Err(WalkError::PageFault), "W alone");
    for bit in 54..=60 {
        assert_eq!(ask(good | 1 << bit, true), Err(WalkError::PageFault), "bit {bit}");
    }
    for (pbmt, allowed) in [(1u64, true), (2, true), (3, false)] {
        let leaf = good | pbmt << 61;
        assert_eq!(ask(leaf, false), Err(WalkError::PageFault));
        assert_eq!(ask(leaf, true), if allowed { Ok(0x9000) } else { Err(WalkError::PageFault) });
    }
    // A pointer at the last level, and pointers with bits that only leaves have.
    assert_eq!(ask(build(0x9000, pte::V), false), Err(WalkError::PageFault));
    for bit in [pte::A, pte::D, pte::U, pte::N, 1 << 61, 1 << 54] {
        let memory = chain(3, va, 0, good);
        memory.set(TABLES, memory.get(TABLES) | bit);
        let walked = Walk { pbmte: true, ..request(3, va, AccessKind::Read, Mode::S) };
        assert_eq!(walk(&memory, &walked), Err(WalkError::PageFault), "pointer bit {bit:#x}");
    }
}

#[test]
fn superpages_must_be_aligned() {
    for level in 1..3 {
        let size = 1u64 << (12 + 9 * level);
        let memory = chain(3, 0, level, build(size + size / 2, RWX | USED));
        assert_eq!(walk(&memory, &request(3, 0, AccessKind::Read, Mode::S)), Err(WalkError::PageFault));
    }
}

#[test]
fn napot_pages_take_four_bits_from_the_address() {
    for (ppn_low, expected) in [(8u64, Some(0x8004_5000)), (0, None), (4, None), (9, None), (15, None)] {
        let memory = chain(3, 0x5123, 0, build(0x8004_0000 | ppn_low << 12, RWX | USED | pte::N));
        let found = walk(&memory, &request(3, 0x5123, AccessKind::Read, Mode::S)).map(|l| l.page).ok();
        assert_eq!(found, expected, "ppn[3:0] {ppn_low}");
    }
    let memory = chain(3, 0, 1, build(0x8020_8000, RWX | USED | pte::N));
    assert_eq!(walk(&memory, &request(3, 0, AccessKind::Read, Mode::S)), Err(WalkError::PageFault));
}

#[test]
fn rights_of_every_kind_and_mode() {
    use AccessKind::{Fetch, Read, Write};
    let ask = |flags: u64, kind, mode, sum, mxr| {
        let memory = chain(3, 0, 0, build(0x9000, pte::V | USED | flags));
        walk(&memory, &Walk { sum, mxr, ..request(3, 0, kind, mode) }).is_ok()
    };
    let (r, rw, x, rx, u) = (pte::R, pte::R | pte::W, pte::X, pte::R | pte::X, pte::U);
    for (flags, kind, expected) in [
        (r, Read, true),
        (r, Write, false),
        (r, Fetch, false),
        (rw, Write, true),
        (x, Fetch, true),
        (x, Read, false),
    ] {
        assert_eq!(ask(flags, kind, Mode::S, false, false), expected, "{flags:#x} {kind:?}");
        assert_eq!(ask(flags | u, kind, Mode::U, false, false), expected, "{flags:#x} {kind:?} in U");
        assert!(!ask(flags, kind, Mode::U, true, false), "U-mode has no way into S pages");
    }
    assert!(ask(x, Read, Mode::S, false, true), "MXR");
    assert!(!ask(x, Write, Mode::S, false, true));
    assert!(!ask(rw | u, Read, Mode::S, false, false));
    assert!(ask(rw | u, Read, Mode::S, true, false), "SUM");
    assert!(ask(rw | u, Write, Mode::S, true, false), "SUM");
    assert!(!ask(rx | u, Fetch, Mode::S, true, false), "SUM never lets S execute U pages");
}

#[test]
fn accessed_and_dirty() {
    let slot = TABLES + 2 * 4096;
    let ask = |flags: u64, kind, adue| {
        let memory = chain(3, 0, 0, build(0x9000, RWX | flags));
        let found = walk(&memory, &Walk { adue, ..request(3, 0, kind, Mode::S) });
        (found.map(|l| (l.flags & (flag::A | flag::D), l.updated)), memory.get(slot) & USED)
    };
    for kind in [AccessKind::Read, AccessKind::Write, AccessKind::Fetch] {
        assert_eq!(ask(0, kind, false), (Err(WalkError::PageFault), 0), "Svade");
    }
    assert_eq!(ask(pte::A, AccessKind::Write, false), (Err(WalkError::PageFault), pte::A));
    assert_eq!(ask(pte::A, AccessKind::Read, false), (Ok((pte::A, false)), pte::A));
    assert_eq!(ask(0, AccessKind::Read, true), (Ok((pte::A, true)), pte::A));
    assert_eq!(ask(0, AccessKind::Fetch, true), (Ok((pte::A, true)), pte::A));
    assert_eq!(ask(0, AccessKind::Write, true), (Ok((USED, true)), USED));
    assert_eq!(ask(pte::A, AccessKind::Write, true), (Ok((USED, true)), USED));
}

#[test]
fn a_denied_access_sets_nothing() {
    let memory = chain(3, 0, 0, build(0x9000, pte::V | pte::R));
    let ask = Walk { adue: true, ..request(3, 0, AccessKind::Write, Mode::S) };
    assert_eq!(walk(&memory, &ask), Err(WalkError::PageFault));
    assert_eq!(memory.get(TABLES + 2 * 4096) & USED, 0);
}

#[test]
fn tables_that_cannot_be_read_or_written_are_access_faults() {
    let ask = Walk { adue: true, ..request(3, 0, AccessKind::Read, Mode::S) };
    let mut memory = chain(3, 0, 0, build(0x9000, RWX));
    memory.read_only = true;
    assert_eq!(walk(&memory, &ask), Err(WalkError::AccessFault));
    memory.set(TABLES + 4096, build(0x4000_0000, pte::V));
    assert_eq!(walk(&memory, &ask), Err(WalkError::AccessFault));
}

#[test]
fn lost_races_are_walked_again_and_endless_ones_given_back() {
    let memory = chain(3, 0, 0, build(0x9000, RWX));
    let ask = Walk { adue: true, ..request(3, 0, AccessKind::Write, Mode::S) };
    memory.races.set(3);
    assert!(walk(&memory, &ask).expect("mapped").updated);
    let found = memory.get(TABLES + 2 * 4096);
    assert_eq!(found & USED, USED);
    assert_eq!(found & (1 << 8), 1 << 8, "what the others wrote stays");
    memory.set(TABLES + 2 * 4096, build(0x9000, RWX));
    memory.races.set(u32::MAX);
    assert_eq!(walk(&memory, &ask), Err(WalkError::Contended));
}

#[test]
fn global_is_inherited() {
    let memory = chain(3, 0, 0, build(0x9000, RWX | USED));
    memory.set(TABLES, memory.get(TABLES) | pte::G);
    let leaf = walk(&memory, &request(3, 0, AccessKind::Read, Mode::S)).expect("mapped");
    assert_eq!((leaf.flags & flag::G, leaf.inherited), (flag::G, flag::G));
}

/// The naive walk: recursive, field by field, from the text of 12.3.2. Returns (page, level, R to D).
fn naive(
    memory: &Memory,
    ask: &Walk,
    table: u64,
    level: u32,
    global: bool,
) -> Result<(u64, u32, u64), WalkError> {
    let at = table + 8 * (ask.va / 4096 / 512u64.pow(level) % 512);
    let Some(raw) = memory.words.borrow().get(&at).copied() else { return Err(WalkError::AccessFault) };
    let entry = Pte::of(raw);
    let fault = Err(WalkError::PageFault);
    if !entry.valid || entry.reserved != 0 || entry.pbmt == 3 {
        return fault;
    }
    let global = global || entry.global;
    match (entry.read, entry.write, entry.execute) {
        (false, true, _) => return fault,
        (false, false, false) => {
            let leaf_bits = entry.user || entry.accessed || entry.dirty || entry.napot || entry.pbmt != 0;
            return match level {
                _ if leaf_bits => fault,
                0 => fault,
                _ => naive(memory, ask, entry.ppn * 4096, level - 1, global),
            };
        }
        _ => {}
    }
    if entry.pbmt != 0 && !ask.pbmte {
        return fault;
    }
    let span = match (entry.napot, level) {
        (true, 0) if entry.ppn % 16 == 8 => 16,
        (true, _) => return fault,
        (false, _) => 512u64.pow(level),
    };
    let aligned = entry.napot || entry.ppn.is_multiple_of(span);
    let allowed = match ask.kind {
        AccessKind::Read => entry.read || (ask.mxr && entry.execute),
        AccessKind::Write => entry.write,
        AccessKind::Fetch => entry.execute,
    };
    let mine = match (ask.mode, entry.user) {
        (Mode::U, user) => user,
        (Mode::S, false) => true,
        (Mode::S, true) => ask.sum && ask.kind != AccessKind::Fetch,
    };
    if !aligned || !allowed || !mine {
        return fault;
    }
    let store = ask.kind == AccessKind::Write;
    if !entry.accessed || (store && !entry.dirty) {
        if !ask.adue {
            return fault;
        }
        memory.set(at, raw | pte::A | if store { pte::D } else { 0 });
    }
    let page = (entry.ppn / span * span + ask.va / 4096 % span) * 4096;
    let flags = (memory.get(at) & 0xfe) | if global { flag::G } else { 0 };
    Ok((page, level, flags))
}

fn any_pte() -> impl Strategy<Value = u64> {
    // Pointers among four tables, leaves with mostly sane bits, and noise.
    let table = (0u64..5).prop_map(|n| build(TABLES + n * 4096, pte::V));
    let odd_table = (table.clone(), 0u32..64).prop_map(|(value, bit)| value | 1 << bit);
    let size = prop_oneof![Just(1u64), Just(512), Just(512 * 512)];
    let leaf =
        (0u64..0x2_0000, size, 0u64..256, any::<[bool; 3]>()).prop_map(|(ppn, size, bits, [n, odd, _])| {
            let napot = if n { pte::N | (8 << 10) } else { 0 };
            let base = build((0x8_0000 + ppn) / size * size * 4096, bits | pte::V);
            base | napot | if odd { 1 << 61 } else { 0 }
        });
    let plain =
        (0u64..0x2_0000, 0u64..256).prop_map(|(ppn, bits)| build((0x8_0000 + ppn) << 12, bits | pte::V));
    prop_oneof![6 => table, 1 => odd_table, 4 => plain, 3 => leaf, 1 => any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn random_tables_as_the_naive_walk(
        ptes in prop::collection::vec(any_pte(), 16),
        levels in 3u32..=5,
        indices in prop::collection::vec(0u64..4, 5),
        offset in 0u64..4096,
        kind in prop::sample::select(vec![AccessKind::Read, AccessKind::Write, AccessKind::Fetch]),
        mode in prop::sample::select(vec![Mode::U, Mode::S]),
        switches in any::<[bool; 4]>(),
    ) {
        let fill = || {
            let memory = Memory::default();
            for (index, value) in ptes.iter().enumerate() {
                let index = index as u64;
                memory.set(TABLES + (index / 4) * 4096 + (index % 4) * 8, *value);
            }
            memory
        };
        let va = (0..levels as usize).fold(offset, |va, level| va | indices[level] << (12 + 9 * level));
        let [sum, mxr, adue, pbmte] = switches;
        let ask = Walk { sum, mxr, adue, pbmte, ..request(levels, va, kind, mode) };
        let (ours, theirs) = (fill(), fill());
        let found = walk(&ours, &ask).map(|Leaf { page, level, flags, .. }| (page, level, flags));
        prop_assert_eq!(found, naive(&theirs, &ask, TABLES, levels - 1, false));
        prop_assert_eq!(ours.words.into_inner(), theirs.words.into_inner(), "the tables afterwards");
    }
}
