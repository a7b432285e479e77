//! Programs that fault without end cost what they execute, not a question to another process each time; and what a
//! hart remembers of refusals is never out of date.

mod engine_support;

use engine_support::asm::*;
use engine_support::paging::*;
use engine_support::{Machine, until};
use quasar_abi::machine::{RAM_BASE, UART};
use quasar_abi::vm::{pause, request};
use quasar_cpu::isa::{Op, csr};
use quasar_cpu::trap::cause;
use std::sync::atomic::Ordering;

/// Enough that a question for each fault would show.
const LIMIT: u64 = 20_000;
/// Questions that a program's few pages and one refusal of each kind may cost.
const FEW: u64 = 24;
/// Code that S-mode may execute, in a page of its own.
const FAR: u64 = RAM_BASE + 0x4_0000;

/// Sets the vector of the mode that the hart starts in.
fn vector(number: u16, handler: u64) -> Vec<u32> {
    program(&[&li(T0, handler), &[i(Op::Csrrw, ZERO, T0, number.into())]])
}

/// Returns behind what faulted (S-mode).
fn skip() -> [u32; 4] {
    [
        i(Op::Csrrs, T0, ZERO, csr::SEPC.into()),
        i(Op::Addi, T0, T0, 4),
        i(Op::Csrrw, ZERO, T0, csr::SEPC.into()),
        n(Op::Sret),
    ]
}

/// The machine comes to the limit, to the instruction, and has asked and decoded little.
fn ends_cheaply(what: &str, mut machine: Machine) {
    machine.vm.instruction_limit.set(LIMIT);
    machine.run();
    assert_eq!(machine.vm.pause_mask.load(Ordering::SeqCst), pause::LIMIT, "{what}");
    let counters = &machine.vm.counters[0];
    let (trapped, retired) = (counters.exceptions.get(), machine.state(0).retired.get());
    assert_eq!(trapped + retired, LIMIT, "{what}");
    assert!(trapped > LIMIT / 10, "{what}: it was to fault all the time, and did {trapped} times");
    let asked = counters.mmu_requests.get();
    assert!(asked <= FEW, "{what}: {asked} questions to the mmu for {trapped} faults");
    let decoded = counters.blocks_decoded.get();
    assert!(decoded <= FEW, "{what}: {decoded} blocks decoded");
    assert_eq!(counters.tlb_flushes.get(), 0, "{what}");
}

#[test]
fn handlers_of_m_mode_that_fault_themselves() {
    let nowhere = [("nothing is there", 0), ("a device is there", UART.base), ("beyond all memory", !0xfff)];
    for (what, handler) in nowhere {
        ends_cheaply(what, Machine::with(&program(&[&vector(csr::MTVEC, handler), &[0]])));
    }
    let traps = [("illegal", 0), ("ecall", n(Op::Ecall)), ("ebreak", n(Op::Ebreak))];
    for (what, instruction) in traps {
        let machine = Machine::with(&vector(csr::MTVEC, FAR));
        machine.put(FAR, &[instruction]);
        machine.put(RAM_BASE + 4 * vector(csr::MTVEC, FAR).len() as u64, &[instruction]);
        ends_cheaply(what, machine);
    }
    let load = i(Op::Ld, T1, ZERO, 0);
    for (what, instruction) in [("load", load), ("store", s(Op::Sd, ZERO, T1, 0))] {
        let machine = Machine::with(&program(&[&vector(csr::MTVEC, FAR), &[instruction]]));
        machine.put(FAR, &[instruction]);
        ends_cheaply(what, machine);
    }
}

#[test]
fn faults_of_s_and_u_mode_with_and_without_paging() {
    let unmapped = WINDOW + 0x3000;
    // The handler itself cannot be fetched; or can, and faults; or returns behind the fault, or to it.
    let body = |handler| program(&[&li(A1, unmapped), &vector(csr::STVEC, handler)]);
    let again = program(&[&[i(Op::Ld, T1, A1, 0), u(Op::Jal, ZERO, -4)]]);
    for privilege in [1, 0] {
        for paged in [true, false] {
            let with = |handler, code: &[u32], instruction: &[u32]| {
                let machine = supervisor(&program(&[&body(handler), instruction]));
                machine.put(FAR, code);
                if !paged {
                    machine.state(0).satp.set(0);
                }
                machine
            };
            let named = |what: &str| format!("{what}, privilege {privilege}, paged {paged}");
            if privilege == 1 {
                ends_cheaply(&named("no handler"), with(unmapped, &[], &[0]));
                ends_cheaply(&named("the handler loads"), with(FAR, &again, &again));
                ends_cheaply(&named("it goes on behind"), with(FAR, &skip(), &again));
                ends_cheaply(&named("it goes on there"), with(FAR, &[n(Op::Sret)], &again));
                continue;
            }
            // U-mode's code is the machine's own, through the window; the handler is S-mode's.
            let machine = with(FAR, &[n(Op::Sret)], &[]);
            machine.put(FAR + 0x1000, &again);
            let entry = if paged { WINDOW } else { FAR + 0x1000 };
            map(&machine, 0, FAR + 0x1000, RWX | AD | USER);
            let state = machine.state(0);
            state.stvec.set(FAR);
            state.pc.set(entry);
            state.x[usize::from(A1)].set(unmapped);
            state.privilege.set(0);
            ends_cheaply(&named("user code"), machine);
        }
    }
}

