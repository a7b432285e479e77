//! What CSRs keep of what is written to them, and what they show.

mod priv_support;

use priv_support::{Env, read, read_in, write};
use quasar_cpu::csr::{CsrEffects, CsrOp};
use quasar_cpu::hart::{Hart, Privilege};

const ONES: u64 = u64::MAX;

/// Number, what reads after all ones were written to a hart out of reset, and after zero was.
const AFTER_ONES_AND_ZERO: &[(u16, u64, u64)] = &[
    // MXL 2; A B C D F I M S U.
    (0x301, 2 << 62 | 0x14_112f, 2 << 62 | 0x14_112f),
    // SD, SXL, UXL and every field that machine mode has: MPP 3.
    (0x300, 1 << 63 | 0xa_007e_79aa, 0xa_0000_0000),
    (0x100, 1 << 63 | 0x2_000c_6122, 0x2_0000_0000),
    (0x302, 0xb3ff, 0),
    (0x303, 0x222, 0),
    (0x304, 0xaaa, 0),
    (0x305, ONES - 2, 0),
    (0x105, ONES - 2, 0),
    (0x306, 0xffff_ffff, 0),
    (0x106, 0xffff_ffff, 0),
    (0x30a, 0xe000_0000_0000_0001, 0),
    (0x10a, 1, 0),
    (0x320, 5, 0),
    (0x340, ONES, 0),
    (0x140, ONES, 0),
    (0x341, ONES - 1, 0),
    (0x141, ONES - 1, 0),
    (0x342, ONES, 0),
    (0x142, ONES, 0),
    (0x343, ONES, 0),
    (0x143, ONES, 0),
    (0x14d, ONES, 0),
    (0x344, 0x222, 0),
    // Nothing is delegated out of reset.
    (0x104, 0, 0),
    (0x144, 0, 0),
    // Mode 15 does not exist.
    (0x180, 0, 0),
    (0x323, 0, 0),
    (0x33f, 0, 0),
    (0xb03, 0, 0),
    (0xb1f, 0, 0),
    (0x7a0, 0, 0),
    (0x7a1, 0, 0),
    (0x7a2, 0, 0),
    (0x7a3, 0, 0),
    (0x3b0, (1 << 54) - 1, 0),
    (0x3bf, (1 << 54) - 1, 0),
    (0x3a0, 0x9f9f_9f9f_9f9f_9f9f, 0),
    (0x3a2, 0x9f9f_9f9f_9f9f_9f9f, 0),
];

#[test]
fn all_ones_and_zero() {
    for &(number, ones, zero) in AFTER_ONES_AND_ZERO {
        let mut hart = Hart::new(0);
        write(&mut hart, number, 0);
        assert_eq!(read(&mut hart, number), zero, "{number:#x} after zero");
        write(&mut hart, number, ONES);
        assert_eq!(read(&mut hart, number), ones, "{number:#x} after ones: {:#x}", read(&mut hart, number));
    }
}

#[test]
fn identity() {
    let mut hart = Hart::new(5);
    assert_eq!(read(&mut hart, 0xf14), 5);
    for number in [0xf11, 0xf12, 0xf13, 0xf15] {
        assert_eq!(read(&mut hart, number), 0);
    }
}

#[test]
fn previous_mode_keeps_its_value_when_the_reserved_one_is_written() {
    for old in [0, 1, 3] {
        let mut hart = Hart::new(0);
        write(&mut hart, 0x300, old << 11);
        write(&mut hart, 0x300, 2 << 11 | 1 << 3);
        assert_eq!(read(&mut hart, 0x300) & (3 << 11 | 1 << 3), old << 11 | 1 << 3);
    }
}

