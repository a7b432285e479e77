//! Packet rings and console rings.

use loom::thread;
use quasar_abi::ShmLayout;
use quasar_abi::console::Console;
use quasar_abi::frames::{FrameRing, PushError};
use quasar_abi::sync::model;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// As `push_patiently` in quasar-netswitch, with all the patience there is.
fn push(ring: &FrameRing, frame: &[u8]) {
    loop {
        let seen = ring.room_bell.seen();
        ring.full.store(1, Ordering::SeqCst);
        let pushed = ring.push(frame);
        if pushed != Err(PushError::Full) {
            ring.full.store(0, Ordering::Relaxed);
            return pushed.unwrap();
        }
        ring.room_bell.wait(seen, None);
    }
}

fn pop(ring: &FrameRing, frame: &mut Vec<u8>) {
    loop {
        let seen = ring.data_bell.seen();
        if ring.pop(frame).unwrap() {
            return;
        }
        ring.data_bell.wait(seen, None);
    }
}

/// The ring has room for two such frames.
#[test]
fn frames_arrive_whole_and_in_order_through_a_ring_that_fills_up() {
    model(2, || {
        let ring = Arc::new(FrameRing::zeroed());
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                for byte in 1..=3 {
                    push(&ring, &[byte; 5]);
                }
            })
        };
        let mut frame = vec![];
        for byte in 1..=3 {
            pop(&ring, &mut frame);
            assert_eq!(frame, [byte; 5]);
        }
        producer.join().unwrap();
        assert!(!ring.has_frames());
    });
}

#[test]
fn a_producer_that_waits_for_room_is_woken() {
    model(3, || {
        let ring = Arc::new(FrameRing::zeroed());
        ring.push(&[1]).unwrap();
        ring.push(&[2]).unwrap();
        let consumer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || assert_eq!(ring.pop(&mut vec![]), Ok(true)))
        };
        push(&ring, &[3]);
        consumer.join().unwrap();
    });
}

#[test]
fn a_producer_that_waits_is_woken_by_a_ring_that_was_damaged_and_emptied() {
    model(2, || {
        let ring = Arc::new(FrameRing::zeroed());
        ring.push(&[1]).unwrap();
        ring.push(&[2]).unwrap();
        ring.words[0].set(u64::MAX);
        let consumer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || assert!(ring.pop(&mut vec![]).is_err()))
        };
        push(&ring, &[3]);
        consumer.join().unwrap();
    });
}

/// The console keeps 4 bytes of output and has room for 2 of input in a model.
#[test]
fn console_bytes_arrive_in_both_directions() {
    model(2, || {
        let console = Arc::new(Console::zeroed());
        let guest = {
            let console = Arc::clone(&console);
            thread::spawn(move || {
                console.write(b"ab");
                console.write(b"c");
                let mut input = vec![];
                while input.len() < 2 {
                    let waiting = console.waiting_input(2);
                    if waiting.is_empty() {
                        thread::yield_now();
                    }
                    input.extend(waiting);
                    console.input_taken(input.len() as u64);
                }
                assert_eq!(input, b"xy");
            })
        };
        assert_eq!(console.push_input(b"xyz"), 2);
        let (mut from, mut all) = (0, vec![]);
        while all.len() < 3 {
            let seen = console.output_bell.seen();
            let mut out = [0; 4];
            let (count, next) = console.read(from, &mut out);
            if count == 0 {
                console.output_bell.wait(seen, None);
            }
            all.extend_from_slice(&out[..count]);
            from = next;
        }
        assert_eq!(all, b"abc");
        guest.join().unwrap();
    });
}
