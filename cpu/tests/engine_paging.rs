//! Translation as a program in S-mode sees it, and what dirty logging promises.

mod engine_support;

use engine_support::asm::*;
use engine_support::paging::*;
use engine_support::{Machine, TOHOST, until};
use quasar_abi::machine::RAM_BASE;
use quasar_abi::vm::request;
use quasar_cpu::isa::{Op, csr};
use quasar_cpu::trap::cause;
use std::sync::atomic::Ordering;

/// A handler that ends the program with scause << 32 | the low 32 bits of stval.
fn report_traps() -> Vec<u32> {
    let mut code = vec![
        i(Op::Csrrs, T0, ZERO, csr::SCAUSE.into()),
        i(Op::Slli, T0, T0, 32),
        i(Op::Csrrs, T1, ZERO, csr::STVAL.into()),
        i(Op::Slli, T1, T1, 32),
        i(Op::Srli, T1, T1, 32),
        r(Op::Or, A0, T0, T1),
    ];
    code.extend(exit(A0));
    code
}

fn with_handler(body: &[u32]) -> Machine {
    let handler = RAM_BASE + 0x8000;
    let code = program(&[&li(T0, handler), &[i(Op::Csrrw, ZERO, T0, csr::STVEC.into())], body]);
    let machine = supervisor(&code);
    machine.put(handler, &report_traps());
    machine
}

fn ends_with(mut machine: Machine, value: u64) {
    let (asked, code) = machine.run();
    assert_eq!(asked, request::HTIF_EXIT);
    assert_eq!(code >> 1, value, "{:#x} instead of {value:#x}", code >> 1);
}

#[test]
fn a_program_that_goes_through_100_mb_again_and_again_asks_about_each_page_once() {
    const PAGES: u64 = 100_000_000_u64.div_ceil(4096);
    const ROUNDS: u64 = 5;
    // Page after page, and the same page of memory behind all of them: what counts is the translations.
    let round = [s(Op::Sd, A1, T0, 0), r(Op::Add, A1, A1, T1), s(Op::Bltu, A1, A2, -8)];
    let sweep = program(&[&li(A1, WINDOW), &round]);
    let body = program(&[
        &li(T1, 4096),
        &li(A2, WINDOW + PAGES * 4096),
        &std::iter::repeat_n(sweep, usize::try_from(ROUNDS).expect("few")).flatten().collect::<Vec<_>>(),
        &exit(ZERO),
    ]);
    let mut machine = with_handler(&body);
    let (tables, page) = (RAM_BASE + 0x100_0000, RAM_BASE + 0x20_0000);
    for index in 0..PAGES {
        machine.ram.cell64(tables + index * 8).expect("RAM").set(leaf(page, RW | AD));
    }
    for table in 0..PAGES.div_ceil(512) {
        machine.ram.cell64(MIDDLE + table * 8).expect("RAM").set(leaf(tables + table * 4096, 0));
    }
    assert_eq!(machine.run(), (request::HTIF_EXIT, 1));
    let asked = machine.vm.counters[0].mmu_requests.get();
    // Neighbours come with each answer.
    assert!(asked <= PAGES / 16 + 8, "{asked} questions about {PAGES} pages");
}

#[test]
fn two_addresses_of_one_page_and_a_remapping_after_sfence() {
    let [page, other] = [RAM_BASE + 0x20_0000, RAM_BASE + 0x20_1000];
    let body = program(&[
        &li(A1, WINDOW),
        &[i(Op::Addi, T0, ZERO, 7), s(Op::Sd, A1, T0, 0x10)],
        &li(T1, 0x1000),
        &[r(Op::Add, A2, A1, T1), i(Op::Ld, A0, A2, 0x10)], // 7 through the second address
        // Now the first address gets another page, whose word is 9.
        &li(T2, LEAVES),
        &li(T3, leaf(other, RW | AD)),
        &[s(Op::Sd, T2, T3, 0), r(Op::SfenceVma, ZERO, A1, ZERO), i(Op::Ld, T4, A1, 0x10)],
        &[i(Op::Slli, T4, T4, 4), r(Op::Or, A0, A0, T4)],
        &exit(A0),
    ]);
    let machine = with_handler(&body);
    map(&machine, 0, page, RW | AD);
    map(&machine, 1, page, RW | AD);
    machine.ram.cell64(other + 0x10).expect("RAM").set(9);
    ends_with(machine, 0x97);
}

