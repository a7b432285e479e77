//! Saving and loading a hart: nothing is lost, and what no hart can hold is refused.

mod priv_support;

use priv_support::{MODES, write};
use proptest::prelude::*;
use quasar_abi::hart::HartState;
use quasar_abi::{AtomicLe64, Segment, SegmentKind};
use quasar_cpu::hart::{Hart, LoadError, Reservation};
use std::sync::atomic::{AtomicU32, Ordering};

/// A state in shared memory, as processes exchange it.
fn with_state<T>(work: impl FnOnce(&HartState) -> T) -> T {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("/quasar-test-{}-state-{number}", std::process::id());
    let segment = Segment::create(&name, SegmentKind::Control, size_of::<HartState>(), 1).expect("a segment");
    work(segment.view(0).expect("a state"))
}

/// Everything that the guest can write, written.
fn hart() -> impl Strategy<Value = Hart> {
    let fixed = (any::<[u64; 32]>(), any::<[u64; 32]>(), any::<u64>(), any::<u64>());
    let rest = (prop::sample::select(MODES.to_vec()), any::<[bool; 3]>(), any::<u64>(), any::<u32>());
    (fixed, rest, prop::collection::vec(any::<u64>(), 64)).prop_map(|((x, f, pc, retired), rest, values)| {
        let (mode, [waiting, long, reserved], gpa, value) = rest;
        let mut hart = Hart::new(2);
        hart.x = x;
        hart.x[0] = 0;
        hart.f = f;
        hart.pc = pc & !1;
        hart.retired = retired;
        let machine = (0x300..=0x306).chain([0x30a, 0x320]).chain(0x340..=0x344).chain([0xb00, 0xb02]);
        let supervisor = [0x105, 0x106, 0x10a, 0x140, 0x141, 0x142, 0x143, 0x14d, 0x180, 0x003];
        let pmp = (0x3b0..=0x3bf).chain([0x3a0, 0x3a2]);
        for (number, value) in [0x300].into_iter().chain(supervisor).chain(machine).chain(pmp).zip(values) {
            if number != 3 || hart.fp_enabled() {
                write(&mut hart, number, value);
            }
        }
        hart.privilege = mode;
        hart.waiting = waiting;
        let len = if long { 8 } else { 4 };
        let reservation = Reservation { gpa: gpa & !7, value: value.into(), len };
        hart.reservation = reserved.then_some(reservation);
        hart
    })
}

/// mstatus among the words.
const MSTATUS: usize = 68;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_saved_loads_the_same(hart in hart()) {
        let loaded = with_state(|state| {
            hart.save(state);
            Hart::load(2, state)
        });
        prop_assert_eq!(loaded, Ok(hart));
    }

    /// A word of garbage either is refused, or is a state that saves to the same words.
    #[test]
    fn garbage_is_refused_or_kept(hart in hart(), place in 0usize..128, garbage: u64) {
        with_state(|state| {
            hart.save(state);
            state.cells().nth(place).expect("a word").set(garbage);
            let words = state.words();
            if let Ok(loaded) = Hart::load(2, state) {
                assert_eq!(words[MSTATUS - 2], loaded.privilege as u64, "the words' order");
                loaded.save(state);
                let again = state.words();
                for (index, (old, new)) in words.iter().zip(again.iter()).enumerate() {
                    // mstatus regains its read-only fields.
                    let derived = if index == MSTATUS { 1 << 63 | 0xa_0000_0000 } else { 0 };
                    assert_eq!(old & !derived, new & !derived, "word {index}");
                }
            }
        });
    }
}

#[test]
fn each_register_refuses_what_it_cannot_hold() {
    type Cell = fn(&HartState) -> &AtomicLe64;
    let cases: &[(&str, Cell, u64)] = &[
        ("privilege", |s| &s.privilege, 2),
        ("pc", |s| &s.pc, 1),
        ("x0", |s| &s.x[0], 1),
        ("fcsr", |s| &s.fcsr, 0x100),
        ("mstatus", |s| &s.mstatus, 2 << 11),
        ("mstatus", |s| &s.mstatus, 1 << 37),
        ("mie", |s| &s.mie, 1),
        ("mip", |s| &s.mip, 1 << 11),
        ("medeleg", |s| &s.medeleg, 1 << 11),
        ("mideleg", |s| &s.mideleg, 1 << 3),
        ("mtvec", |s| &s.mtvec, 2),
        ("mepc", |s| &s.mepc, 1),
        ("mcounteren", |s| &s.mcounteren, 1 << 32),
        ("mcountinhibit", |s| &s.mcountinhibit, 2),
        ("menvcfg", |s| &s.menvcfg, 1 << 60),
        ("stvec", |s| &s.stvec, 3),
        ("sepc", |s| &s.sepc, 1),
        ("satp", |s| &s.satp, 7 << 60),
        ("satp", |s| &s.satp, 1),
        ("scounteren", |s| &s.scounteren, 1 << 32),
        ("senvcfg", |s| &s.senvcfg, 2),
        ("pmpcfg", |s| &s.pmpcfg[1], 0x02),
        ("pmpaddr", |s| &s.pmpaddr[15], 1 << 54),
        ("waiting", |s| &s.waiting, 2),
        ("builtin_sbi", |s| &s.builtin_sbi, 2),
        ("reservation", |s| &s.reservation, 2),
        ("spare", |s| &s.spare[3], 1),
    ];
    for &(field, cell, value) in cases {
        let result = with_state(|state| {
            Hart::new(0).save(state);
            cell(state).set(value);
            Hart::load(0, state)
        });
        assert_eq!(result, Err(LoadError::Illegal { field, value }));
    }
    let other = with_state(|state| {
        Hart::new(0).save(state);
        state.version.set(9);
        Hart::load(0, state)
    });
    assert_eq!(other, Err(LoadError::Version { found: 9 }));
}
