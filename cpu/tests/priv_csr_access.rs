//! Who may read and write which CSR: every number, in every mode, against a table written from the specification.

mod priv_support;

use priv_support::{Env, MODES, read, write};
use quasar_cpu::csr::CsrOp;
use quasar_cpu::hart::{Hart, Privilege};
use quasar_cpu::isa::{Inst, Op, decode};
use quasar_cpu::trap::{Trap, cause};

/// The registers there are: first and last number, lowest mode, writable.
const TABLE: &[(u16, u16, Privilege, bool)] = &[
    (0x001, 0x003, Privilege::U, true),
    (0xc00, 0xc1f, Privilege::U, false),
    (0x100, 0x100, Privilege::S, true),
    (0x104, 0x106, Privilege::S, true),
    (0x10a, 0x10a, Privilege::S, true),
    (0x140, 0x144, Privilege::S, true),
    (0x14d, 0x14d, Privilege::S, true),
    (0x180, 0x180, Privilege::S, true),
    (0xf11, 0xf15, Privilege::M, false),
    (0x300, 0x306, Privilege::M, true),
    (0x30a, 0x30a, Privilege::M, true),
    (0x320, 0x320, Privilege::M, true),
    (0x323, 0x33f, Privilege::M, true),
    (0x340, 0x344, Privilege::M, true),
    (0x3a0, 0x3a0, Privilege::M, true),
    (0x3a2, 0x3a2, Privilege::M, true),
    (0x3b0, 0x3bf, Privilege::M, true),
    (0x7a0, 0x7a3, Privilege::M, true),
    (0xb00, 0xb00, Privilege::M, true),
    (0xb02, 0xb1f, Privilege::M, true),
];

fn expected(number: u16) -> Option<(Privilege, bool)> {
    let row = TABLE.iter().find(|(first, last, ..)| (*first..=*last).contains(&number))?;
    Some((row.2, row.3))
}

/// A hart in which nothing is switched off.
fn open_hart(mode: Privilege) -> Hart {
    let mut hart = Hart::new(3);
    hart.csr.mcounteren = u64::from(u32::MAX);
    hart.csr.scounteren = u64::from(u32::MAX);
    write(&mut hart, 0x30a, 1 << 63);
    write(&mut hart, 0x300, 3 << 13);
    hart.privilege = mode;
    hart
}

fn try_read(hart: &mut Hart, number: u16) -> bool {
    hart.csr_access(number, CsrOp::Set, 5, None, &Env::default()).is_some()
}

fn try_write(hart: &mut Hart, number: u16) -> bool {
    hart.csr_access(number, CsrOp::Write, 0, Some(0), &Env::default()).is_some()
}

#[test]
fn every_number_in_every_mode() {
    for mode in MODES {
        for number in 0..4096 {
            let (read, write) = match expected(number) {
                Some((lowest, writable)) => (mode >= lowest, mode >= lowest && writable),
                None => (false, false),
            };
            let hart = open_hart(mode);
            assert_eq!(try_read(&mut hart.clone(), number), read, "read {number:#x} in {mode:?}");
            assert_eq!(try_write(&mut hart.clone(), number), write, "write {number:#x} in {mode:?}");
        }
    }
}

#[test]
fn a_refused_access_changes_nothing_and_reports_its_encoding() {
    for (number, mode) in
        [(0x300u16, Privilege::S), (0xc00, Privilege::M), (0x015, Privilege::M), (0x180, Privilege::U)]
    {
        let word = u32::from(number) << 20 | 6 << 15 | 1 << 12 | 7 << 7 | 0x73;
        let mut hart = open_hart(mode);
        hart.x[6] = u64::MAX;
        hart.x[7] = 77;
        let before = hart.clone();
        let inst = decode(word);
        assert_eq!(inst.op, Op::Csrrw);
        let trap = hart.csr_instruction(&inst, &Env::default());
        assert_eq!(trap, Err(Trap { cause: cause::ILLEGAL_INSTRUCTION, tval: word.into() }), "{number:#x}");
        assert_eq!(hart, before);
    }
}

fn csr(op: Op, rd: u8, number: u16, rs1: u8) -> Inst {
    Inst { op, rd, rs1, rs2: 0, rs3: 0, rm: 0, len: 4, imm: number.into() }
}

