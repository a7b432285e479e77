//! PMP against a reference that looks at one byte after the other.

use proptest::prelude::*;
use quasar_abi::tlb::flag;
use quasar_mmu::pmp::{ALL, Pmp, PmpWords};

const LOCKED: u64 = 0x80;

/// Whether entry `index` matches a byte, straight from the address-matching rules.
fn matches(words: &PmpWords, index: usize, byte: u128) -> bool {
    let cfg = (words.cfg[index / 8] >> (8 * (index % 8))) & 0xff;
    let address = |i: usize| u128::from(words.addr[i] & ((1 << 54) - 1));
    match (cfg >> 3) & 3 {
        0 => false,
        1 => {
            let low = if index == 0 { 0 } else { address(index - 1) };
            low * 4 <= byte && byte < address(index) * 4
        }
        2 => byte / 4 == address(index),
        _ => {
            let mut ones = 0;
            while (address(index) >> ones) & 1 == 1 {
                ones += 1;
            }
            byte >> (ones + 3) == (address(index) * 4) >> (ones + 3)
        }
    }
}

/// Rights of an access, byte by byte; `None` when its deciding entry has only some of its bytes.
fn reference(words: &PmpWords, start: u64, len: u64, machine: bool) -> Option<u64> {
    for index in 0..16 {
        let hits = (0..len).filter(|i| matches(words, index, u128::from(start) + u128::from(*i))).count();
        if hits == 0 {
            continue;
        }
        if hits as u64 != len {
            return None;
        }
        let cfg = (words.cfg[index / 8] >> (8 * (index % 8))) & 0xff;
        if machine && cfg & LOCKED == 0 {
            return Some(ALL);
        }
        let readable = cfg & 1 != 0;
        return Some(
            (if readable { flag::PMP_R } else { 0 })
                | (if readable && cfg & 2 != 0 { flag::PMP_W } else { 0 })
                | (if cfg & 4 != 0 { flag::PMP_X } else { 0 }),
        );
    }
    Some(if machine { ALL } else { 0 })
}

fn words() -> impl Strategy<Value = PmpWords> {
    // Addresses near each other, so that entries overlap and split pages; some anywhere.
    let near = (0u64..0x1000).prop_map(|a| (0x8000_0000 >> 2) + a);
    let napot = (0u64..0x1000, 0u32..10).prop_map(|(a, ones)| {
        let low = (1 << ones) - 1;
        (((0x8000_0000 >> 2) + a) & !(2 * low + 1)) | low
    });
    let address = prop_oneof![4 => near, 4 => napot, 1 => any::<u64>()];
    (any::<[u64; 2]>(), prop::collection::vec(address, 16), 0usize..=16).prop_map(|(mut cfg, addr, used)| {
        for index in used..16 {
            cfg[index / 8] &= !(0xff << (8 * (index % 8)));
        }
        PmpWords { cfg, addr: addr.try_into().expect("16") }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn as_the_byte_wise_reference(
        words in words(),
        start in 0u64..0x4000,
        len in prop_oneof![Just(1u64), Just(2), Just(4), Just(8), Just(64), Just(4096)],
        machine in any::<bool>(),
    ) {
        let pmp = Pmp::new(words);
        let start = 0x8000_0000 + (start & !(len - 1));
        let expected = reference(&words, start, len, machine);
        prop_assert_eq!(pmp.uniform(start, len, machine), expected);
        prop_assert_eq!(pmp.rights(start, len, machine), expected.unwrap_or(0));
    }

    /// What holds for a page holds for each access in it.
    #[test]
    fn uniform_pages_are_uniform(words in words(), page in 0u64..8, offset in 0u64..512, machine in any::<bool>()) {
        let pmp = Pmp::new(words);
        let page = 0x8000_0000 + page * 4096;
        if let Some(rights) = pmp.uniform(page, 4096, machine) {
            prop_assert_eq!(pmp.rights(page + offset * 8, 8, machine), rights);
        }
    }
}

#[test]
fn without_entries_only_machine_mode_may() {
    let pmp = Pmp::new(PmpWords::default());
    assert_eq!(pmp.rights(0x8000_0000, 8, true), ALL);
    assert_eq!(pmp.rights(0x8000_0000, 8, false), 0);
}

#[test]
fn all_ones_napot_opens_everything() {
    let mut words = PmpWords::default();
    words.cfg[0] = 0x1f;
    words.addr[0] = u64::MAX;
    let pmp = Pmp::new(words);
    assert_eq!(pmp.uniform(0, 1 << 30, false), Some(ALL));
    assert_eq!(pmp.uniform((1 << 56) - 4096, 4096, false), Some(ALL));
}

#[test]
fn a_lock_binds_machine_mode() {
    let mut words = PmpWords::default();
    words.cfg[0] = LOCKED | 0x10 | 1;
    words.addr[0] = 0x8000_1000 >> 2;
    let pmp = Pmp::new(words);
    assert_eq!(pmp.rights(0x8000_1000, 4, true), flag::PMP_R);
    assert_eq!(pmp.rights(0x8000_1000, 8, true), 0, "half of the access is the entry's");
    assert_eq!(pmp.rights(0x8000_1004, 4, true), ALL);
}