#[test]
fn sstatus_is_a_window_on_mstatus() {
    let mut hart = Hart::new(0);
    write(&mut hart, 0x300, 1 << 3 | 3 << 11 | 1 << 22);
    write(&mut hart, 0x100, ONES);
    assert_eq!(read(&mut hart, 0x300), 1 << 63 | 0xa_0000_0000 | 0x0c_6122 | 1 << 3 | 3 << 11 | 1 << 22);
    write(&mut hart, 0x100, 0);
    assert_eq!(read(&mut hart, 0x300), 0xa_0000_0000 | 1 << 3 | 3 << 11 | 1 << 22);
}

#[test]
fn satp_ignores_a_write_with_a_mode_that_is_not_offered() {
    let mut hart = Hart::new(0);
    for mode in 0..16 {
        let offered = [0, 8, 9, 10].contains(&mode);
        write(&mut hart, 0x180, 8 << 60 | 0x1234 << 44 | 0x8_0000);
        let value = mode << 60 | 0xffff << 44 | 0xfff_ffff_ffff;
        let effects = write(&mut hart, 0x180, value);
        let expected = match (mode, offered) {
            (0, _) => 0,
            (_, true) => value,
            (_, false) => 8 << 60 | 0x1234 << 44 | 0x8_0000,
        };
        assert_eq!(read(&mut hart, 0x180), expected, "mode {mode}");
        assert_eq!(effects.contains(CsrEffects::TRANSLATION), offered);
    }
}

#[test]
fn supervisor_interrupt_registers_show_what_is_delegated() {
    for mideleg in 0..8u64 {
        let mideleg = (mideleg & 1) << 1 | (mideleg & 2) << 4 | (mideleg & 4) << 7;
        let mut hart = Hart::new(0);
        write(&mut hart, 0x303, mideleg);
        write(&mut hart, 0x304, 0xaaa);
        write(&mut hart, 0x344, 0x222);
        assert_eq!(read(&mut hart, 0x104), mideleg);
        assert_eq!(read(&mut hart, 0x144), mideleg);
        write(&mut hart, 0x104, 0);
        assert_eq!(read(&mut hart, 0x304), 0xaaa & !mideleg, "sie writes what is delegated");
        write(&mut hart, 0x144, 0);
        assert_eq!(read(&mut hart, 0x344), 0x222 & !(mideleg & 2), "sip writes SSIP alone");
    }
}

#[test]
fn external_interrupt_is_line_or_software_bit_and_read_modify_write_sees_the_software_bit() {
    let line = Env { lines: 1 << 9 | 1 << 11 | 1 << 3 | 1 << 1, ..Env::default() };
    let mut hart = Hart::new(0);
    assert_eq!(read_in(&mut hart, 0x344, &line), 1 << 9 | 1 << 11 | 1 << 3, "SSIP has no line");
    // csrrs of another bit while the line is up must not latch SEIP.
    hart.csr_access(0x344, CsrOp::Set, 7, Some(1 << 1), &line).expect("mip");
    assert_eq!(hart.x[7], 1 << 9 | 1 << 11 | 1 << 3);
    assert_eq!(read(&mut hart, 0x344), 1 << 1);
    write(&mut hart, 0x344, 1 << 9);
    assert_eq!(read(&mut hart, 0x344), 1 << 9);
    hart.csr_access(0x344, CsrOp::Clear, 7, Some(1 << 9), &line).expect("mip");
    assert_eq!(read_in(&mut hart, 0x344, &line), 1 << 9 | 1 << 11 | 1 << 3, "the line is still up");
    assert_eq!(read(&mut hart, 0x344), 0);
}

#[test]
fn timers() {
    let mut hart = Hart::new(0);
    let at = |time, mtimecmp| Env { time, mtimecmp, lines: 0 };
    assert_eq!(hart.mip(&at(99, 100)), 0);
    assert_eq!(hart.mip(&at(100, 100)), 1 << 7);
    write(&mut hart, 0x14d, 50);
    assert_eq!(hart.mip(&at(60, 100)), 0, "stimecmp is off without STCE");
    write(&mut hart, 0x344, 1 << 5);
    assert_eq!(hart.mip(&at(60, 100)), 1 << 5, "STIP is machine mode's to write");
    let effects = write(&mut hart, 0x30a, 1 << 63);
    assert!(effects.contains(CsrEffects::TIMER | CsrEffects::INTERRUPTS));
    assert_eq!(hart.mip(&at(49, 100)), 0, "with STCE it is the comparison alone");
    assert_eq!(hart.mip(&at(50, 100)), 1 << 5);
    write(&mut hart, 0x344, 0);
    write(&mut hart, 0x344, 1 << 5);
    assert_eq!(hart.mip(&at(49, 100)), 0, "and read-only");
}