#[test]
fn pmp_that_denies_a_page_or_a_part_of_it() {
    // Of FAR's page the first half belongs to nobody but M-mode; then all of it.
    for (what, half) in [("a part", 0x1ff), ("a page", 0x1ff + 0x200)] {
        let machine = supervisor(&program(&[&vector(csr::STVEC, FAR), &[0]]));
        let state = machine.state(0);
        state.satp.set(0);
        state.pmpaddr[0].set(FAR >> 2 | half >> 1);
        state.pmpaddr[1].set((1 << 54) - 1);
        state.pmpcfg[0].set(0x1f18);
        ends_cheaply(what, machine);
    }
}

/// The mmu process checks by what the hart has told it, from the state taken up and from then on.
#[test]
fn the_mmu_is_told_pmp_when_a_state_is_taken_up_and_when_the_guest_changes_it() {
    let code = program(&[
        &li(T0, 0x1234),
        &[i(Op::Csrrw, ZERO, T0, csr::PMPADDR0.into())],
        &li(T0, 0x18),
        &[i(Op::Csrrs, ZERO, T0, csr::PMPCFG0.into())],
        &exit(ZERO),
    ]);
    let mut machine = Machine::with(&code);
    let state = machine.state(0);
    state.pmpaddr[7].set(0x77);
    state.pmpcfg[1].set(0x0f);
    machine.run();
    let told = &machine.vm.pmp[0];
    assert_eq!((told.addr[0].get(), told.addr[7].get()), (0x1234, 0x77));
    assert_eq!((told.cfg[0].get(), told.cfg[1].get()), (0x18, 0x0f));
}

#[test]
fn code_in_a_page_that_pmp_splits_asks_for_each_instruction_once() {
    let machine = supervisor(&[]);
    machine.put(FAR + 0x800, &[i(Op::Addi, T0, T0, 1), i(Op::Addi, T0, T0, 1), u(Op::Jal, ZERO, -8)]);
    let state = machine.state(0);
    state.satp.set(0);
    state.pc.set(FAR + 0x800);
    state.pmpaddr[0].set(FAR >> 2 | 0x1ff >> 1);
    state.pmpaddr[1].set((1 << 54) - 1);
    state.pmpcfg[0].set(0x1f18);
    let mut machine = machine;
    machine.vm.instruction_limit.set(LIMIT);
    machine.run();
    assert_eq!(machine.state(0).retired.get(), LIMIT);
    let asked = machine.vm.counters[0].mmu_requests.get();
    assert!(asked <= FEW, "{asked} questions");
}

#[test]
fn an_instruction_across_two_pages_of_which_the_second_is_missing() {
    let machine = supervisor(&vector(csr::STVEC, FAR));
    machine.put(FAR, &[n(Op::Sret)]);
    map(&machine, 0, FAR + 0x1000, RWX | AD);
    machine.ram.store16(FAR + 0x1ffe, 0x0013).expect("RAM");
    let state = machine.state(0);
    state.stvec.set(FAR);
    state.pc.set(WINDOW + 0xffe);
    ends_cheaply("the second half", machine);
}

/// Runs a program in S-mode whose first load from the window faults, with this handler, which returns to the load.
fn loads_at_last(machine: Machine, handler: &[u32]) {
    machine.put(FAR, handler);
    let page = RAM_BASE + 0x20_0000;
    machine.ram.cell64(page).expect("RAM").set(0x5a);
    let body = program(&[&li(A1, WINDOW), &vector(csr::STVEC, FAR), &[i(Op::Ld, A0, A1, 0)], &exit(A0)]);
    machine.put(RAM_BASE, &body);
    let mut machine = machine;
    machine.vm.instruction_limit.set(LIMIT);
    assert_eq!(machine.run(), (request::HTIF_EXIT, 0x5a << 1 | 1));
}

/// Counts in T4 and returns, until the count is 3: then does `mend` and returns.
fn at_the_third_fault(mend: &[u32]) -> Vec<u32> {
    let over = i64::try_from(mend.len()).expect("short") * 4 + 4;
    program(&[
        &[i(Op::Addi, T4, T4, 1), i(Op::Addi, T5, ZERO, 3), s(Op::Bne, T4, T5, over)],
        mend,
        &[n(Op::Sret)],
    ])
}

