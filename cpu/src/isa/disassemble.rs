//! From [`Inst`] to text, in the manner of binutils with `-M no-aliases`.

use super::{Format, Inst, Op, csr};

const X: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6",
    "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
];
const F: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4",
    "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8",
    "ft9", "ft10", "ft11",
];

fn x(register: u8) -> &'static str {
    X[usize::from(register & 31)]
}

fn f(register: u8) -> &'static str {
    F[usize::from(register & 31)]
}

/// The text of `inst` at address `pc` (for branch targets). Compressed instructions are shown expanded.
#[must_use]
pub fn disassemble(inst: &Inst, pc: u64) -> String {
    let Some(def) = inst.op.def() else {
        return if inst.len == 2 {
            format!(".2byte {:#x}", inst.imm)
        } else {
            format!(".4byte {:#x}", inst.imm)
        };
    };
    let &Inst { rd, rs1, rs2, rs3, imm, .. } = inst;
    let target = pc.wrapping_add_signed(imm);
    let operands = match def.format {
        Format::Nullary | Format::FenceI => String::new(),
        Format::R => format!("{},{},{}", x(rd), x(rs1), x(rs2)),
        Format::Unary => format!("{},{}", x(rd), x(rs1)),
        Format::I => format!("{},{},{imm}", x(rd), x(rs1)),
        Format::Shift6 | Format::Shift5 => format!("{},{},{imm:#x}", x(rd), x(rs1)),
        Format::Load | Format::Jalr => format!("{},{imm}({})", x(rd), x(rs1)),
        Format::Store => format!("{},{imm}({})", x(rs2), x(rs1)),
        Format::Branch => format!("{},{},{target:#x}", x(rs1), x(rs2)),
        Format::U => format!("{},{:#x}", x(rd), imm >> 12 & 0xf_ffff),
        Format::J => format!("{},{target:#x}", x(rd)),
        Format::Fence => return fence(imm),
        Format::Vma => format!("{},{}", x(rs1), x(rs2)),
        Format::Csr => format!("{},{},{}", x(rd), csr_text(imm), x(rs1)),
        Format::CsrImm => format!("{},{},{rs1}", x(rd), csr_text(imm)),
        Format::LoadReserved => format!("{},({})", x(rd), x(rs1)),
        Format::Atomic => format!("{},{},({})", x(rd), x(rs2), x(rs1)),
        Format::FloatLoad => format!("{},{imm}({})", f(rd), x(rs1)),
        Format::FloatStore => format!("{},{imm}({})", f(rs2), x(rs1)),
        Format::FloatFma => format!("{},{},{},{}{}", f(rd), f(rs1), f(rs2), f(rs3), rounding(inst)),
        Format::FloatArith => format!("{},{},{}{}", f(rd), f(rs1), f(rs2), rounding(inst)),
        Format::FloatBinary => format!("{},{},{}", f(rd), f(rs1), f(rs2)),
        Format::FloatUnary => format!("{},{}{}", f(rd), f(rs1), rounding(inst)),
        Format::FloatCompare => format!("{},{},{}", x(rd), f(rs1), f(rs2)),
        Format::FloatToInt => format!("{},{}{}", x(rd), f(rs1), rounding(inst)),
        Format::IntToFloat => format!("{},{}{}", f(rd), x(rs1), rounding(inst)),
        Format::FloatMoveToInt => format!("{},{}", x(rd), f(rs1)),
        Format::IntMoveToFloat => format!("{},{}", f(rd), x(rs1)),
    };
    let ordering = match (def.format, inst.rm & 3) {
        (Format::LoadReserved | Format::Atomic, 1) => ".rl",
        (Format::LoadReserved | Format::Atomic, 2) => ".aq",
        (Format::LoadReserved | Format::Atomic, 3) => ".aqrl",
        _ => "",
    };
    let separator = if operands.is_empty() { "" } else { " " };
    format!("{}{ordering}{separator}{operands}", def.name)
}

/// The name of a CSR, or its number.
fn csr_text(number: i64) -> String {
    u16::try_from(number).ok().and_then(csr::name).map_or_else(|| format!("{number:#x}"), str::to_owned)
}

/// `fence` has names for two of its encodings.
fn fence(imm: i64) -> String {
    let set = |bits: i64| -> String {
        let letters: String = [(8, 'i'), (4, 'o'), (2, 'r'), (1, 'w')]
            .iter()
            .filter(|(bit, _)| bits & bit != 0)
            .map(|(_, c)| c)
            .collect();
        if letters.is_empty() { "0".to_owned() } else { letters }
    };
    match imm {
        Inst::PAUSE => "pause".to_owned(),
        Inst::FENCE_TSO => "fence.tso".to_owned(),
        _ => format!("fence {},{}", set(imm >> 4), set(imm)),
    }
}

/// The rounding mode as an operand: none for the dynamic one, nor for widening conversions that are always exact.
fn rounding(inst: &Inst) -> &'static str {
    let exact = matches!(inst.op, Op::FcvtDS | Op::FcvtDW | Op::FcvtDWu);
    match inst.rm & 7 {
        0 if exact => "",
        0 => ",rne",
        1 => ",rtz",
        2 => ",rdn",
        3 => ",rup",
        4 => ",rmm",
        7 => "",
        _ => ",unknown",
    }
}
