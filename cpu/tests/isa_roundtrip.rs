//! The instruction list is consistent with itself: patterns are disjoint, decoding and encoding are inverses, and
//! every field arrives where `Inst` promises it.

use proptest::prelude::*;
use quasar_cpu::isa::{self, Extension, Imm, Inst, LIST, Mode, Op, Reg, csr, decode, disassemble, encode};

#[test]
fn patterns_are_disjoint() {
    for (at, one) in LIST.iter().enumerate() {
        for other in &LIST[at + 1..] {
            assert!(!one.pattern.overlaps(other.pattern), "{} and {} overlap", one.name, other.name);
        }
    }
}

/// Fixed bits, operands and ignored bits are the whole word, and no bit is two of them.
#[test]
fn every_bit_has_one_meaning() {
    for def in LIST {
        let shape = def.format.shape();
        let register = |reg, low: u32| if reg == Reg::None { 0 } else { 31_u32 << low };
        let fields = [
            def.pattern.mask,
            def.format.ignored_bits(),
            register(shape.rd, 7),
            register(shape.rs1, 15),
            register(shape.rs2, 20),
            register(shape.rs3, 27),
            match shape.mode {
                Mode::None => 0,
                Mode::Rounding => 7 << 12,
                Mode::Ordering => 3 << 25,
            },
            match shape.imm {
                Imm::None => 0,
                Imm::I | Imm::Unsigned => 0xfff0_0000,
                Imm::S | Imm::B => 0xfe00_0f80,
                Imm::U | Imm::J => 0xffff_f000,
                Imm::Shift6 => 0x03f0_0000,
                Imm::Shift5 => 0x01f0_0000,
            },
        ];
        let mut seen = 0;
        for field in fields {
            assert_eq!(seen & field, 0, "{}: a bit has two meanings", def.name);
            seen |= field;
        }
        assert_eq!(seen, u32::MAX, "{}: a bit has no meaning", def.name);
    }
}

#[test]
fn the_table_is_indexed_by_operation() {
    assert_eq!(Op::COUNT, LIST.len() + 1);
    assert!(Op::Illegal.def().is_none());
    for (at, def) in LIST.iter().enumerate() {
        assert_eq!(def.op as usize, at + 1);
        assert_eq!(def.op.def().map(|found| found.name), Some(def.name));
        assert_eq!(def.pattern.bits & !def.pattern.mask, 0);
        assert_eq!(def.pattern.bits & 3, 3, "{}: not a 32-bit encoding", def.name);
    }
}

/// `CamelCase` of the mnemonic is what engines rely on to find an operation.
#[test]
fn operations_are_named_after_their_mnemonics() {
    for def in LIST {
        let camel: String = def
            .name
            .split('.')
            .flat_map(|part| {
                part.chars().enumerate().map(|(at, c)| if at == 0 { c.to_ascii_uppercase() } else { c })
            })
            .collect();
        assert_eq!(format!("{:?}", def.op), camel);
    }
}

