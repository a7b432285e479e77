//! Bare programs in M-mode: arithmetic loops, traps, exact counts, pauses, fences.

mod engine_support;

use engine_support::asm::*;
use engine_support::{Machine, TOHOST, until};
use quasar_abi::machine::RAM_BASE;
use quasar_abi::vm::{pause, request};
use quasar_cpu::isa::{Op, csr};
use std::sync::atomic::Ordering;

/// `addi t0, t0, 1; j -4` for ever.
const fn endless() -> [u32; 2] {
    [0x0012_8293, 0xffdf_f06f]
}

#[test]
fn a_loop_sums() {
    let code = program(&[
        &li(T0, 1000),
        &[r(Op::Add, A0, A0, T0), i(Op::Addi, T0, T0, -1), s(Op::Bne, T0, ZERO, -8)],
        &exit(A0),
    ]);
    for engine in quasar_cpu::engine::names() {
        let mut machine = Machine::with(&code);
        machine.engine = engine;
        assert_eq!(machine.run(), (request::HTIF_EXIT, 500_500 << 1 | 1), "{engine}");
    }
}

#[test]
fn loads_and_stores_of_every_width_across_a_page() {
    // 64-bit values stored at every offset around a page boundary come back byte by byte.
    let base = RAM_BASE + 0x10_0ff8;
    let mut code = li(A1, base);
    code.extend(li(A2, 0x8877_6655_4433_2211));
    for offset in 0..8 {
        code.push(s(Op::Sd, A1, A2, offset));
        code.push(i(Op::Ld, T0, A1, offset));
        code.push(r(Op::Xor, T0, T0, A2));
        code.push(r(Op::Or, A0, A0, T0));
        code.push(i(Op::Lb, T0, A1, offset + 7));
        code.push(i(Op::Addi, T0, T0, 0x78));
        code.push(r(Op::Or, A0, A0, T0));
        code.push(i(Op::Lwu, T0, A1, offset + 2));
        code.push(i(Op::Lhu, T1, A1, offset + 4));
        code.push(i(Op::Slli, T1, T1, 16));
        code.push(i(Op::Lhu, T2, A1, offset + 2));
        code.push(r(Op::Or, T1, T1, T2));
        code.push(r(Op::Xor, T0, T0, T1));
        code.push(r(Op::Or, A0, A0, T0));
    }
    code.extend(exit(A0));
    assert_eq!(Machine::result(&code), 0);
}

#[test]
fn an_exception_in_the_middle_of_a_block_is_precise() {
    // mtvec -> handler at +0x400: a0 = mepc - RAM_BASE, a1 = minstret, exits with a0 * 4096 + a1.
    let mut code = li(T0, RAM_BASE + 0x400);
    code.push(i(Op::Csrrw, ZERO, T0, csr::MTVEC.into()));
    code.push(i(Op::Csrrw, ZERO, ZERO, csr::MINSTRET.into()));
    code.extend([i(Op::Addi, T1, ZERO, 1), i(Op::Addi, T1, T1, 1)]);
    let faulting = code.len() as u64 * 4;
    code.push(i(Op::Ld, T2, ZERO, 0)); // nothing is at address 0
    code.push(i(Op::Addi, T1, T1, 1));
    code.resize(0x100, 0);
    code.push(i(Op::Csrrs, A1, ZERO, csr::MINSTRET.into()));
    code.push(i(Op::Csrrs, A0, ZERO, csr::MEPC.into()));
    code.extend(li(T0, RAM_BASE));
    code.push(r(Op::Sub, A0, A0, T0));
    code.push(i(Op::Slli, A0, A0, 12));
    code.push(r(Op::Add, A0, A0, A1));
    code.push(i(Op::Slli, A0, A0, 4));
    code.push(r(Op::Add, A0, A0, T1));
    code.extend(exit(A0));
    let result = Machine::result(&code);
    // The two additions retired, the load did not.
    assert_eq!(result & 15, 2, "t1");
    assert_eq!(result >> 4 & 0xfff, 2, "minstret");
    assert_eq!(result >> 16, faulting, "mepc");
}

#[test]
fn the_instruction_limit_is_exact() {
    for limit in [1, 2, 3, 100, 1001, 300_000] {
        let mut machine = Machine::with(&endless());
        machine.vm.instruction_limit.set(limit);
        machine.run();
        assert_eq!(machine.vm.pause_mask.load(Ordering::SeqCst), pause::LIMIT);
        let state = machine.state(0);
        assert_eq!(state.retired.get(), limit);
        assert_eq!(state.x[5].get(), limit.div_ceil(2));
        assert_eq!(state.pc.get(), RAM_BASE + limit % 2 * 4);
    }
}

#[test]
fn instructions_that_trap_count_for_the_limit() {
    // Nothing ever retires: mtvec is 0, where nothing is to be fetched; or the handler is an `ecall` itself.
    let mut handler_traps = li(T0, RAM_BASE + 0x100);
    handler_traps.push(i(Op::Csrrw, ZERO, T0, csr::MTVEC.into()));
    let before = handler_traps.len() as u64;
    handler_traps.resize(0x40, 0);
    handler_traps.push(n(Op::Ecall));
    for (code, retired) in [(vec![0], 0), (handler_traps, before)] {
        let mut machine = Machine::with(&code);
        machine.vm.instruction_limit.set(1000);
        machine.run();
        assert_eq!(machine.vm.pause_mask.load(Ordering::SeqCst), pause::LIMIT);
        assert_eq!(machine.state(0).retired.get(), retired);
        assert_eq!(machine.vm.counters[0].exceptions.get(), 1000 - retired);
    }
}