#[test]
fn a_load_across_pages_faults_on_the_page_that_is_missing() {
    let body = program(&[&li(A1, WINDOW + 0xffc), &[i(Op::Ld, A0, A1, 0)], &exit(A0)]);
    let machine = with_handler(&body);
    map(&machine, 0, RAM_BASE + 0x20_0000, RW | AD);
    ends_with(machine, cause::LOAD_PAGE << 32 | (WINDOW + 0x1000));
}

#[test]
fn a_store_across_pages_writes_nothing_when_the_second_is_missing() {
    let page = RAM_BASE + 0x20_0000;
    let body = program(&[&li(A1, WINDOW + 0xffc), &[s(Op::Sd, A1, A1, 0)], &exit(A0)]);
    let mut machine = with_handler(&body);
    map(&machine, 0, page, RW | AD);
    machine.ram.cell32(page + 0xffc).expect("RAM").set(0x1234);
    machine.run();
    assert_eq!(machine.vm.guest_request_code.get() >> 33, cause::STORE_PAGE);
    assert_eq!(machine.ram.cell32(page + 0xffc).expect("RAM").get(), 0x1234);
}

#[test]
fn an_access_across_pages_joins_both() {
    // The second virtual page is not the next physical one.
    let [low, high] = [RAM_BASE + 0x20_5000, RAM_BASE + 0x20_2000];
    let body = program(&[&li(A1, WINDOW + 0xffc), &[i(Op::Ld, A0, A1, 0)], &exit(A0)]);
    let machine = with_handler(&body);
    map(&machine, 0, low, RW | AD);
    map(&machine, 1, high, RW | AD);
    machine.ram.cell32(low + 0xffc).expect("RAM").set(0x5566_7788);
    machine.ram.cell32(high).expect("RAM").set(0x1122);
    ends_with(machine, 0x1122_5566_7788);
}

#[test]
fn user_pages_open_and_close_with_sum() {
    let body = program(&[
        &li(A1, WINDOW),
        &li(T0, SUM),
        &[
            i(Op::Csrrs, ZERO, T0, csr::SSTATUS.into()),
            s(Op::Sd, A1, A1, 0),
            i(Op::Ld, A0, A1, 0),
            i(Op::Csrrc, ZERO, T0, csr::SSTATUS.into()),
            i(Op::Ld, A0, A1, 0),
        ],
        &exit(A0),
    ]);
    let machine = with_handler(&body);
    map(&machine, 0, RAM_BASE + 0x20_0000, RW | AD | USER);
    ends_with(machine, cause::LOAD_PAGE << 32 | WINDOW);
}

#[test]
fn code_runs_from_a_mapped_page_and_follows_a_remapping() {
    let [one, two] = [RAM_BASE + 0x20_0000, RAM_BASE + 0x20_1000];
    let body = program(&[
        &li(A1, WINDOW),
        &[i(Op::Jalr, RA, A1, 0), i(Op::Addi, A2, A0, 0)],
        &li(T2, LEAVES),
        &li(T3, leaf(two, RWX | AD)),
        &[s(Op::Sd, T2, T3, 0), r(Op::SfenceVma, ZERO, A1, ZERO), i(Op::Jalr, RA, A1, 0)],
        &[i(Op::Slli, A2, A2, 4), r(Op::Or, A0, A0, A2)],
        &exit(A0),
    ]);
    let machine = with_handler(&body);
    map(&machine, 0, one, RWX | AD);
    machine.put(one, &[i(Op::Addi, A0, ZERO, 1), i(Op::Jalr, ZERO, RA, 0)]);
    machine.put(two, &[i(Op::Addi, A0, ZERO, 2), i(Op::Jalr, ZERO, RA, 0)]);
    ends_with(machine, 0x12);
}