#[test]
fn set_and_clear_with_x0_or_zero_do_not_write() {
    let env = Env::default();
    for op in [Op::Csrrs, Op::Csrrc, Op::Csrrsi, Op::Csrrci] {
        let mut hart = open_hart(Privilege::M);
        hart.retired = 41;
        assert!(hart.csr_instruction(&csr(op, 9, 0xc02, 0), &env).expect("reads").is_empty());
        assert_eq!(hart.x[9], 41);
        // A register whose value is zero does write, and so is refused.
        assert!(hart.csr_instruction(&csr(op, 9, 0xc02, 1), &env).is_err(), "{op:?}");
    }
    for op in [Op::Csrrw, Op::Csrrwi] {
        let mut hart = open_hart(Privilege::M);
        assert!(hart.csr_instruction(&csr(op, 9, 0xc02, 0), &env).is_err(), "{op:?}");
    }
}

#[test]
fn operations_combine_old_value_and_source_and_return_the_old() {
    let env = Env::default();
    let cases = [
        (Op::Csrrw, 0x0ff0, 0x0ff0),
        (Op::Csrrs, 0x0ff0, 0xfff0),
        (Op::Csrrc, 0x0ff0, 0xf000),
        (Op::Csrrwi, 21, 21),
        (Op::Csrrsi, 21, 0xff15),
        (Op::Csrrci, 21, 0xff00),
    ];
    for (op, source, expected) in cases {
        let mut hart = open_hart(Privilege::S);
        hart.csr.sscratch = 0xff00;
        hart.x[21] = source;
        // Register forms read x21, immediate forms hold 21. rd may be rs1: the source is read first.
        hart.csr_instruction(&csr(op, 21, 0x140, 21), &env).expect("sscratch");
        assert_eq!(hart.csr.sscratch, expected, "{op:?}");
        assert_eq!(hart.x[21], 0xff00, "{op:?}");
        hart.csr_instruction(&csr(op, 0, 0x140, 21), &env).expect("sscratch");
        assert_eq!(hart.x[0], 0);
    }
}

#[test]
fn floating_point_registers_need_the_unit_on() {
    for number in 1..=3 {
        for mode in MODES {
            let mut hart = open_hart(mode);
            hart.csr.mstatus &= !(3 << 13);
            assert!(!try_read(&mut hart, number) && !try_write(&mut hart, number), "{number} in {mode:?}");
            hart.csr.mstatus |= 1 << 13;
            assert!(try_read(&mut hart, number));
            assert_eq!(hart.csr.mstatus >> 13 & 3, 1, "reading does not dirty");
            assert!(try_write(&mut hart, number));
            assert_eq!(hart.csr.mstatus >> 13 & 3, 3, "writing does");
        }
    }
    let mut hart = open_hart(Privilege::M);
    write(&mut hart, 3, 0xffff_ff00 | 0b101_10101);
    assert_eq!((hart.frm, hart.fflags), (5, 0b10101));
    assert_eq!((read(&mut hart, 1), read(&mut hart, 2), read(&mut hart, 3)), (0b10101, 5, 0b101_10101));
    write(&mut hart, 2, 0xfa);
    write(&mut hart, 1, 0x1e2);
    assert_eq!(read(&mut hart, 3), 0b010_00010);
}

#[test]
fn counters_need_the_enables_of_every_mode_above() {
    for index in 0..32 {
        let number = 0xc00 + index;
        for (machine, supervisor) in [(false, false), (false, true), (true, false), (true, true)] {
            for mode in MODES {
                let mut hart = open_hart(mode);
                hart.csr.mcounteren = u64::from(machine) << index;
                hart.csr.scounteren = u64::from(supervisor) << index;
                let allowed = match mode {
                    Privilege::M => true,
                    Privilege::S => machine,
                    Privilege::U => machine && supervisor,
                };
                assert_eq!(
                    try_read(&mut hart, number),
                    allowed,
                    "{number:#x} {mode:?} {machine} {supervisor}"
                );
            }
        }
    }
}

#[test]
fn satp_traps_under_tvm() {
    let mut hart = open_hart(Privilege::S);
    hart.csr.mstatus |= 1 << 20;
    assert!(!try_read(&mut hart, 0x180) && !try_write(&mut hart, 0x180));
    hart.privilege = Privilege::M;
    assert!(try_read(&mut hart, 0x180) && try_write(&mut hart, 0x180));
}

#[test]
fn stimecmp_needs_stce_and_tm_below_machine_mode() {
    for (stce, tm) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut hart = open_hart(Privilege::S);
        hart.csr.menvcfg = u64::from(stce) << 63;
        hart.csr.mcounteren = u64::from(tm) << 1;
        assert_eq!(try_write(&mut hart, 0x14d), stce && tm, "{stce} {tm}");
        assert_eq!(try_read(&mut hart, 0x14d), stce && tm, "{stce} {tm}");
        hart.privilege = Privilege::M;
        assert!(try_read(&mut hart, 0x14d));
    }
}
