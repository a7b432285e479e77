//! The ACLINT's registers, without any host.

use super::state::AclintState;
use crate::access::{Access, half, low32, with_half};

const MTIMECMP: u64 = 0x4000;
const MTIME: u64 = 0xbff8;

/// How much of a 64-bit register is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// Bits 31:0.
    Low,
    /// Bits 63:32.
    High,
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Software interrupt of a hart.
    Msip(usize),
    /// Timer of a hart.
    Mtimecmp(usize, Part),
    /// The time. Writes are ignored: the clock is the VM's and harts read it without asking.
    Mtime(Part),
}

/// Which register an access means on a machine with so many harts; nothing answers elsewhere.
#[must_use]
pub fn decode(access: &Access, harts: u32) -> Option<Register> {
    let part = match (access.is(8), access.is(4), access.offset % 8) {
        (true, _, _) => Part::Whole,
        (_, true, 0) => Part::Low,
        (_, true, _) => Part::High,
        _ => return None,
    };
    let hart = |base: u64, stride: u64| {
        let hart = (access.offset - base) / stride;
        (hart < u64::from(harts)).then(|| usize::try_from(hart).ok()).flatten()
    };
    match access.offset {
        0..MTIMECMP if access.len == 4 => hart(0, 4).map(Register::Msip),
        MTIMECMP..MTIME => hart(MTIMECMP, 8).map(|hart| Register::Mtimecmp(hart, part)),
        MTIME.. if access.offset < MTIME + 8 => Some(Register::Mtime(part)),
        _ => None,
    }
}

fn read_part(value: u64, part: Part) -> u64 {
    match part {
        Part::Whole => value,
        Part::Low | Part::High => half(value, part == Part::High).into(),
    }
}

impl AclintState {
    /// Reads a register; `now` is the time.
    #[must_use]
    pub fn read(&self, register: Register, now: u64) -> u64 {
        match register {
            Register::Msip(hart) => self.msip[hart].get().into(),
            Register::Mtimecmp(hart, part) => read_part(self.mtimecmp[hart].get(), part),
            Register::Mtime(part) => read_part(now, part),
        }
    }

    /// Writes a register.
    pub fn write(&mut self, register: Register, value: u64) {
        match register {
            Register::Msip(hart) => self.msip[hart] = (low32(value) & 1).into(),
            Register::Mtimecmp(hart, part) => {
                let old = self.mtimecmp[hart].get();
                self.mtimecmp[hart] = match part {
                    Part::Whole => value,
                    Part::Low | Part::High => with_half(old, part == Part::High, low32(value)),
                }
                .into();
            }
            Register::Mtime(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Tag;

    fn at(offset: u64, len: u32) -> Access {
        Access { offset, len, store: None, tag: Tag { hart: 0, posted: 0 } }
    }

    #[test]
    fn registers_are_where_the_clint_has_them() {
        assert_eq!(decode(&at(4, 4), 2), Some(Register::Msip(1)));
        assert_eq!(decode(&at(8, 4), 2), None, "no such hart");
        assert_eq!(decode(&at(0, 8), 2), None, "msip has 32 bits");
        assert_eq!(decode(&at(0x4008, 8), 2), Some(Register::Mtimecmp(1, Part::Whole)));
        assert_eq!(decode(&at(0x400c, 4), 2), Some(Register::Mtimecmp(1, Part::High)));
        assert_eq!(decode(&at(0x4004, 8), 2), None, "misaligned");
        assert_eq!(decode(&at(0xbff8, 8), 2), Some(Register::Mtime(Part::Whole)));
        assert_eq!(decode(&at(0xbffc, 4), 2), Some(Register::Mtime(Part::High)));
        assert_eq!(decode(&at(0xc000, 4), 2), None);
    }

    #[test]
    fn halves_of_a_timer_are_written_apart() {
        let mut aclint = AclintState::default();
        aclint.write(Register::Mtimecmp(0, Part::Low), 0x1122_3344);
        aclint.write(Register::Mtimecmp(0, Part::High), 0x5566_7788);
        assert_eq!(aclint.read(Register::Mtimecmp(0, Part::Whole), 0), 0x5566_7788_1122_3344);
        assert_eq!(aclint.read(Register::Mtime(Part::High), 0x9_0000_0001), 9);
        aclint.write(Register::Msip(0), 0xff);
        assert_eq!(aclint.read(Register::Msip(0), 0), 1);
    }
}
