//! Where QEMU is known to leave the specification, or goes another way that it leaves open: each with its reason,
//! and recognised by nothing wider than what shows it.

use crate::case::{Case, Outcome};
use crate::layout::{DATA, DATA_WORDS, PTES, SMALL_PTES, TABLES, case as given, result};
use quasar_cpu::csr::status;
use quasar_cpu::isa::{Op, csr as n, decode};

const FETCH_ACCESS: u64 = 1;
const ILLEGAL: u64 = 2;
const LOAD_ACCESS: u64 = 5;
const STORE_ACCESS: u64 = 7;
const SOFTWARE: u64 = 1 << 63 | 1;
const EXTERNAL: u64 = 1 << 63 | 9;

const MRET: u64 = 0x3020_0073;
const SFENCE_W_INVAL: u64 = 0x1800_0073;
const SFENCE_INVAL_IR: u64 = 0x1810_0073;
/// A and D of a page table entry.
const MARKS: u64 = 0xc0;
/// The registers of M-mode's and of S-mode's traps.
const TRAPS: [(usize, usize); 2] = [(result::MCAUSE, result::MTVAL), (result::SCAUSE, result::STVAL)];

/// Whether QEMU went another way in the middle of the case, so that nothing after that can be compared.
#[must_use]
pub fn strays(case: &Case, qemu: &Outcome, quasar: &Outcome) -> bool {
    keeps_odd(qemu, quasar)
        || fences_for_users(quasar)
        || takes_the_lower(qemu, quasar)
        || !same_trap(qemu, quasar)
            && (looks_at_ends(case, quasar)
                || splits(case, quasar)
                || writes_protected_entries(case, quasar)
                || reads_tables_nowhere(case, quasar))
}

/// Makes equal what shows a known difference and nothing else, in what QEMU left.
pub fn forgive(case: &Case, qemu: &mut Outcome, quasar: &Outcome) {
    // Its mret below M-mode traps as it must, with the encoding of whatever instruction trapped before as tval.
    for (cause, tval) in TRAPS {
        if qemu.get(cause) == ILLEGAL && quasar.get(cause) == ILLEGAL && quasar.get(tval) == MRET {
            qemu.set(tval, MRET);
        }
    }
    if same_trap(qemu, quasar) {
        marks_first(qemu, quasar);
        stores_in_part(qemu, quasar);
    }
    if reads_status(case) {
        // mstatus.FS as `compare` treats it, in a register that it was read to.
        for field in result::X..result::X + 32 {
            let (theirs, ours) = (qemu.get(field), quasar.get(field));
            let others = !(status::FS | status::SD);
            if theirs & others == ours & others && theirs & status::FS != 0 && ours & status::FS != 0 {
                qemu.set(field, ours);
            }
        }
    }
}

/// It keeps bit 0 of what is written to mepc and sepc, and goes there (Privileged ISA, 3.1.14: always zero).
fn keeps_odd(qemu: &Outcome, quasar: &Outcome) -> bool {
    [result::MEPC, result::SEPC].iter().any(|&epc| qemu.get(epc) ^ quasar.get(epc) == 1)
}

/// It executes SFENCE.W.INVAL and SFENCE.INVAL.IR in U-mode, where they are illegal (Privileged ISA, Svinval).
fn fences_for_users(quasar: &Outcome) -> bool {
    let mstatus = quasar.get(result::MSTATUS);
    let from_user = [mstatus & status::MPP == 0, mstatus & status::SPP == 0];
    TRAPS.iter().zip(from_user).any(|(&(cause, tval), from_user)| {
        from_user
            && quasar.get(cause) == ILLEGAL
            && matches!(quasar.get(tval), SFENCE_W_INVAL | SFENCE_INVAL_IR)
    })
}

/// Of two pending interrupts it takes the one of the lower number; SEI comes before SSI (Privileged ISA, 3.1.9).
fn takes_the_lower(qemu: &Outcome, quasar: &Outcome) -> bool {
    TRAPS.iter().any(|&(cause, _)| quasar.get(cause) == EXTERNAL && qemu.get(cause) == SOFTWARE)
}

/// It asks PMP about the first and the last byte of an access; an entry of four bytes between them, which should
/// refuse it (Privileged ISA, 3.7.1: a matching entry must match all bytes), goes unseen.
fn looks_at_ends(case: &Case, quasar: &Outcome) -> bool {
    data_access_fault(quasar).is_some_and(|address| {
        // Within a page: the address may be a virtual one.
        regions(case)
            .any(|(start, end)| end - start == 4 && (1..=3).contains(&(start.wrapping_sub(address) & 0xfff)))
    })
}

