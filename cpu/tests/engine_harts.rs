//! Several harts, waiting, timers, interrupts, and deterministic time.

mod engine_support;

use engine_support::asm::*;
use engine_support::{Machine, TOHOST, until};
use quasar_abi::clock::mode;
use quasar_abi::machine::{RAM_BASE, UART};
use quasar_abi::party::{PartyId, attention};
use quasar_abi::vm::{pause, request};
use quasar_cpu::isa::{Op, csr};
use quasar_cpu::trap::{MTIP, SSIP};
use std::sync::atomic::Ordering;

const CELL: u64 = RAM_BASE + 0x3000;
const MIE: u64 = 1 << 3;

#[test]
fn atomics_of_two_harts_lose_nothing() {
    const ROUNDS: u64 = 50_000;
    // Each hart: ROUNDS times amoadd 1 and an LR/SC increment of the next word; then counts itself as done.
    // Hart 0 waits for both and ends with the sum.
    let code = program(&[
        &li(A1, CELL),
        &li(T0, ROUNDS),
        &[
            i(Op::Addi, T1, ZERO, 1),
            r(Op::AmoaddD, ZERO, A1, T1), // loop:
            i(Op::Addi, A2, A1, 8),
            r(Op::LrW, T2, A2, 0), // again:
            i(Op::Addi, T2, T2, 1),
            r(Op::ScW, T3, A2, T2),
            s(Op::Bne, T3, ZERO, -12),
            i(Op::Addi, T0, T0, -1),
            s(Op::Bne, T0, ZERO, -28),
            i(Op::Addi, A3, A1, 16),
            r(Op::AmoaddW, ZERO, A3, T1),
            s(Op::Bne, A0, ZERO, 0), // hart 1 stays here
            i(Op::Lw, T2, A3, 0),
            i(Op::Addi, T3, ZERO, 2),
            s(Op::Bne, T2, T3, -8),
            i(Op::Ld, A0, A1, 0),
            i(Op::Lwu, T0, A1, 8),
            i(Op::Slli, T0, T0, 20),
            r(Op::Or, A0, A0, T0),
        ],
        &exit(A0),
    ]);
    let mut machine = Machine::new(2);
    machine.put(RAM_BASE, &code);
    let (asked, result) = machine.run();
    assert_eq!(asked, request::HTIF_EXIT);
    let result = result >> 1;
    assert_eq!((result & 0xf_ffff, result >> 20), (2 * ROUNDS, 2 * ROUNDS));
}

/// Sets mie, a handler that counts in s0 (x8) and acknowledges by `acknowledge`, then waits in WFI for ever.
fn interrupted(enable: u64, acknowledge: &[u32]) -> Machine {
    let handler = RAM_BASE + 0x800;
    let code = program(&[
        &li(T0, handler),
        &[i(Op::Csrrw, ZERO, T0, csr::MTVEC.into())],
        &li(T0, enable),
        &[i(Op::Csrrw, ZERO, T0, csr::MIE.into())],
        &li(T0, MIE),
        &[i(Op::Csrrs, ZERO, T0, csr::MSTATUS.into()), n(Op::Wfi), u(Op::Jal, ZERO, -4)],
    ]);
    let machine = Machine::with(&code);
    machine.put(handler, &program(&[&[i(Op::Addi, 8, 8, 1)], acknowledge, &[n(Op::Mret)]]));
    machine
}

#[test]
fn a_posted_interrupt_ends_wfi() {
    // The handler counts in memory once it has acknowledged: a post before that could be one with the last.
    let clear = program(&[
        &li(T1, SSIP),
        &[i(Op::Csrrc, ZERO, T1, csr::MIP.into())],
        &li(T1, CELL),
        &[s(Op::Sd, T1, 8, 0)],
    ]);
    let mut machine = interrupted(SSIP, &clear);
    machine.start();
    machine.resume();
    for count in 1..=100 {
        machine.vm.hart_control[0].posted.fetch_or(SSIP, Ordering::SeqCst);
        machine.vm.party(PartyId::Hart(0)).call(attention::INTERRUPT);
        until(|| machine.ram.cell64(CELL).expect("RAM").get() == count);
    }
    machine.pause();
    assert_eq!(machine.state(0).x[8].get(), 100);
}

#[test]
fn a_pause_in_wfi_keeps_waiting_afterwards() {
    let mut machine = interrupted(SSIP, &[i(Op::Csrrwi, ZERO, 0, csr::MIP.into())]);
    machine.start();
    machine.resume();
    until(|| {
        // Calls make the wait end and begin anew, which is when it is counted.
        machine.vm.party(PartyId::Hart(0)).call(attention::TIMER);
        machine.vm.counters[0].wfi_ns.get() != 0
    });
    machine.pause();
    assert_eq!(machine.state(0).waiting.get(), 1);
    let pc = machine.state(0).pc.get();
    machine.resume();
    machine.pause();
    assert_eq!((machine.state(0).waiting.get(), machine.state(0).pc.get()), (1, pc));
    assert_eq!(machine.state(0).x[8].get(), 0);
}