#[test]
fn written_counters_count_on_from_the_next_instruction() {
    for (number, shadow) in [(0xb00, 0xc00), (0xb02, 0xc02)] {
        let mut hart = Hart::new(0);
        hart.retired = 500;
        assert_eq!(read(&mut hart, number), 500);
        write(&mut hart, number, ONES);
        hart.retired += 1;
        assert_eq!(read(&mut hart, number), ONES, "the instruction after the write");
        hart.retired += 3;
        assert_eq!(read(&mut hart, shadow), 2, "wraps");
    }
}

#[test]
fn inhibited_counters_stand_still_and_take_writes() {
    for (number, bit) in [(0xb00, 1), (0xb02, 4)] {
        let mut hart = Hart::new(0);
        hart.retired = 100;
        write(&mut hart, 0x320, bit);
        hart.retired = 1000;
        assert_eq!(read(&mut hart, number), 101, "the write itself still counts");
        write(&mut hart, number, 7);
        hart.retired = 2000;
        assert_eq!(read(&mut hart, number), 7);
        write(&mut hart, 0x320, 0);
        hart.retired = 2003;
        assert_eq!(read(&mut hart, number), 9, "two instructions ran since");
        let other = if bit == 1 { 0xb02 } else { 0xb00 };
        assert_eq!(read(&mut hart, other), 2003, "the other one never stopped");
    }
}

#[test]
fn effects_name_what_to_look_at_again() {
    let none = CsrEffects::NONE;
    let (translation, interrupts) = (CsrEffects::TRANSLATION, CsrEffects::INTERRUPTS);
    let timer = CsrEffects::TIMER;
    let cases = [
        (0x300, 1 << 18, translation),
        (0x300, 1 << 19, translation),
        (0x300, 1 << 17, translation),
        (0x300, 1 << 11, translation),
        (0x300, 1 << 3, interrupts),
        (0x300, 1 << 1, interrupts),
        (0x300, 3 << 13, none),
        (0x300, 1 << 3 | 1 << 18, translation | interrupts),
        (0x100, 1 << 18, translation),
        (0x100, 1 << 1, interrupts),
        (0x304, 2, interrupts),
        (0x104, 2, interrupts),
        (0x344, 2, interrupts),
        (0x144, 2, interrupts),
        (0x303, 2, interrupts),
        (0x14d, 0, timer | interrupts),
        (0x30a, 1 << 61, translation),
        (0x30a, 1 << 62, translation),
        (0x30a, 1 << 63, timer | interrupts),
        (0x30a, 1, none),
        (0x180, 8 << 60, translation),
        (0x3a0, 0x1f, translation),
        (0x3b0, 1, translation),
        (0x340, 1, none),
        (0x305, 1, none),
    ];
    for (number, value, expected) in cases {
        let mut hart = Hart::new(0);
        assert_eq!(write(&mut hart, number, value), expected, "{number:#x} = {value:#x}");
    }
}

#[test]
fn a_mode_below_reads_what_machine_mode_wrote() {
    let mut hart = Hart::new(0);
    write(&mut hart, 0x306, 0b111);
    hart.privilege = Privilege::S;
    hart.retired = 12;
    let env = Env { time: 34, ..Env::default() };
    for (number, expected) in [(0xc00, 12), (0xc01, 34), (0xc02, 12)] {
        hart.csr_access(number, CsrOp::Set, 5, None, &env).expect("enabled");
        assert_eq!(hart.x[5], expected);
    }
}
