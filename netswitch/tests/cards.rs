//! Two cards on one network, over real segments, as the devices process and the supervisor use them.

use quasar_abi::control::Reply;
use quasar_abi::control::netswitch::NetswitchCommand;
use quasar_abi::frames::{PortSegment, PushError};
use quasar_abi::{Segment, SegmentKind};
use quasar_netswitch::serve::carry_out;
use quasar_netswitch::switch::Switch;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

struct Card {
    segment: Segment,
    mac: [u8; 6],
}

impl Card {
    fn attach(switch: &Arc<Switch>, test: &str, n: u8) -> Self {
        let name = format!("/quasar-test-{}-{test}-{n}", std::process::id());
        let segment =
            Segment::create(&name, SegmentKind::Port, size_of::<PortSegment>(), 1).expect("segment");
        let card = Self { segment, mac: [2, 0, 0, 0, 0, n] };
        card.rings().card_up.store(1, Ordering::Release);
        let attach = NetswitchCommand::AttachPort {
            network: test.into(),
            port: format!("{test}/{n}"),
            segment: name,
            mac: card.mac,
        };
        assert_eq!(carry_out(switch, attach.clone()).expect("attach"), Reply::Unit);
        assert_eq!(carry_out(switch, attach).expect("a repeated attach changes nothing"), Reply::Unit);
        card
    }

    fn rings(&self) -> &PortSegment {
        self.segment.view(0).expect("rings")
    }

    fn send(&self, to: [u8; 6], payload: &[u8]) {
        let frame = [&to[..], &self.mac, &[0x88, 0xb5], payload].concat();
        while self.rings().to_switch.push(&frame) == Err(PushError::Full) {
            std::thread::yield_now();
        }
    }

    fn receive(&self) -> Vec<u8> {
        let ring = &self.rings().to_card;
        let mut frame = vec![];
        loop {
            let seen = ring.data_bell.seen();
            if ring.pop(&mut frame).expect("whole ring") {
                return frame.split_off(14);
            }
            ring.data_bell.wait(seen, Some(Duration::from_secs(5)));
        }
    }
}

#[test]
fn a_fast_sender_is_slowed_down_and_loses_nothing() {
    let switch = Arc::new(Switch::default());
    let (a, b) = (Card::attach(&switch, "flow", 1), Card::attach(&switch, "flow", 2));
    const FRAMES: u32 = 20_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..FRAMES {
                let len = 50 + n as usize % 1400;
                a.send(b.mac, &[&n.to_le_bytes()[..], &vec![0; len]].concat());
            }
        });
        for n in 0..FRAMES {
            let payload = b.receive();
            assert_eq!(payload[..4], n.to_le_bytes());
            assert_eq!(payload.len(), 54 + n as usize % 1400);
        }
    });
    let Reply::Json(report) = carry_out(&switch, NetswitchCommand::Stats).expect("stats") else {
        panic!("no JSON")
    };
    assert!(
        report.contains(r#""dropped":0"#) && report.contains(&format!(r#""frames_in":{FRAMES}"#)),
        "{report}"
    );
    switch.close();
}

#[test]
fn a_card_that_scribbles_over_its_ring_harms_itself_alone() {
    let switch = Arc::new(Switch::default());
    let (bad, a, b) = (
        Card::attach(&switch, "hostile", 1),
        Card::attach(&switch, "hostile", 2),
        Card::attach(&switch, "hostile", 3),
    );
    let ring = &bad.rings().to_switch;
    for head in [8, u64::MAX, 1 << 40, 24] {
        for word in &ring.words[..64] {
            word.set(u64::MAX - 7);
        }
        ring.head.store(ring.tail.get().wrapping_add(head), Ordering::Release);
        ring.data_bell.ring();
        a.send(b.mac, b"still here");
        assert_eq!(b.receive(), b"still here");
    }
    switch.close();
    assert_eq!(bad.rings().link_up.load(Ordering::Acquire), 0);
}