#[test]
fn a_page_made_valid_without_a_fence_is_seen() {
    let page = leaf(RAM_BASE + 0x20_0000, RW | AD);
    let store = |at: u64, value: u64| program(&[&li(T1, at), &li(T2, value), &[s(Op::Sd, T1, T2, 0)]]);
    loads_at_last(supervisor(&[]), &at_the_third_fault(&store(LEAVES, page)));
    // A table on the way is missing.
    let machine = supervisor(&[]);
    map(&machine, 0, RAM_BASE + 0x20_0000, RW | AD);
    machine.ram.cell64(ROOT + 8).expect("RAM").set(0);
    loads_at_last(machine, &at_the_third_fault(&store(ROOT + 8, leaf(MIDDLE, 0))));
    // A table on the way lies where no memory is.
    let machine = supervisor(&[]);
    map(&machine, 0, RAM_BASE + 0x20_0000, RW | AD);
    machine.ram.cell64(MIDDLE).expect("RAM").set(leaf(0x4000_0000, 0));
    machine.state(0).medeleg.set(0xb1ff | 1 << cause::LOAD_ACCESS);
    loads_at_last(machine, &at_the_third_fault(&store(MIDDLE, leaf(LEAVES, 0))));
}

#[test]
fn a_right_given_by_mstatus_is_seen() {
    let machine = supervisor(&[]);
    map(&machine, 0, RAM_BASE + 0x20_0000, RW | AD | USER);
    let mend = program(&[&li(T1, SUM), &[i(Op::Csrrs, ZERO, T1, csr::SSTATUS.into())]]);
    loads_at_last(machine, &at_the_third_fault(&mend));
}

#[test]
fn a_right_given_by_pmp_is_seen() {
    // The handler is M-mode's: it opens the page at the third fault.
    let page = RAM_BASE + 0x20_0000;
    let mend = program(&[&li(T1, 0x1f1f), &[i(Op::Csrrw, ZERO, T1, csr::PMPCFG0.into())]]);
    let mut handler = at_the_third_fault(&mend);
    *handler.last_mut().expect("the return") = n(Op::Mret);
    let machine = supervisor(&[]);
    map(&machine, 0, page, RW | AD);
    let state = machine.state(0);
    state.medeleg.set(0);
    state.mtvec.set(FAR);
    state.pmpaddr[0].set(page >> 2 | 0x1ff);
    state.pmpaddr[1].set((1 << 54) - 1);
    state.pmpcfg[0].set(0x1f18);
    loads_at_last(machine, &handler);
}

#[test]
fn a_page_made_valid_by_somebody_else_is_seen() {
    // The handler faults itself: no instruction retires until another party maps the page.
    let machine = supervisor(&program(&[&li(A1, WINDOW), &vector(csr::STVEC, FAR), &[i(Op::Ld, A0, A1, 0)]]));
    machine.put(FAR, &program(&[&[i(Op::Ld, A0, A1, 0)], &exit(A0)]));
    let page = RAM_BASE + 0x20_0000;
    machine.ram.cell64(page).expect("RAM").set(0x77);
    let mut machine = machine;
    machine.start();
    machine.resume();
    until(|| machine.vm.counters[0].exceptions.get() > 1000);
    map(&machine, 0, page, RW | AD);
    machine.wait_paused();
    assert_eq!(machine.vm.guest_request_code.get(), 0x77 << 1 | 1);
    let asked = machine.vm.counters[0].mmu_requests.get();
    assert!(asked <= FEW, "{asked} questions");
}

#[test]
fn a_refused_store_says_nothing_of_loads_nor_of_its_neighbours() {
    let page = RAM_BASE + 0x20_0000;
    let machine = supervisor(&program(&[
        &li(A1, WINDOW),
        &vector(csr::STVEC, FAR),
        &[s(Op::Sd, A1, ZERO, 0), s(Op::Sd, A1, ZERO, 0), i(Op::Ld, A0, A1, 0), s(Op::Sd, A1, A0, 0)],
        &li(T1, 0x1000),
        &[r(Op::Add, A1, A1, T1), s(Op::Sd, A1, A0, 0), i(Op::Ld, A0, A1, 0)],
        &exit(A0),
    ]));
    machine.put(FAR, &skip());
    machine.ram.cell64(page).expect("RAM").set(0x33);
    map(&machine, 0, page, 1 << 1 | AD); // read-only
    map(&machine, 1, page + 0x1000, RW | AD);
    let mut machine = machine;
    assert_eq!(machine.run(), (request::HTIF_EXIT, 0x33 << 1 | 1));
    assert_eq!(machine.vm.counters[0].exceptions.get(), 3);
    assert_eq!(machine.ram.cell64(page).expect("RAM").get(), 0x33);
}
