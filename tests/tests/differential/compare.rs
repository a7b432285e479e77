//! What both machines left, compared; what any implementation may leave differently is named here, with the reason.

use crate::case::{Case, Outcome, name};
use crate::known;
use crate::layout::result;
use quasar_cpu::csr::status;
use quasar_cpu::isa::{decode, disassemble};
use std::fmt::Write;

const BREAKPOINT: u64 = 3;

/// Makes equal what the specification leaves open.
fn mask(outcome: &mut Outcome) {
    // mstatus.FS: an implementation may call the state dirty without having looked whether it changed
    // (Privileged ISA, 3.1.6.6); Off is Off for all. SD follows.
    let value = outcome.get(result::MSTATUS) & !status::SD;
    let value = if value & status::FS == 0 { value } else { value | status::FS };
    outcome.set(result::MSTATUS, value);
    // A breakpoint's tval is zero or the instruction's address (Privileged ISA, 3.1.16).
    for (cause, tval) in [(result::MCAUSE, result::MTVAL), (result::SCAUSE, result::STVAL)] {
        if outcome.get(cause) == BREAKPOINT {
            outcome.set(tval, 0);
        }
    }
}

/// The doublewords in which two outcomes differ; empty when they agree.
#[must_use]
pub fn differences(case: &Case, qemu: &Outcome, quasar: &Outcome) -> Vec<usize> {
    if known::strays(case, qemu, quasar) {
        return vec![];
    }
    let (mut one, mut other) = (qemu.clone(), quasar.clone());
    mask(&mut one);
    mask(&mut other);
    known::forgive(case, &mut one, &other);
    (0..result::WORDS).filter(|&field| one.get(field) != other.get(field)).collect()
}

/// Everything that one needs to look into a difference.
#[must_use]
pub fn report(case: &Case, slot: usize, qemu: &Outcome, quasar: &Outcome, fields: &[usize]) -> String {
    let mut text = format!("{:?}-mode, code:\n", case.mode);
    let entry = case.entry(slot);
    let mut at = 0;
    // Writing to a string cannot fail.
    while at + 1 < case.code.len() {
        let half = |at: usize| u32::from(u16::from_le_bytes([case.code[at], case.code[at + 1]]));
        let upper = if at + 3 < case.code.len() { half(at + 2) << 16 } else { 0 };
        let inst = decode(half(at) | upper);
        let pc = entry + at as u64;
        let _ = writeln!(
            text,
            "  {pc:#x}: {} [{:#x}, {} bytes]",
            disassemble(&inst, pc),
            half(at) | upper,
            inst.len
        );
        at += usize::from(inst.len);
    }
    let _ = writeln!(text, "from: {}", inputs(case));
    let _ = writeln!(text, "{:>12} {:>18} {:>18}", "", "qemu", "quasar");
    let always = [result::MCAUSE, result::MEPC, result::MTVAL, result::SCAUSE, result::SEPC, result::STVAL];
    for field in always.iter().chain(fields.iter().filter(|field| !always.contains(field))) {
        let differs = if fields.contains(field) { "  <-" } else { "" };
        let (one, other) = (qemu.get(*field), quasar.get(*field));
        let _ = writeln!(text, "{:>12} {one:#18x} {other:#18x}{differs}", name(*field));
    }
    text
}

/// The state that the case starts from, without what is zero.
fn inputs(case: &Case) -> String {
    use crate::layout::case as c;
    let mut text = String::new();
    let single = [
        ("mstatus", c::MSTATUS),
        ("medeleg", c::MEDELEG),
        ("mideleg", c::MIDELEG),
        ("mie", c::MIE),
        ("mip", c::MIP),
        ("satp", c::SATP),
        ("fcsr", c::FCSR),
        ("mcounteren", c::MCOUNTEREN),
        ("scounteren", c::SCOUNTEREN),
        ("pmpcfg0", c::PMPCFG),
    ];
    let rows = [("pmpaddr", c::PMPADDR, 8), ("x", c::X, 32), ("f", c::F, 32)];
    let rows =
        rows.iter().flat_map(|&(name, start, len)| (0..len).map(move |n| (format!("{name}{n}"), start + n)));
    let tables = (0..crate::layout::PTES).map(|n| (format!("pte{n}"), c::PTE + n));
    let all = single.iter().map(|&(name, at)| (name.to_owned(), at)).chain(rows).chain(tables);
    for (name, at) in all {
        if case.get(at) != 0 {
            let _ = write!(text, "{name}={:#x} ", case.get(at));
        }
    }
    text
}
