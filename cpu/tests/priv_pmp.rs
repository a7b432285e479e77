//! PMP registers: legal configurations and locks (RISC-V Privileged 1.13, 3.7).

mod priv_support;

use priv_support::{read, write};
use quasar_cpu::hart::Hart;

fn set_entry(hart: &mut Hart, entry: u16, byte: u8) {
    let register = 0x3a0 + entry / 8 * 2;
    let shift = entry % 8 * 8;
    let old = read(hart, register) & !(0xff << shift);
    write(hart, register, old | u64::from(byte) << shift);
}

#[test]
fn every_configuration_byte() {
    for byte in 0..=255u8 {
        let mut hart = Hart::new(0);
        write(&mut hart, 0x3a0, u64::from(byte));
        let stored = read(&mut hart, 0x3a0);
        let reserved_pair = byte & 3 == 2;
        let expected = byte & 0x9f & if reserved_pair { !2 } else { !0 };
        assert_eq!(stored, expected.into(), "{byte:#x}");
    }
}

#[test]
fn a_locked_entry_keeps_its_configuration_and_address() {
    for entry in 0..16u16 {
        let mut hart = Hart::new(0);
        write(&mut hart, 0x3b0 + entry, 0x1000);
        set_entry(&mut hart, entry, 0x80 | 0x18 | 5);
        for byte in [0, 0x1f, 0x9f] {
            set_entry(&mut hart, entry, byte);
            assert_eq!(hart.csr.pmp_config(entry.into()), 0x9d);
        }
        write(&mut hart, 0x3b0 + entry, 0x2000);
        assert_eq!(read(&mut hart, 0x3b0 + entry), 0x1000);
        // Neighbours are free: NAPOT has no lower bound.
        for other in (0..16).filter(|other| *other != entry) {
            set_entry(&mut hart, other, 0x0f);
            write(&mut hart, 0x3b0 + other, 0x3000 + u64::from(other));
            assert_eq!(hart.csr.pmp_config(other.into()), 0x0f);
            assert_eq!(read(&mut hart, 0x3b0 + other), 0x3000 + u64::from(other));
        }
    }
}

#[test]
fn a_locked_range_locks_its_lower_bound_too() {
    for entry in 1..16u16 {
        let mut hart = Hart::new(0);
        write(&mut hart, 0x3b0 + entry - 1, 0x1000);
        set_entry(&mut hart, entry, 0x80 | 0x08 | 1);
        write(&mut hart, 0x3b0 + entry - 1, 0x2000);
        assert_eq!(read(&mut hart, 0x3b0 + entry - 1), 0x1000);
        set_entry(&mut hart, entry - 1, 0x1f);
        assert_eq!(hart.csr.pmp_config(usize::from(entry) - 1), 0x1f, "the configuration below is free");
    }
}

#[test]
fn an_unlocked_range_locks_nothing() {
    let mut hart = Hart::new(0);
    set_entry(&mut hart, 4, 0x0f);
    write(&mut hart, 0x3b3, 0x2000);
    write(&mut hart, 0x3b4, 0x3000);
    assert_eq!((read(&mut hart, 0x3b3), read(&mut hart, 0x3b4)), (0x2000, 0x3000));
}