/// It translates both pages of an access that crosses their boundary before it asks PMP, about each by itself, or
/// looks what is at the first, as it may (Privileged ISA, 3.7.1; the order of a misaligned access's parts is open).
fn splits(case: &Case, quasar: &Outcome) -> bool {
    let crosses = data_access_fault(quasar).is_some_and(|address| address & 0xfff > 0xff8);
    crosses && (case.get(given::SATP) != 0 || regions(case).next().is_some())
}

/// It does not ask PMP whether the page table entry that it marks may be written (Privileged ISA, 3.7.2).
fn writes_protected_entries(case: &Case, quasar: &Outcome) -> bool {
    access_fault(quasar)
        && case.get(given::SATP) != 0
        && regions(case).any(|(start, end)| start < DATA && end > TABLES)
}

/// It calls a page fault what is an access fault (Privileged ISA, Sv39, step 2 of the translation): a page table that
/// is not in RAM. Random data makes such a pointer where an entry of an upper table has no rights.
fn reads_tables_nowhere(case: &Case, quasar: &Outcome) -> bool {
    let mut upper = (given::PTE + SMALL_PTES..given::PTE + PTES).map(|at| case.get(at));
    let is_data = |entry: u64| entry & 0xf == 1 && (entry << 2 & !0xfff) >= DATA;
    access_fault(quasar) && case.get(given::SATP) != 0 && upper.any(is_data)
}

/// It marks a page as accessed or dirty before PMP refuses the access itself.
fn marks_first(qemu: &mut Outcome, quasar: &Outcome) {
    let fault = access_fault(quasar);
    for field in result::PTE..result::PTE + PTES {
        let (theirs, ours) = (qemu.get(field), quasar.get(field));
        // More marks, never fewer.
        if fault && theirs & !MARKS == ours & !MARKS && theirs & ours == ours {
            qemu.set(field, ours);
        }
    }
}

/// Of a store whose second page refused it, it has left the bytes on the first page.
fn stores_in_part(qemu: &mut Outcome, quasar: &Outcome) {
    let at_a_page =
        |&(cause, tval): &(usize, usize)| quasar.get(cause) == STORE_ACCESS && quasar.get(tval) & 0xfff == 0;
    if TRAPS.iter().any(at_a_page) {
        for field in result::DATA..result::DATA + DATA_WORDS {
            qemu.set(field, quasar.get(field));
        }
    }
}

fn same_trap(qemu: &Outcome, quasar: &Outcome) -> bool {
    [result::MCAUSE, result::MTVAL, result::SCAUSE, result::STVAL]
        .iter()
        .all(|&field| qemu.get(field) == quasar.get(field))
}

fn access_fault(quasar: &Outcome) -> bool {
    let faults = [FETCH_ACCESS, LOAD_ACCESS, STORE_ACCESS];
    TRAPS.iter().any(|&(cause, _)| faults.contains(&quasar.get(cause)))
}

/// The address of an access fault of a load or a store.
fn data_access_fault(quasar: &Outcome) -> Option<u64> {
    let fault = |&&(cause, _): &&(usize, usize)| matches!(quasar.get(cause), LOAD_ACCESS | STORE_ACCESS);
    TRAPS.iter().find(fault).map(|&(_, tval)| quasar.get(tval))
}

/// First byte, and the byte after the last, of each PMP entry but the one for everything.
fn regions(case: &Case) -> impl Iterator<Item = (u64, u64)> {
    (0..7).filter_map(|entry| {
        let address = case.get(given::PMPADDR + entry);
        let below = entry.checked_sub(1).map_or(0, |below| case.get(given::PMPADDR + below));
        match case.get(given::PMPCFG) >> (8 * entry + 3) & 3 {
            1 if below < address => Some((below << 2, address << 2)),
            2 => Some((address << 2, (address + 1) << 2)),
            3 => {
                // As many ones below a zero as there are doublings of eight bytes.
                let size = 8 << address.trailing_ones();
                let start = address << 2 & !(size - 1);
                Some((start, start + size))
            }
            _ => None,
        }
    })
}

/// Whether an instruction of the case accesses mstatus or sstatus.
fn reads_status(case: &Case) -> bool {
    let mut at = 0;
    while let Some(bytes) = case.code.get(at..at + 4) {
        let inst = decode(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        let access =
            matches!(inst.op, Op::Csrrw | Op::Csrrs | Op::Csrrc | Op::Csrrwi | Op::Csrrsi | Op::Csrrci);
        if access && [n::MSTATUS, n::SSTATUS].map(i64::from).contains(&inst.imm) {
            return true;
        }
        at += usize::from(inst.len);
    }
    false
}