#[test]
fn the_machine_timer_interrupts_a_waiting_and_a_running_hart() {
    // The handler masks the timer and says that it was there.
    let mask = program(&[
        &li(T1, MTIP),
        &[i(Op::Csrrc, ZERO, T1, csr::MIE.into())],
        &li(T1, CELL),
        &[s(Op::Sd, T1, 8, 0)],
    ]);
    for waiting in [true, false] {
        let mut machine = interrupted(MTIP, &mask);
        if !waiting {
            let code = machine.ram.clone();
            let wfi = (0..0x200)
                .map(|index| RAM_BASE + index * 4)
                .find(|at| code.cell32(*at).expect("RAM").get() == n(Op::Wfi))
                .expect("the program waits");
            code.cell32(wfi).expect("RAM").set(i(Op::Addi, 9, 9, 1));
        }
        machine.vm.hart_control[0].mtimecmp.store(200_000, Ordering::SeqCst);
        machine.start();
        machine.resume();
        until(|| machine.ram.cell64(CELL).expect("RAM").get() == 1);
        machine.pause();
        assert_eq!(machine.state(0).x[8].get(), 1);
    }
}

#[test]
fn deterministic_time_gives_the_same_state_every_time_and_whenever_it_is_paused() {
    let run = |pauses: bool| {
        // The handler advances stimecmp by 1000 ticks; the program mixes arithmetic and WFI.
        let handler = RAM_BASE + 0x800;
        let code = program(&[
            &li(T0, handler),
            &[i(Op::Csrrw, ZERO, T0, csr::MTVEC.into())],
            &li(T0, 1 << 63),
            &[i(Op::Csrrw, ZERO, T0, csr::MENVCFG.into()), i(Op::Csrrw, ZERO, ZERO, csr::STIMECMP.into())],
            &li(T0, 1 << 5),
            &[i(Op::Csrrw, ZERO, T0, csr::MIE.into())],
            &li(T0, MIE),
            &[
                i(Op::Csrrs, ZERO, T0, csr::MSTATUS.into()),
                i(Op::Addi, T0, ZERO, 1000), // outer:
                r(Op::Mul, A1, A1, T0),
                r(Op::Add, A1, A1, T0),
                i(Op::Addi, T0, T0, -1),
                s(Op::Bne, T0, ZERO, -12),
                n(Op::Wfi),
                u(Op::Jal, ZERO, -24),
            ],
        ]);
        let mut machine = Machine::with(&code);
        machine.put(
            handler,
            &program(&[&[
                i(Op::Addi, 8, 8, 1),
                i(Op::Csrrs, T1, ZERO, csr::TIME.into()),
                r(Op::Add, 9, 9, T1),
                i(Op::Addi, T1, T1, 1000),
                i(Op::Csrrw, ZERO, T1, csr::STIMECMP.into()),
                n(Op::Mret),
            ]]),
        );
        machine.vm.clock.mode.set(mode::INSTRUCTIONS);
        machine.vm.clock.ns_per_instruction.set(10);
        machine.vm.instruction_limit.set(1_000_003);
        machine.start();
        machine.resume();
        let limited = || machine.vm.pause_mask.load(Ordering::SeqCst) & pause::LIMIT != 0;
        until(|| {
            if pauses && !limited() {
                machine.pause();
                machine.resume();
            }
            limited()
        });
        machine.vm.wait_at_rest(std::time::Duration::from_secs(60)).expect("parked");
        (machine.state(0).words(), machine.vm.clock.ticks(machine.state(0).retired.get()))
    };
    let first = run(false);
    assert!(first.0[10] > 50, "the timer fired {} times", first.0[10]);
    for round in 0..6 {
        assert_eq!(run(round % 2 == 0), first);
    }
}

/// A device's registers are accessed between two instructions: the device is told the exact time, and an interrupt
/// that it raises comes before the next instruction, wherever blocks of code begin and end.
#[test]
fn deterministic_accesses_of_devices_happen_at_their_instruction() {
    let handler = RAM_BASE + 0x800;
    let mut setup = li(T0, handler);
    setup.push(i(Op::Csrrw, ZERO, T0, csr::MTVEC.into()));
    setup.extend(li(T0, 1 << 11));
    setup.push(i(Op::Csrrw, ZERO, T0, csr::MIE.into()));
    setup.push(i(Op::Csrrs, ZERO, T0, csr::MSTATUS.into()));
    setup.extend(li(A1, UART.base));
    setup.extend(li(T0, MIE));
    setup.push(i(Op::Csrrs, ZERO, T0, csr::MSTATUS.into()));
    let before = setup.len() as u64;
    // One block: three instructions, the store, three more that must not be reached.
    let block = [
        i(Op::Addi, A2, ZERO, 1),
        i(Op::Addi, A2, A2, 1),
        i(Op::Addi, A2, A2, 1),
        s(Op::Sb, A1, A2, 0),
        i(Op::Addi, A2, A2, 1),
        i(Op::Addi, A2, A2, 1),
        u(Op::Jal, ZERO, 0),
    ];
    let mut machine = Machine::with(&program(&[&setup, &block]));
    machine.put(handler, &exit(A2));
    machine.vm.clock.mode.set(mode::INSTRUCTIONS);
    machine.vm.clock.ns_per_instruction.set(10);
    machine.start();
    machine.resume();
    let vm = machine.vm.clone();
    let mail = &vm.mmio_mail[0];
    until(|| mail.mailbox.pending());
    assert_eq!((mail.gpa.get(), mail.store.get(), mail.value.get()), (UART.base, 1, 3));
    assert_eq!(vm.clock.retired.get(), before + 3, "the store's own time");
    vm.hart_control[0].lines.fetch_or(1 << 11, Ordering::SeqCst);
    vm.party(PartyId::Hart(0)).call(attention::INTERRUPT);
    mail.status.set(0);
    mail.mailbox.complete();
    machine.wait_paused();
    assert_eq!(vm.guest_request_code.get() >> 1, 3, "the interrupt came right after the store");
    assert_eq!(machine.state(0).mepc.get(), RAM_BASE + 4 * (before + 4));
    assert_eq!(mail.mailbox.posted.get(), 1, "asked once");
}