#[test]
fn a_wait_that_nothing_can_end_is_published() {
    let mut machine = Machine::with(&[n(Op::Wfi), u(Op::Jal, ZERO, -4)]);
    machine.start();
    machine.resume();
    until(|| machine.state(0).waiting.get() != 0);
    let state = machine.state(0);
    assert_eq!((state.mie.get(), state.pc.get(), state.retired.get()), (0, RAM_BASE + 4, 1));
}

#[test]
fn a_pause_publishes_an_exact_boundary_and_goes_on() {
    let mut machine = Machine::with(&endless());
    machine.start();
    let mut before = 0;
    for _ in 0..20 {
        machine.resume();
        until(|| machine.vm.counters[0].instructions.get() > before);
        machine.pause();
        let state = machine.state(0);
        let retired = state.retired.get();
        assert!(retired > before, "it went on");
        assert_eq!(state.x[5].get(), retired.div_ceil(2));
        assert_eq!(state.pc.get(), RAM_BASE + retired % 2 * 4);
        before = retired;
    }
}

#[test]
fn whoever_owns_a_parked_hart_may_change_its_state() {
    let mut machine = Machine::with(&endless());
    machine.start();
    machine.resume();
    machine.pause();
    machine.put(RAM_BASE + 0x1000, &exit(A0));
    machine.state(0).pc.set(RAM_BASE + 0x1000);
    machine.state(0).x[10].set(77);
    assert_eq!(machine.run(), (request::HTIF_EXIT, 77 << 1 | 1));
}

#[test]
fn new_instructions_are_seen_after_fence_i() {
    // Calls a function at +0x1000 (returns 1), rewrites it (to return 2), fence.i, calls it again.
    let target = RAM_BASE + 0x1000;
    let mut code = li(A1, target);
    code.push(i(Op::Jalr, RA, A1, 0));
    code.push(i(Op::Addi, A2, A0, 0));
    code.extend(li(T0, i(Op::Addi, A0, ZERO, 2).into()));
    code.push(s(Op::Sw, A1, T0, 0));
    code.push(n(Op::FenceI));
    code.push(i(Op::Jalr, RA, A1, 0));
    code.push(i(Op::Slli, A2, A2, 4));
    code.push(r(Op::Or, A0, A0, A2));
    code.extend(exit(A0));
    let mut machine = Machine::with(&code);
    machine.put(target, &[i(Op::Addi, A0, ZERO, 1), i(Op::Jalr, ZERO, RA, 0)]);
    assert_eq!(machine.run(), (request::HTIF_EXIT, 0x12 << 1 | 1));
}

#[test]
fn an_instruction_across_a_page_boundary_executes() {
    // A compressed nop (0x0001) shifts what follows by two bytes, to straddle the page.
    let start = RAM_BASE + 0x2000 - 4;
    let mut code = li(A1, start);
    code.push(i(Op::Jalr, ZERO, A1, 0));
    let machine_code = {
        let mut bytes = 0x0001_u16.to_le_bytes().to_vec();
        for word in program(&[&[i(Op::Addi, A0, ZERO, 99)], &exit(A0)]) {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    };
    let mut machine = Machine::with(&code);
    machine.ram.write(start, &machine_code).expect("in RAM");
    assert_eq!(machine.run(), (request::HTIF_EXIT, 99 << 1 | 1));
}

#[test]
fn reserved_load_and_conditional_store() {
    let cell = RAM_BASE + 0x3000;
    let code = program(&[
        &li(A1, cell),
        &[
            i(Op::Addi, T0, ZERO, 5),
            r(Op::LrD, T1, A1, 0),
            r(Op::ScD, A0, A1, T0), // succeeds: 0
            r(Op::ScD, T2, A1, T0), // no reservation: 1
            i(Op::Slli, T2, T2, 1),
            r(Op::Or, A0, A0, T2),
            r(Op::LrW, T1, A1, 0),
            s(Op::Sw, A1, ZERO, 0),
            r(Op::ScW, T2, A1, T0), // another value: 1
            i(Op::Slli, T2, T2, 2),
            r(Op::Or, A0, A0, T2),
            i(Op::Addi, T1, ZERO, -7),
            r(Op::AmoaddW, T2, A1, T1),  // 0
            r(Op::AmomaxuW, T3, A1, T0), // -7, stays
            r(Op::Sub, T3, T3, T1),
            i(Op::Slli, T3, T3, 3),
            r(Op::Or, A0, A0, T3),
            r(Op::AmominD, T3, A1, ZERO),
            r(Op::AmoswapD, T4, A1, T0),
            r(Op::Sub, T4, T4, ZERO),
            i(Op::Slli, T4, T4, 8),
            r(Op::Or, A0, A0, T4),
        ],
        &exit(A0),
    ]);
    // 6, and at bit 8 what amomin.d left: the smaller of 0xfffffff9 and 0, signed.
    assert_eq!(Machine::result(&code), 6);
}

#[test]
fn a_host_command_is_waited_for_and_answered() {
    let command = 1 << 56 | 1 << 48 | 0x41;
    let code = program(&[
        &li(A1, TOHOST),
        &li(A2, command),
        &[s(Op::Sd, A1, A2, 0), i(Op::Ld, T0, A1, 0), s(Op::Bne, T0, ZERO, -4), i(Op::Addi, A0, ZERO, 3)],
        &exit(A0),
    ]);
    let mut machine = Machine::with(&code);
    machine.start();
    machine.resume();
    until(|| machine.vm.htif.pending());
    assert_eq!(machine.vm.htif_value.get(), command);
    // A pause works meanwhile.
    machine.pause();
    machine.resume();
    machine.ram.cell64(TOHOST).expect("RAM").set(0);
    machine.vm.htif.complete();
    machine.wait_paused();
    assert_eq!(machine.vm.guest_request_code.get(), 3 << 1 | 1);
}
