//! A driver of one virtio device: correct unless the test tells it not to be.

use super::{Bus, wait_until};
use quasar_abi::machine::RAM_BASE;

pub const STATUS: u64 = 0x70;
pub const INTERRUPT_STATUS: u64 = 0x60;
pub const INTERRUPT_ACK: u64 = 0x64;
pub const NOTIFY: u64 = 0x50;
pub const NEEDS_RESET: u32 = 64;
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
pub const F_INDIRECT: u64 = 1 << 28;
pub const F_EVENT_IDX: u64 = 1 << 29;
pub const F_VERSION_1: u64 = 1 << 32;

/// Where a queue's parts lie: 64 KiB per queue from the start of RAM; buffers from 1 MiB on.
#[derive(Clone, Copy)]
pub struct Ring {
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
}

pub const BUFFERS: u64 = RAM_BASE + (1 << 20);

pub fn ring(slot: u64, queue: u64) -> Ring {
    let base = RAM_BASE + (slot * 4 + queue) * 0x1_0000;
    Ring { desc: base, avail: base + 0x4000, used: base + 0x8000 }
}

#[derive(Clone, Copy)]
pub struct Desc {
    pub gpa: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

pub fn encode(desc: Desc) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&desc.gpa.to_le_bytes());
    bytes[8..12].copy_from_slice(&desc.len.to_le_bytes());
    bytes[12..14].copy_from_slice(&desc.flags.to_le_bytes());
    bytes[14..].copy_from_slice(&desc.next.to_le_bytes());
    bytes
}

pub struct Driver {
    pub slot: u64,
    pub size: u16,
    pub features: u64,
}

impl Driver {
    /// Resets the device, accepts `wanted` of what it offers, sets up every queue and starts it.
    pub fn start(rig: &mut impl Bus, slot: u64, wanted: u64) -> Self {
        let driver = Self::negotiate(rig, slot, wanted);
        for queue in 0.. {
            rig.set_register(slot, 0x30, queue);
            if rig.register(slot, 0x34) == 0 {
                break;
            }
            driver.place(rig, queue, ring(slot, queue.into()));
        }
        rig.set_register(slot, STATUS, 15);
        assert_eq!(rig.register(slot, STATUS), 15);
        driver
    }

    /// Everything up to FEATURES_OK.
    pub fn negotiate(rig: &mut impl Bus, slot: u64, wanted: u64) -> Self {
        rig.set_register(slot, STATUS, 0);
        assert_eq!(rig.register(slot, STATUS), 0, "reset");
        rig.set_register(slot, STATUS, 1);
        rig.set_register(slot, STATUS, 3);
        let mut offered = 0;
        for word in 0..2 {
            rig.set_register(slot, 0x14, word);
            offered |= u64::from(rig.register(slot, 0x10)) << (32 * word);
        }
        let features = offered & wanted | F_VERSION_1;
        for word in 0..2 {
            rig.set_register(slot, 0x24, word);
            rig.set_register(
                slot,
                0x20,
                u32::try_from(features >> (32 * word) & 0xffff_ffff).expect("32 bits"),
            );
        }
        rig.set_register(slot, STATUS, 11);
        assert_eq!(rig.register(slot, STATUS), 11, "features accepted");
        Self { slot, size: 16, features }
    }

    /// Sets a queue up where `ring` says.
    pub fn place(&self, rig: &mut impl Bus, queue: u32, ring: Ring) {
        rig.set_register(self.slot, 0x30, queue);
        rig.set_register(self.slot, 0x38, self.size.into());
        for (offset, gpa) in [(0x80, ring.desc), (0x90, ring.avail), (0xa0, ring.used)] {
            rig.set_register(self.slot, offset, u32::try_from(gpa & 0xffff_ffff).expect("32 bits"));
            rig.set_register(self.slot, offset + 4, u32::try_from(gpa >> 32).expect("32 bits"));
        }
        rig.set_register(self.slot, 0x44, 1);
    }

    pub fn describe(&self, rig: &impl Bus, queue: u64, index: u16, desc: Desc) {
        let at = ring(self.slot, queue).desc + 16 * u64::from(index);
        rig.machine().ram.write(at, &encode(desc)).expect("descriptor");
    }

    /// Makes the chain at `head` available, without notifying.
    pub fn offer(&self, rig: &impl Bus, queue: u64, head: u16) {
        let ring = ring(self.slot, queue);
        let ram = &rig.machine().ram;
        let index = ram.load16(ring.avail + 2).expect("index");
        ram.store16(ring.avail + 4 + 2 * u64::from(index % self.size), head).expect("entry");
        ram.store16(ring.avail + 2, index.wrapping_add(1)).expect("index");
    }

    pub fn notify(&self, rig: &mut impl Bus, queue: u32) {
        rig.set_register(self.slot, NOTIFY, queue);
    }

    pub fn used_index(&self, rig: &impl Bus, queue: u64) -> u16 {
        rig.machine().ram.load16(ring(self.slot, queue).used + 2).expect("index")
    }

    /// The used element at an index: head and length.
    pub fn used(&self, rig: &impl Bus, queue: u64, index: u16) -> (u32, u32) {
        let mut bytes = [0; 8];
        let at = ring(self.slot, queue).used + 4 + 8 * u64::from(index % self.size);
        rig.machine().ram.read(at, &mut bytes).expect("element");
        let [a, b, c, d, e, f, g, h] = bytes;
        (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
    }

    /// Puts `readable` and room for `writable` bytes at fixed places as one chain from descriptor 0, notifies, and
    /// returns what the device wrote, with the used length, once it is used.
    pub fn request<B: Bus>(
        &self,
        rig: &mut B,
        queue: u32,
        readable: &[&[u8]],
        writable: &[u32],
    ) -> (Vec<u8>, u32) {
        let (total, mut gpa) = (readable.len() + writable.len(), BUFFERS);
        let mut index = 0u16;
        let mut link = |rig: &B, gpa, len, flags| {
            let more = if usize::from(index) + 1 < total { NEXT } else { 0 };
            self.describe(rig, queue.into(), index, Desc { gpa, len, flags: flags | more, next: index + 1 });
            index += 1;
        };
        for bytes in readable {
            rig.machine().ram.write(gpa, bytes).expect("buffer");
            link(rig, gpa, u32::try_from(bytes.len()).expect("length"), 0);
            gpa += bytes.len() as u64 + 3;
        }
        let start = gpa;
        for len in writable {
            rig.machine().ram.fill(gpa, 0xee, (*len).into()).expect("buffer");
            link(rig, gpa, *len, WRITE);
            gpa += u64::from(*len) + 5;
        }
        let before = self.used_index(rig, queue.into());
        self.offer(rig, queue.into(), 0);
        self.notify(rig, queue);
        wait_until("a used buffer", || self.used_index(rig, queue.into()) != before);
        let (head, len) = self.used(rig, queue.into(), before);
        assert_eq!(head, 0);
        let (mut written, mut gpa) = (vec![], start);
        for size in writable {
            let mut piece = vec![0; *size as usize];
            rig.machine().ram.read(gpa, &mut piece).expect("buffer");
            written.append(&mut piece);
            gpa += u64::from(*size) + 5;
        }
        (written, len)
    }
}
