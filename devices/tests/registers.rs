//! Whatever a hart does to the registers, no device panics, and what it has saved can be taken up again.

mod kit;

use kit::driver::Driver;
use kit::{Machine, TAG};
use proptest::prelude::*;
use quasar_abi::machine::{ACLINT, PLIC, RTC, Region, SYSCON, UART, VIRTIO, VirtioDevice};
use quasar_abi::vm::pause;

const REGIONS: [Region; 6] = [SYSCON, RTC, ACLINT, PLIC, UART, VIRTIO];

#[derive(Clone, Debug)]
struct Step {
    gpa: u64,
    len: u32,
    store: Option<u64>,
}

/// Mostly registers that exist, mostly aligned words, values of all sizes.
fn step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![
        6 => (0..0x130u64).prop_map(|offset| offset & !3),
        2 => 0..0x140u64,
        1 => (0..0x60_0000u64).prop_map(|offset| offset & !3),
        1 => prop::sample::select(vec![0x1000u64, 0x2000, 0x2080, 0x20_0000, 0x20_0004, 0x20_1004, 0x4000, 0xbff8]),
        2 => (0..8u64, 0..0x200u64).prop_map(|(slot, offset)| slot * 0x1000 + (offset & !3)),
    ];
    let value = prop_oneof![0..16u64, any::<u64>(), Just(1u64), (0..32u32).prop_map(|bit| 1 << bit)];
    let len = prop_oneof![8 => Just(4u32), 2 => Just(1), 1 => Just(2), 1 => Just(8), 1 => any::<u32>()];
    let store = prop_oneof![Just(None), value.prop_map(Some)];
    (0..REGIONS.len(), offset, len, store).prop_map(|(region, offset, len, store)| Step {
        gpa: REGIONS[region].base + offset,
        len,
        store,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_accesses_leave_a_state_that_continues(
        steps in prop::collection::vec(step(), 1..400),
        input in prop::collection::vec(any::<u8>(), 0..40),
        started in any::<bool>(),
    ) {
        let machine = Machine::new(2);
        let virtio = [VirtioDevice::Console, VirtioDevice::Rng, VirtioDevice::PowerButton];
        let mut rig = machine.board(&virtio);
        if started {
            for slot in 0..3 {
                Driver::start(&mut rig, slot, u64::MAX);
            }
        }
        machine.console(0).push_input(&input);
        for Step { gpa, len, store } in &steps {
            rig.board.access(*gpa, *len, *store, TAG);
            rig.board.poll();
        }
        rig.board.flush();
        machine.vm.unpause(pause::GUEST);
        drop(rig);
        let saved = machine.saved_states();
        let again = machine.try_board(&virtio);
        prop_assert!(again.is_ok(), "{:?}", again.err());
        drop(again);
        prop_assert_eq!(machine.saved_states(), saved);
    }
}

#[test]
fn what_is_no_state_of_the_device_is_refused() {
    let virtio = [VirtioDevice::Rng];
    let refused = |act: fn(&Machine)| {
        let machine = Machine::new(1);
        drop(machine.board(&virtio));
        act(&machine);
        machine.try_board(&virtio).map(drop).expect_err("refused").to_string()
    };
    let change = |machine: &Machine, slot: usize, at: usize, byte: u8| {
        let mut saved = machine.slots()[slot].load().expect("saved");
        saved.bytes[16 + at] = byte;
        machine.slots()[slot].publish(&saved.name, saved.version, &saved.bytes).expect("publish");
    };
    let message = refused(|machine| machine.slots()[0].publish("plic", 1, &[0; 20]).expect("publish"));
    assert!(message.contains("plic has 2628 bytes, not 4") || message.contains("bytes, not 4"), "{message}");
    let message = refused(|machine| machine.slots()[8].publish("virtio0.net", 1, &[0; 20]).expect("publish"));
    assert!(message.contains("virtio0.net") && message.contains("virtio0.rng"), "{message}");
    for (slot, at, byte) in [(0, 4, 9), (1, 16 * 8, 2), (2, 10, 17), (3, 20, 2), (8, 20, 0x10)] {
        let machine = Machine::new(1);
        drop(machine.board(&virtio));
        change(&machine, slot, at, byte);
        let refused = machine.try_board(&virtio).map(drop);
        assert!(refused.is_err(), "slot {slot} byte {at}");
    }
}
