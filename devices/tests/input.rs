//! Input of the consoles: paced so that a guest lives on under a paste, and neither lost nor doubled.

mod kit;

use kit::driver::{BUFFERS, Desc, Driver, WRITE, ring};
use kit::{Bus, Machine, Rig};
use quasar_abi::console::{INPUT_BYTES, UART_CONSOLE, VIRTIO_CONSOLE};
use quasar_abi::machine::{UART, VirtioDevice};
use std::time::{Duration, Instant};

const LSR: u64 = UART.base + 5;
const RECEIVED: u64 = 1;

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from((n * 7 + n / 256) % 251).expect("below 251")).collect()
}

fn enable_fifo(rig: &mut Rig<'_>) {
    rig.store(UART.base + 2, 1, 1);
}

/// What an interrupt handler reads: all there is. The server looks at the line between any two accesses.
fn service(rig: &mut Rig<'_>) -> Vec<u8> {
    let mut read = vec![];
    while rig.load(LSR, 1) & RECEIVED != 0 {
        rig.board.poll();
        read.push(u8::try_from(rig.load(UART.base, 1)).expect("a byte"));
        rig.board.poll();
    }
    read
}

#[test]
fn each_service_ends_and_a_paste_arrives_whole() {
    for fifo in [false, true] {
        let machine = Machine::new(2);
        let mut rig = machine.board(&[]);
        if fifo {
            enable_fifo(&mut rig);
        }
        let sent = text(if fifo { 50_000 } else { 1000 });
        let (mut queued, mut got, mut longest) = (0, vec![], 0);
        while got.len() < sent.len() {
            queued += machine.console(UART_CONSOLE).push_input(&sent[queued..]);
            rig.board.poll();
            let read = service(&mut rig);
            longest = longest.max(read.len());
            got.extend(read);
        }
        assert!(got == sent, "fifo {fifo}");
        assert!(longest <= if fifo { 16 } else { 1 }, "the handler reads on while bytes come: {longest}");
    }
}

/// Whatever the host is busy with: the guest's own time is a multiple of what the line takes of it.
#[test]
fn a_busy_guest_has_most_of_the_time_and_an_idle_one_is_not_kept_waiting() {
    let machine = Machine::new(2);
    let mut rig = machine.board(&[]);
    enable_fifo(&mut rig);
    let run = |rig: &mut Rig<'_>| {
        // How often it rests for more than twice the time that it was served. One round says nothing: this test may
        // itself stand still in one.
        let (mut rests, mut served) = (0, Duration::ZERO);
        for round in 0..41 {
            machine.console(UART_CONSOLE).push_input(&text(16));
            let rest = Instant::now();
            while rig.load(LSR, 1) & RECEIVED == 0 {
                rig.board.poll();
            }
            rests += u32::from(round > 0 && rest.elapsed() > served * 2);
            let start = Instant::now();
            // The handler is slow.
            std::thread::sleep(Duration::from_millis(1));
            assert!(!service(rig).is_empty());
            served = start.elapsed();
        }
        rests
    };
    let rests = run(&mut rig);
    assert!(rests > 20, "{rests} of 40 rests were long enough");
    for hart in &machine.vm.parties[..2] {
        hart.doorbell.sleepers.set(1);
    }
    let rests = run(&mut rig);
    assert!(rests < 20, "it sleeps, and {rests} of 40 rests are long");
}

#[test]
fn what_a_killed_process_had_received_comes_once() {
    let machine = Machine::new(1);
    let mut rig = machine.board(&[]);
    enable_fifo(&mut rig);
    machine.console(UART_CONSOLE).push_input(&text(40));
    rig.board.poll();
    assert_eq!(machine.console(UART_CONSOLE).input_tail.get(), 16);
    drop(rig);
    // As after a kill between the publication and the console's word.
    machine.console(UART_CONSOLE).input_tail.set(0);
    let mut rig = machine.board(&[]);
    assert_eq!(machine.console(UART_CONSOLE).input_tail.get(), 16);
    let mut got = vec![];
    while got.len() < 40 {
        rig.board.poll();
        got.extend(service(&mut rig));
    }
    assert!(got == text(40));
}

#[test]
fn what_a_killed_process_had_delivered_to_the_virtio_console_comes_once() {
    let machine = Machine::new(1);
    let mut rig = machine.board(&[VirtioDevice::Console]);
    let driver = Driver::start(&mut rig, 0, 0);
    let sent = text(300);
    let console = machine.console(VIRTIO_CONSOLE);
    let offer = |rig: &mut Rig<'_>, count: u16| {
        for index in 0..count {
            let gpa = BUFFERS + 0x1000 * u64::from(index);
            driver.describe(rig, 0, index, Desc { gpa, len: 100, flags: WRITE, next: 0 });
            driver.offer(rig, 0, index);
        }
    };
    let read = |from: u16, to: u16| {
        let mut got = vec![];
        for index in from..to {
            let at = BUFFERS + 0x1000 * u64::from(index % 2);
            let mut bytes = vec![0; 100];
            machine.ram.read(at, &mut bytes).expect("buffer");
            got.extend(bytes);
        }
        got
    };
    offer(&mut rig, 2);
    let before = machine.slots()[8].load().expect("state");
    console.push_input(&sent);
    rig.board.poll();
    assert_eq!((driver.used_index(&rig, 0), console.input_tail.get()), (2, 200));
    let first = read(0, 2);
    drop(rig);
    // As after a kill: the guest has its two buffers; neither the state nor, of the second, the console knows.
    machine.slots()[8].publish(&before.name, before.version, &before.bytes).expect("publish");
    console.input_tail.set(100);
    let mut rig = machine.board(&[VirtioDevice::Console]);
    assert_eq!(console.input_tail.get(), 200);
    offer(&mut rig, 1);
    rig.board.poll();
    assert_eq!(driver.used_index(&rig, 0), 3);
    assert!([first, read(2, 3)].concat() == sent);
    // As after a kill before the guest saw anything of it: it comes again.
    let before = machine.slots()[8].load().expect("state");
    console.push_input(&sent[..50]);
    drop(rig);
    machine.slots()[8].publish(&before.name, before.version, &before.bytes).expect("publish");
    let mut rig = machine.board(&[VirtioDevice::Console]);
    offer(&mut rig, 1);
    rig.board.poll();
    assert_eq!(console.input_tail.get(), 350);
    assert_eq!(machine.ram.load16(ring(0, 0).used + 2).expect("index"), 4);
}

#[test]
fn a_full_console_takes_no_more_until_the_guest_reads() {
    let machine = Machine::new(1);
    let mut rig = machine.board(&[]);
    enable_fifo(&mut rig);
    let console = machine.console(UART_CONSOLE);
    assert_eq!(console.push_input(&text(INPUT_BYTES + 1)), INPUT_BYTES);
    rig.board.poll();
    rig.board.poll();
    assert_eq!(console.push_input(&text(100)), 16, "one receiver's worth, and no byte overruns it");
    assert_eq!(service(&mut rig), text(16));
}