fn legal_word() -> impl Strategy<Value = (usize, u32)> {
    (0..LIST.len(), any::<u32>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn legal_words_round_trip((at, noise) in legal_word()) {
        let def = &LIST[at];
        let word = def.pattern.bits | noise & !def.pattern.mask;
        let inst = decode(word);
        prop_assert_eq!((inst.op, inst.len), (def.op, 4));
        prop_assert_eq!(encode(&inst), Some(word & !def.format.ignored_bits()));
    }

    #[test]
    fn any_word_decodes_to_what_encodes_back(word: u32) {
        let inst = decode(word);
        let text = disassemble(&inst, u64::from(word));
        prop_assert!(!text.is_empty());
        match inst.op.def() {
            None => {
                let raw = if inst.len == 2 { word & 0xffff } else { word };
                prop_assert_eq!(inst.imm, i64::from(raw));
                prop_assert_eq!(encode(&inst), None);
            }
            Some(def) => {
                let full = encode(&inst).expect("what was decoded can be encoded");
                prop_assert_eq!(decode(full), Inst { len: 4, ..inst });
                if inst.len == 4 {
                    prop_assert_eq!(full, word & !def.format.ignored_bits());
                }
            }
        }
    }
}

/// Sources: the bit diagrams of the specification, worked out by hand.
#[test]
fn fields_arrive_complete() {
    let inst = |op, rd, rs1, rs2, imm| Inst { op, rd, rs1, rs2, rs3: 0, rm: 0, len: 4, imm };
    assert_eq!(decode(0xfff5_8513), inst(Op::Addi, 10, 11, 0, -1));
    assert_eq!(decode(0x8000_0537), inst(Op::Lui, 10, 0, 0, -0x8000_0000));
    assert_eq!(decode(0x1234_5517), inst(Op::Auipc, 10, 0, 0, 0x1234_5000));
    assert_eq!(decode(0xffdf_f0ef), inst(Op::Jal, 1, 0, 0, -4));
    assert_eq!(decode(0x8000_006f), inst(Op::Jal, 0, 0, 0, -0x10_0000));
    assert_eq!(decode(0xfe00_0ee3), inst(Op::Beq, 0, 0, 0, -4));
    assert_eq!(decode(0x7eb5_1fe3), inst(Op::Bne, 0, 10, 11, 0xffe));
    assert_eq!(decode(0xfeb5_3c23), inst(Op::Sd, 0, 10, 11, -8));
    assert_eq!(decode(0x43f5_d513), inst(Op::Srai, 10, 11, 0, 63));
    assert_eq!(decode(0xc002_d573), inst(Op::Csrrwi, 10, 5, 0, 0xc00));
    assert_eq!(decode(0x8330_000f), inst(Op::Fence, 0, 0, 0, Inst::FENCE_TSO));
    assert_eq!(decode(0x0100_000f), inst(Op::Fence, 0, 0, 0, Inst::PAUSE));
    assert_eq!(decode(0x06b6_252f), Inst { rm: 3, ..inst(Op::AmoaddW, 10, 12, 11, 0) });
    assert_eq!(decode(0x68c5_f543), Inst { rs3: 13, rm: 7, ..inst(Op::FmaddS, 10, 11, 12, 0) });
    assert_eq!(decode(0xd230_5053), Inst { rm: 5, ..inst(Op::FcvtDLu, 0, 0, 0, 0) });
}

/// The assembler of the platform's binutils may be too old for Zicond; these words are from its specification.
#[test]
fn zicond_is_known() {
    assert_eq!(disassemble(&decode(0x0ec5_d533), 0), "czero.eqz a0,a1,a2");
    assert_eq!(disassemble(&decode(0x0ec5_f533), 0), "czero.nez a0,a1,a2");
}

#[test]
fn reserved_encodings_are_illegal() {
    let compressed =
        [0x0000, 0x0004, 0x2001, 0x6081, 0x6101, 0x8002, 0x4002, 0x6002, 0x8000, 0x9c41, 0x9c61, 0x6001];
    for half in compressed {
        assert_eq!(decode(half).op, Op::Illegal, "{half:#06x}");
        assert_eq!(decode(0xabcd_0000 | half).imm, i64::from(half), "the upper half isn't part of it");
    }
    // All ones; cbo.zero; slliw by 32; the RV32 form of zext.h; lr.w with rs2; an instruction longer than 32 bits.
    let full = [0xffff_ffff, 0x0040_200f, 0x0205_151b, 0x0800_4033, 0x1015_252f, 0x0000_001f];
    for word in full {
        assert_eq!(
            decode(word),
            Inst { op: Op::Illegal, rd: 0, rs1: 0, rs2: 0, rs3: 0, rm: 0, len: 4, imm: i64::from(word) }
        );
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let addi = decode(0x0015_0513);
    assert_eq!(encode(&addi), Some(0x0015_0513));
    for bad in [
        Inst { imm: 2048, ..addi },
        Inst { imm: -2049, ..addi },
        Inst { imm: 1 << 40, ..addi },
        Inst { rd: 32, ..addi },
        Inst { rs2: 1, ..addi },
        Inst { rm: 1, ..addi },
    ] {
        assert_eq!(encode(&bad), None, "{bad:?}");
    }
    let jump = decode(0xffdf_f0ef);
    assert_eq!(encode(&Inst { imm: 3, ..jump }), None, "odd");
    assert_eq!(encode(&Inst { imm: 0x10_0000, ..jump }), None, "far");
}

#[test]
fn blocks_end_where_execution_may_not_just_go_on() {
    let ends: Vec<&str> =
        LIST.iter().filter(|def| def.op.ends_block()).map(|def| def.op.mnemonic()).collect();
    let expected = "jal jalr beq bne blt bge bltu bgeu fence.i ecall ebreak sret mret wfi sfence.vma sinval.vma \
                    sfence.w.inval sfence.inval.ir csrrw csrrs csrrc csrrwi csrrsi csrrci";
    assert_eq!(ends.join(" "), expected);
    assert!(Op::Illegal.ends_block());
    assert!(!decode(0xc000_2573).ends_block(), "csrrs a0,cycle,zero only reads");
    assert!(decode(0x1000_a573).ends_block(), "csrrs a0,sstatus,ra writes");
    assert!(decode(0x1000_1573).ends_block(), "csrrw a0,sstatus,zero writes");
}

#[test]
fn extensions_have_their_instructions() {
    let count = |extension| LIST.iter().filter(|def| def.extension == extension).count();
    // From the specification's listings: RV32I + RV64I without fence.i and pause; M, A, F, D including RV64's own.
    let expected = [
        (Extension::I, 52),
        (Extension::M, 13),
        (Extension::A, 22),
        (Extension::F, 30),
        (Extension::D, 32),
        (Extension::Zicsr, 6),
        (Extension::Zifencei, 1),
        (Extension::Zba, 8),
        (Extension::Zbb, 24),
        (Extension::Zbs, 8),
        (Extension::Zicond, 2),
        (Extension::Svinval, 3),
        (Extension::Privileged, 4),
    ];
    for (extension, number) in expected {
        assert_eq!(count(extension), number, "{extension:?}");
    }
    assert_eq!(expected.iter().map(|(_, number)| number).sum::<usize>(), LIST.len());
}

#[test]
fn csr_names_and_numbers_are_one_to_one() {
    for (number, name) in csr::all() {
        assert!(number < 0x1000);
        assert_eq!(csr::name(number), Some(name));
        assert_eq!(csr::by_name(name), Some(number));
    }
    assert_eq!(csr::name(csr::MHPMEVENT31), Some("mhpmevent31"));
    assert_eq!(csr::name(csr::PMPADDR15), Some("pmpaddr15"));
    assert_eq!((csr::name(0x3c0), csr::by_name("nonsense")), (None, None));
    assert_eq!(
        (csr::privilege(csr::SATP), csr::privilege(csr::MHARTID), csr::privilege(csr::FRM)),
        (1, 3, 0)
    );
    assert!(csr::is_read_only(csr::TIME) && !csr::is_read_only(csr::MCYCLE));
    assert_eq!(isa::disassemble(&decode(0x14d5_1073), 0), "csrrw zero,stimecmp,a0");
}
