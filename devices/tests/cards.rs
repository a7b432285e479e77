//! Network card, console, entropy and power key, through real rings.

mod kit;

use kit::driver::{BUFFERS, Desc, Driver, F_EVENT_IDX, INTERRUPT_STATUS, NEEDS_RESET, STATUS, WRITE, ring};
use kit::{Bus, Machine, Rig, wait_until};
use quasar_abi::Segment;
use quasar_abi::console::VIRTIO_CONSOLE;
use quasar_abi::frames::PortSegment;
use quasar_abi::machine::VirtioDevice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const F_MRG_RXBUF: u64 = 1 << 15;

fn net() -> (Arc<Segment>, VirtioDevice) {
    let port = kit::port();
    let device = VirtioDevice::Net { port: port.grant(), mac: [2, 1, 2, 3, 4, 5] };
    (port, device)
}

fn rings(port: &Segment) -> &PortSegment {
    port.view(0).expect("port")
}

/// Offers `count` receive buffers of `len` bytes each.
fn offer_receive(driver: &Driver, rig: &mut Rig<'_>, first: u16, count: u16, len: u32) {
    for index in first..first + count {
        let gpa = BUFFERS + 0x1000 * u64::from(index);
        driver.describe(rig, 0, index, Desc { gpa, len, flags: WRITE, next: 0 });
        driver.offer(rig, 0, index);
    }
    driver.notify(rig, 0);
}

fn received(rig: &Rig<'_>, index: u16, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rig.machine.ram.read(BUFFERS + 0x1000 * u64::from(index), &mut bytes).expect("buffer");
    bytes
}

#[test]
fn frames_go_out_without_their_header() {
    let (port, device) = net();
    let machine = Machine::new(1);
    let mut rig = machine.board(&[device]);
    assert_eq!(rings(&port).card_up.get(), 0);
    let driver = Driver::start(&mut rig, 0, u64::MAX);
    assert_eq!(rings(&port).card_up.get(), 1);
    assert_eq!((rig.load(0x1000_1100, 4), rig.load(0x1000_1104, 2)), (0x0302_0102, 0x0504));
    driver.request(&mut rig, 1, &[&[0; 12], b"a frame", b" in two"], &[]);
    driver.request(&mut rig, 1, &[&[0; 10], &[0; 2], b"another"], &[]);
    driver.request(&mut rig, 1, &[&[0; 12]], &[]);
    let (mut frame, ring) = (vec![], &rings(&port).to_switch);
    assert_eq!((ring.pop(&mut frame), frame.as_slice()), (Ok(true), b"a frame in two".as_slice()));
    assert_eq!((ring.pop(&mut frame), frame.as_slice()), (Ok(true), b"another".as_slice()));
    assert_eq!(ring.pop(&mut frame), Ok(false), "an empty frame is none");
    rig.set_register(0, STATUS, 0);
    assert_eq!(rings(&port).card_up.get(), 0);
}

#[test]
fn a_full_ring_to_the_switch_holds_frames_back() {
    let (port, device) = net();
    let machine = Machine::new(1);
    let mut rig = machine.board(&[device]);
    let driver = Driver::start(&mut rig, 0, F_EVENT_IDX);
    let ring = &rings(&port).to_switch;
    while ring.push(&[7; 1500]).is_ok() {}
    let bytes = [&[0; 12], [9; 1500].as_slice()].concat();
    rig.machine.ram.write(BUFFERS, &bytes).expect("frame");
    driver.describe(&rig, 1, 0, Desc { gpa: BUFFERS, len: 1512, flags: 0, next: 0 });
    driver.offer(&rig, 1, 0);
    driver.notify(&mut rig, 1);
    assert_eq!((driver.used_index(&rig, 1), ring.full.get()), (0, 1));
    assert!(rig.board.poll().is_some(), "it is tried again soon");
    let mut frame = vec![];
    while ring.pop(&mut frame) == Ok(true) {}
    rig.board.poll();
    assert_eq!((driver.used_index(&rig, 1), ring.full.get()), (1, 0));
    assert_eq!((ring.pop(&mut frame), frame.len()), (Ok(true), 1500));
}

