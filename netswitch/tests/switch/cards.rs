//! Two cards on one network, over real segments, as the devices process and the supervisor use them.

use crate::hosts::{Card, Host};
use std::sync::atomic::Ordering;

#[test]
fn a_fast_sender_is_slowed_down_and_loses_nothing() {
    let host = Host::default();
    let (a, b) = (Card::attach(&host, "flow", 1), Card::attach(&host, "flow", 2));
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
    let (from, to) = (host.port(&a.name), host.port(&b.name));
    assert_eq!(from["frames_in"], FRAMES, "{from}");
    assert!(from["dropped"] == 0 && to["dropped"] == 0, "{from} {to}");
}

#[test]
fn a_card_that_scribbles_over_its_ring_harms_itself_alone() {
    let host = Host::default();
    let (bad, a, b) = (
        Card::attach(&host, "hostile", 1),
        Card::attach(&host, "hostile", 2),
        Card::attach(&host, "hostile", 3),
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
    host.switch.close();
    assert_eq!(bad.rings().link_up.load(Ordering::Acquire), 0);
}