#[test]
fn a_jump_into_an_unmapped_page_faults_there() {
    let body = program(&[&li(A1, WINDOW + 0x3008), &[i(Op::Jalr, RA, A1, 0)]]);
    ends_with(with_handler(&body), cause::FETCH_PAGE << 32 | (WINDOW + 0x3008));
}

#[test]
fn misaligned_atomics_and_missing_memory_raise_their_exceptions() {
    let body = program(&[&li(A1, TOHOST + 2), &[r(Op::AmoaddW, A0, A1, ZERO)]]);
    ends_with(with_handler(&body), cause::STORE_MISALIGNED << 32 | (TOHOST + 2));
    // Mapped, but nothing is at the physical address.
    let body = program(&[&li(A1, WINDOW), &[i(Op::Lw, A0, A1, 0)]]);
    let machine = with_handler(&body);
    map(&machine, 0, 0x4000_0000, RW | AD);
    ends_with(machine, cause::LOAD_ACCESS << 32 | WINDOW);
}

/// Closes rounds while two words on two pages count up for ever, one by stores and one by AMOs.
fn every_write_is_marked_again(mut machine: Machine, [one, two]: [u64; 2]) {
    machine.start();
    machine.resume();
    machine.vm.log_active.store(1, Ordering::SeqCst);
    let word = |gpa| machine.ram.cell64(gpa).expect("RAM").get();
    for round in 0..200 {
        let closed = machine.vm.next_epoch();
        until(|| machine.vm.epoch_acknowledged());
        machine.maps.drain(closed, |_| {});
        let copied = [word(one), word(two)];
        until(|| word(one) != copied[0] && word(two) != copied[1]);
        let epoch = machine.vm.epoch.load(Ordering::SeqCst);
        assert!(machine.maps.is_dirty(epoch, one), "round {round}: a store was lost");
        assert!(machine.maps.is_dirty(epoch, two), "round {round}: an AMO was lost");
    }
}

/// Counts up in the words that A1 and A2 point to.
fn count_up() -> [u32; 4] {
    [i(Op::Addi, T0, T0, 1), s(Op::Sd, A1, T0, 0), r(Op::AmoaddD, ZERO, A2, T0), u(Op::Jal, ZERO, -12)]
}

#[test]
fn after_an_epochs_acknowledgement_every_write_is_marked_again() {
    let [one, two] = [RAM_BASE + 0x20_0000, RAM_BASE + 0x20_1000];
    let body = program(&[&li(A1, WINDOW), &li(A2, WINDOW + 0x1000), &count_up()]);
    let machine = with_handler(&body);
    map(&machine, 0, one, RW | AD);
    map(&machine, 1, two, RW | AD);
    every_write_is_marked_again(machine, [one, two]);
}

#[test]
fn pages_of_one_large_translation_are_marked_one_by_one() {
    // M-mode: RAM is one entry, which the hart keeps from epoch to epoch.
    let [one, two] = [RAM_BASE + 0x20_0000, RAM_BASE + 0x20_1000];
    let machine = Machine::with(&program(&[&li(A1, one), &li(A2, two), &count_up()]));
    every_write_is_marked_again(machine, [one, two]);
}

#[test]
fn reading_a_page_lets_nobody_write_it_without_a_mark() {
    let [one, two] = [RAM_BASE + 0x20_0000, RAM_BASE + 0x20_1000];
    let forgetful = [
        r(Op::SfenceVma, ZERO, ZERO, ZERO),
        i(Op::Ld, T1, A1, 0),
        i(Op::Ld, T1, A2, 0),
        i(Op::Addi, T0, T0, 1),
        s(Op::Sd, A1, T0, 0),
        r(Op::AmoaddD, ZERO, A2, T0),
        u(Op::Jal, ZERO, -24),
    ];
    let machine = Machine::with(&program(&[&li(A1, one), &li(A2, two), &forgetful]));
    every_write_is_marked_again(machine, [one, two]);
}