#[test]
fn frames_come_in_and_wait_for_buffers() {
    let (port, device) = net();
    let machine = Machine::new(1);
    let mut rig = machine.board(&[device]);
    let driver = Driver::start(&mut rig, 0, F_MRG_RXBUF | F_EVENT_IDX);
    for byte in 1..=3 {
        rings(&port).to_card.push(&[byte; 100]).expect("room");
    }
    offer_receive(&driver, &mut rig, 0, 2, 1526);
    wait_until("two frames", || driver.used_index(&rig, 0) == 2);
    assert_eq!(driver.used(&rig, 0, 0), (0, 112));
    assert_eq!(received(&rig, 0, 112), [&[0; 10], [1, 0].as_slice(), &[1; 100]].concat());
    assert_eq!(received(&rig, 1, 112)[12..], [2; 100]);
    offer_receive(&driver, &mut rig, 2, 1, 1526);
    wait_until("the third", || driver.used_index(&rig, 0) == 3);
    assert_eq!(received(&rig, 2, 112)[12..], [3; 100]);
    wait_until("an interrupt", || rig.register(0, INTERRUPT_STATUS) == 1);
}

#[test]
fn a_long_frame_spreads_over_buffers_when_that_was_agreed() {
    let (port, device) = net();
    let machine = Machine::new(1);
    let mut rig = machine.board(&[device]);
    let driver = Driver::start(&mut rig, 0, F_MRG_RXBUF | F_EVENT_IDX);
    offer_receive(&driver, &mut rig, 0, 1, 1000);
    rings(&port).to_card.push(&[5; 2000]).expect("room");
    let wish = || machine.ram.load16(ring(0, 0).used + 4 + 8 * 16).expect("avail_event");
    wait_until("the wish for the second buffer", || wish() == 1);
    assert_eq!(driver.used_index(&rig, 0), 0, "not in part");
    offer_receive(&driver, &mut rig, 1, 2, 1000);
    wait_until("the frame", || driver.used_index(&rig, 0) == 3);
    assert_eq!([0, 1, 2].map(|n| driver.used(&rig, 0, n)), [(0, 1000), (1, 1000), (2, 12)]);
    assert_eq!(received(&rig, 0, 12)[10..], [3, 0]);

    let driver = Driver::start(&mut rig, 0, 0);
    rig.machine.ram.fill(ring(0, 0).desc, 0, 0x1_0000).expect("clear");
    rings(&port).to_card.push(&[5; 2000]).expect("room");
    rings(&port).to_card.push(&[6; 20]).expect("room");
    offer_receive(&driver, &mut rig, 0, 3, 1000);
    wait_until("the short frame", || driver.used_index(&rig, 0) == 1);
    assert_eq!(received(&rig, 0, 32)[10..13], [1, 0, 6], "the long one was dropped");
}

#[test]
fn the_console_writes_and_reads() {
    let machine = Machine::new(1);
    let mut rig = machine.board(&[VirtioDevice::Console]);
    let driver = Driver::start(&mut rig, 0, u64::MAX);
    driver.request(&mut rig, 1, &[b"hello ", b"console\n"], &[]);
    assert_eq!(machine.console_text(VIRTIO_CONSOLE), "hello console\n");
    driver.describe(&rig, 0, 0, Desc { gpa: BUFFERS, len: 4, flags: WRITE, next: 0 });
    driver.describe(&rig, 0, 1, Desc { gpa: BUFFERS + 8, len: 64, flags: WRITE, next: 0 });
    driver.offer(&rig, 0, 0);
    driver.offer(&rig, 0, 1);
    driver.notify(&mut rig, 0);
    assert_eq!(driver.used_index(&rig, 0), 0);
    machine.console(VIRTIO_CONSOLE).push_input(b"typed");
    rig.board.poll();
    assert_eq!((driver.used(&rig, 0, 0), driver.used(&rig, 0, 1)), ((0, 4), (1, 1)));
    let mut bytes = [0; 9];
    machine.ram.read(BUFFERS, &mut bytes).expect("buffer");
    assert_eq!((&bytes[..4], bytes[8]), (b"type".as_slice(), b'd'));
}