/// A command to the host is between two instructions too, by whatever kind of store it is given.
#[test]
fn deterministic_stores_to_tohost_happen_at_their_instruction() {
    // A byte to the host's console.
    let command = 1 << 56 | 1 << 48 | 0x41;
    let mut setup = li(A1, TOHOST);
    setup.extend(li(T0, command));
    let stores: [&[u32]; 3] = [
        &[s(Op::Sd, A1, T0, 0)],
        &[r(Op::AmoswapD, ZERO, A1, T0)],
        &[i(Op::LrD, ZERO, A1, 0), r(Op::ScD, A3, A1, T0)],
    ];
    for store in stores {
        let behind = [i(Op::Addi, A2, A2, 1), i(Op::Addi, A2, A2, 1), u(Op::Jal, ZERO, 0)];
        let mut machine = Machine::with(&program(&[&setup, store, &behind]));
        machine.vm.clock.mode.set(mode::INSTRUCTIONS);
        machine.vm.clock.ns_per_instruction.set(10);
        machine.start();
        machine.resume();
        until(|| machine.vm.htif.pending());
        machine.pause();
        assert_eq!(machine.vm.htif_value.get(), command);
        let done = (setup.len() + store.len()) as u64;
        let state = machine.state(0);
        assert_eq!((state.pc.get(), state.retired.get()), (RAM_BASE + 4 * done, done), "{store:x?}");
        assert_eq!(state.x[usize::from(A2)].get(), 0, "what stands behind the store waits for the host");
    }
}

/// In deterministic mode nothing wakes a hart without a timer; a limit on its instructions ends the wait.
#[test]
fn a_limit_ends_a_deterministic_wait_that_nothing_else_ends() {
    let code = program(&[
        &li(T0, 1 << 7),
        &[i(Op::Csrrw, ZERO, T0, csr::MIE.into()), n(Op::Wfi), u(Op::Jal, ZERO, -4)],
    ]);
    let mut machine = Machine::with(&code);
    machine.vm.clock.mode.set(mode::INSTRUCTIONS);
    machine.vm.clock.ns_per_instruction.set(10);
    machine.vm.instruction_limit.set(1_000_000);
    machine.run();
    assert_eq!(machine.vm.pause_mask.load(Ordering::SeqCst) & pause::LIMIT, pause::LIMIT);
    assert!(machine.state(0).waiting.get() != 0 && machine.state(0).retired.get() < 100);
}

/// A paced hart sleeps for as long as it lets guest time jump.
#[test]
fn a_paced_wait_takes_its_time_and_ends_in_the_same_state() {
    let run = |mode| {
        // One timer, 20 ms of guest time away.
        let handler = RAM_BASE + 0x800;
        let code = program(&[
            &li(T0, handler),
            &[i(Op::Csrrw, ZERO, T0, csr::MTVEC.into())],
            &li(T0, 1 << 63),
            &[i(Op::Csrrw, ZERO, T0, csr::MENVCFG.into())],
            &li(T0, 200_000),
            &[i(Op::Csrrw, ZERO, T0, csr::STIMECMP.into())],
            &li(T0, 1 << 5),
            &[i(Op::Csrrw, ZERO, T0, csr::MIE.into())],
            &li(T0, MIE),
            &[i(Op::Csrrs, ZERO, T0, csr::MSTATUS.into()), n(Op::Wfi), u(Op::Jal, ZERO, -4)],
        ]);
        let mut machine = Machine::with(&code);
        machine.put(handler, &program(&[&[i(Op::Csrrs, A0, ZERO, csr::TIME.into())], &exit(A0)]));
        machine.vm.clock.mode.set(mode);
        machine.vm.clock.ns_per_instruction.set(10);
        let start = std::time::Instant::now();
        machine.run();
        (machine.state(0).words(), start.elapsed())
    };
    let (jumped, _) = run(mode::INSTRUCTIONS);
    let (paced, took) = run(mode::PACED);
    assert_eq!(jumped, paced);
    assert!(took >= std::time::Duration::from_millis(19), "{took:?}");
}
