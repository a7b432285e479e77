//! Instructions as words, and programs with labels.

use quasar_cpu::isa::{Inst, Op, encode};

pub const ZERO: u8 = 0;
pub const RA: u8 = 1;
pub const SP: u8 = 2;
pub const T0: u8 = 5;
pub const T1: u8 = 6;
pub const T2: u8 = 7;
pub const A0: u8 = 10;
pub const A1: u8 = 11;
pub const A2: u8 = 12;
pub const A3: u8 = 13;
pub const A4: u8 = 14;
pub const A5: u8 = 15;
pub const T3: u8 = 28;
pub const T4: u8 = 29;
pub const T5: u8 = 30;
pub const T6: u8 = 31;

fn word(op: Op, rd: u8, rs1: u8, rs2: u8, imm: i64) -> u32 {
    let inst = Inst { op, rd, rs1, rs2, rs3: 0, rm: 0, len: 4, imm };
    encode(&inst).unwrap_or_else(|| panic!("no encoding: {inst:?}"))
}

/// `op rd, rs1, rs2`
pub fn r(op: Op, rd: u8, rs1: u8, rs2: u8) -> u32 {
    word(op, rd, rs1, rs2, 0)
}

/// `op rd, rs1, imm`; also loads, `jalr`, and CSR accesses with the number as immediate.
pub fn i(op: Op, rd: u8, rs1: u8, imm: i64) -> u32 {
    word(op, rd, rs1, 0, imm)
}

/// `op rs2, imm(rs1)`; also branches (`op rs1, rs2, offset`).
pub fn s(op: Op, rs1: u8, rs2: u8, imm: i64) -> u32 {
    word(op, 0, rs1, rs2, imm)
}

/// `op rd, imm`
pub fn u(op: Op, rd: u8, imm: i64) -> u32 {
    word(op, rd, 0, 0, imm)
}

/// No operands.
pub fn n(op: Op) -> u32 {
    word(op, 0, 0, 0, 0)
}

/// Any constant into a register, at the cost of `rd` alone.
pub fn li(rd: u8, value: u64) -> Vec<u32> {
    let mut code = vec![i(Op::Addi, rd, 0, 0)];
    for shift in (0..64).step_by(8).rev() {
        let byte = i64::try_from(value >> shift & 0xff).expect("a byte");
        code.push(i(Op::Slli, rd, rd, 8));
        code.push(i(Op::Ori, rd, rd, byte));
    }
    code
}

/// Ends the program: tohost gets the double of `register` plus 1. Clobbers t5 and t6.
pub fn exit(register: u8) -> Vec<u32> {
    let mut code = vec![i(Op::Slli, T5, register, 1), i(Op::Ori, T5, T5, 1)];
    code.extend(li(T6, super::TOHOST));
    code.extend([s(Op::Sd, T6, T5, 0), u(Op::Jal, 0, 0)]);
    code
}

/// Joins pieces.
pub fn program(pieces: &[&[u32]]) -> Vec<u32> {
    pieces.concat()
}
