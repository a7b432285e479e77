//! What both machines left, compared; what they may legally leave differently is named here, with the reason.

use crate::case::{Case, Outcome, name};
use crate::layout::{DATA_WORDS, PTES, result};
use quasar_cpu::csr::status;
use quasar_cpu::isa::{decode, disassemble};
use std::fmt::Write;

const BREAKPOINT: u64 = 3;
const ILLEGAL: u64 = 2;
const MRET: u64 = 0x3020_0073;
const SFENCE_W_INVAL: u64 = 0x1800_0073;
const SFENCE_INVAL_IR: u64 = 0x1810_0073;
/// mcause and scause of software and external interrupts of S-mode.
const SOFTWARE: u64 = 1 << 63 | 1;
const FETCH_ACCESS: u64 = 1;
const LOAD_ACCESS: u64 = 5;
const STORE_ACCESS: u64 = 7;
/// Where QEMU's machine has a window to PCI, in which nothing faults.
const PCI: std::ops::Range<u64> = 0x4000_0000..0x8000_0000;
const EXTERNAL: u64 = 1 << 63 | 9;

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

/// Whether QEMU marked a page as accessed or dirty where this machine had an access fault. QEMU does not ask PMP whether
/// the entry may be written, nor, before it writes it, whether the access itself is allowed (Privileged ISA, 3.7.2).
fn marks_unasked(qemu: &Outcome, quasar: &Outcome) -> bool {
    const MARKS: u64 = 0xc0;
    let faults = [result::MCAUSE, result::SCAUSE].map(|cause| quasar.get(cause));
    let fault = faults.iter().any(|cause| matches!(*cause, FETCH_ACCESS | LOAD_ACCESS | STORE_ACCESS));
    let entries = (result::PTE..result::PTE + PTES).map(|at| (qemu.get(at), quasar.get(at)));
    fault && entries.into_iter().any(|(theirs, ours)| theirs != ours && theirs & !MARKS == ours & !MARKS)
}

/// Whether a store whose second page refused it left its bytes on the first page in QEMU, and nothing here.
fn stores_in_part(fields: &[usize], quasar: &Outcome) -> bool {
    let traps = [(result::MCAUSE, result::MTVAL), (result::SCAUSE, result::STVAL)];
    let at_a_page = |&(cause, tval): &(usize, usize)| {
        quasar.get(cause) == STORE_ACCESS && quasar.get(tval).is_multiple_of(4096)
    };
    let data = result::DATA..result::DATA + DATA_WORDS;
    traps.iter().any(at_a_page) && fields.iter().all(|field| data.contains(field))
}

/// Whether QEMU, or its machine, went another way early in the case, so that nothing after that can be compared.
fn qemu_strays(qemu: &Outcome, quasar: &Outcome) -> bool {
    let mstatus = quasar.get(result::MSTATUS);
    let physical = mstatus & status::MPP == status::MPP && mstatus & status::MPRV == 0;
    let access = matches!(quasar.get(result::MCAUSE), LOAD_ACCESS | STORE_ACCESS);
    if physical && access && PCI.contains(&quasar.get(result::MTVAL)) {
        return true;
    }
    let from_user = [mstatus & status::MPP == 0, mstatus & status::SPP == 0];
    let traps = [(result::MCAUSE, result::MTVAL), (result::SCAUSE, result::STVAL)];
    // QEMU keeps bit 0 of what is written to mepc and sepc, and goes there (3.1.14: it is always zero).
    if [result::MEPC, result::SEPC].iter().any(|&epc| qemu.get(epc) ^ quasar.get(epc) == 1) {
        return true;
    }
    traps.iter().zip(from_user).any(|(&(cause, tval), from_user)| {
        // QEMU executes these two in U-mode, where they are illegal (Privileged ISA, 12.3: Svinval).
        let fence =
            quasar.get(cause) == ILLEGAL && matches!(quasar.get(tval), SFENCE_W_INVAL | SFENCE_INVAL_IR);
        // Of two pending interrupts QEMU takes the one of the lower number; SEI comes before SSI (3.1.9).
        let order = quasar.get(cause) == EXTERNAL && qemu.get(cause) == SOFTWARE;
        // Misaligned accesses may be taken apart before PMP looks at them (3.7.1): QEMU does that, and asks about the
        // page behind a boundary first.
        let access = matches!(quasar.get(cause), LOAD_ACCESS | STORE_ACCESS);
        let same = qemu.get(cause) == quasar.get(cause) && qemu.get(tval) == quasar.get(tval);
        let split = access && quasar.get(tval) & 7 != 0 && !same;
        fence && from_user || order || split
    })
}

/// The doublewords in which two outcomes differ; empty when they agree.
#[must_use]
pub fn differences(qemu: &Outcome, quasar: &Outcome) -> Vec<usize> {
    if qemu_strays(qemu, quasar) || marks_unasked(qemu, quasar) {
        return vec![];
    }
    let (mut one, mut other) = (qemu.clone(), quasar.clone());
    mask(&mut one);
    mask(&mut other);
    // QEMU's mret below M-mode traps as it must, with the encoding of whatever instruction trapped before as tval.
    for (cause, tval) in [(result::MCAUSE, result::MTVAL), (result::SCAUSE, result::STVAL)] {
        if one.get(cause) == ILLEGAL && other.get(tval) == MRET {
            one.set(tval, MRET);
        }
    }
    // The same of what was read from mstatus or sstatus.
    for field in result::X..result::X + 32 {
        let (theirs, ours) = (one.get(field), other.get(field));
        let but_dirty = !(status::FS | status::SD);
        if theirs & but_dirty == ours & but_dirty && theirs & status::FS != 0 && ours & status::FS != 0 {
            other.set(field, theirs);
        }
    }
    let fields: Vec<usize> = (0..result::WORDS).filter(|&field| one.get(field) != other.get(field)).collect();
    if stores_in_part(&fields, quasar) { vec![] } else { fields }
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