#[test]
fn console_output_beyond_measure_breaks_the_console() {
    let machine = Machine::new(1);
    let mut rig = machine.board(&[VirtioDevice::Console]);
    let driver = Driver::start(&mut rig, 0, 0);
    driver.describe(&rig, 1, 0, Desc { gpa: BUFFERS, len: 2 << 20, flags: 0, next: 0 });
    driver.offer(&rig, 1, 0);
    driver.notify(&mut rig, 1);
    assert_ne!(rig.register(0, STATUS) & NEEDS_RESET, 0);
}

#[test]
fn entropy_differs_each_time() {
    let machine = Machine::new(1);
    let mut rig = machine.board(&[VirtioDevice::Rng]);
    let driver = Driver::start(&mut rig, 0, u64::MAX);
    let (first, len) = driver.request(&mut rig, 0, &[], &[32, 32]);
    let (second, _) = driver.request(&mut rig, 0, &[], &[32, 32]);
    assert_eq!(len, 64);
    assert!(first != second && first != [0xee; 64]);
}

#[test]
fn the_power_key_goes_down_and_up() {
    let machine = Machine::new(1);
    let mut rig = machine.board(&[VirtioDevice::Rng, VirtioDevice::PowerButton]);
    let config = 0x1000_2100;
    assert_eq!(rig.board.cards()[1].press_power(), Some(false), "nobody listens");
    let driver = Driver::start(&mut rig, 1, u64::MAX);
    rig.store(config, 1, 0x11);
    rig.store(config + 1, 1, 1);
    assert_eq!((rig.load(config + 2, 1), rig.load(config + 8 + 14, 1)), (15, 1 << 4));
    rig.store(config, 1, 1);
    rig.store(config + 1, 1, 0);
    assert_eq!(rig.load(config + 2, 1), 19);
    let offer = |rig: &mut Rig<'_>, indices: std::ops::Range<u16>| {
        for index in indices {
            let gpa = BUFFERS + 8 * u64::from(index);
            driver.describe(rig, 0, index, Desc { gpa, len: 8, flags: WRITE, next: 0 });
            driver.offer(rig, 0, index);
        }
        driver.notify(rig, 0);
    };
    offer(&mut rig, 0..3);
    assert_eq!(rig.board.cards()[0].press_power(), None);
    assert_eq!(rig.board.cards()[1].press_power(), Some(true));
    rig.board.poll();
    assert_eq!(driver.used_index(&rig, 0), 3, "the rest waits for a buffer");
    offer(&mut rig, 3..6);
    assert_eq!(driver.used_index(&rig, 0), 4);
    let mut events = [0; 32];
    machine.ram.read(BUFFERS, &mut events).expect("events");
    let event = |kind: u8, code: u8, value: u8| [kind, 0, code, 0, value, 0, 0, 0];
    assert_eq!(events, *[event(1, 116, 1), event(0, 0, 0), event(1, 116, 0), event(0, 0, 0)].as_flattened());
    assert_eq!(rig.register(1, INTERRUPT_STATUS), 1);
}

#[test]
fn writes_to_memory_are_marked_while_they_are_logged() {
    let machine = Machine::new(1);
    let mut rig = machine.board(&[VirtioDevice::Rng]);
    let driver = Driver::start(&mut rig, 0, 0);
    driver.request(&mut rig, 0, &[], &[32]);
    assert_eq!((machine.maps.count(0), machine.maps.count(1)), (0, 0), "nobody logs");
    machine.vm.log_active.set(1);
    let closed = machine.vm.next_epoch();
    rig.host.dma.acknowledge_epoch();
    driver.request(&mut rig, 0, &[], &[32]);
    let mut pages = vec![];
    machine.maps.drain(closed + 1, |gpa| pages.push(gpa));
    assert_eq!(pages, [ring(0, 0).used, BUFFERS], "the used ring and the buffer");
    machine.vm.log_active.store(0, Ordering::SeqCst);
}
