//! ELF programs: what to put where, where to begin, and which symbols matter.

use object::elf::{EM_RISCV, FileHeader64, PT_LOAD};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSymbol};
use quasar_abi::ram::{GuestRam, NotRam};

/// Why an ELF file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ElfFault {
    /// Damaged or no 64-bit little-endian ELF.
    #[error("it is no 64-bit little-endian ELF file, or it is damaged: {0}")]
    Malformed(String),
    /// Another machine's program.
    #[error("it is a program for machine {0}, not for RISC-V (243)")]
    Machine(u16),
    /// Nothing to load.
    #[error("it has nothing to load")]
    Empty,
    /// It does not fit.
    #[error("it does not fit into RAM: {0}; give the machine more memory or link the program elsewhere")]
    Range(#[from] NotRam),
}

impl From<object::Error> for ElfFault {
    fn from(error: object::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A program as it lies in a file.
pub struct Program<'a> {
    file: ElfFile64<'a, LittleEndian>,
    segments: Vec<Loadable<'a>>,
}

struct Loadable<'a> {
    vaddr: u64,
    paddr: u64,
    memory: u64,
    bytes: &'a [u8],
}

/// Whether these bytes begin an ELF file.
#[must_use]
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

impl<'a> Program<'a> {
    /// Reads the headers.
    ///
    /// # Errors
    /// [`ElfFault`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ElfFault> {
        let header = FileHeader64::<LittleEndian>::parse(bytes)?;
        let endian = header.endian()?;
        let machine = header.e_machine.get(endian);
        if machine != EM_RISCV {
            return Err(ElfFault::Machine(machine.0));
        }
        let mut segments = vec![];
        for entry in header.program_headers(endian, bytes)? {
            if entry.p_type(endian) != PT_LOAD || entry.p_memsz(endian) == 0 {
                continue;
            }
            let data = entry
                .data(endian, bytes)
                .map_err(|()| ElfFault::Malformed("a segment lies outside the file".into()))?;
            segments.push(Loadable {
                vaddr: entry.p_vaddr(endian),
                paddr: entry.p_paddr(endian),
                memory: entry.p_memsz(endian).max(data.len() as u64),
                bytes: data,
            });
        }
        if segments.is_empty() {
            return Err(ElfFault::Empty);
        }
        Ok(Self { file: ElfFile64::parse(bytes)?, segments })
    }

    /// The physical address of a virtual one, by the segment that holds it; others are taken as they are.
    fn physical(&self, vaddr: u64) -> u64 {
        let inside = |s: &&Loadable<'_>| vaddr.wrapping_sub(s.vaddr) < s.memory;
        self.segments.iter().find(inside).map_or(vaddr, |s| s.paddr.wrapping_add(vaddr - s.vaddr))
    }

    /// Physical address of the first instruction.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.physical(self.file.entry())
    }

    /// First physical address behind what is loaded.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.segments.iter().map(|s| s.paddr.saturating_add(s.memory)).max().unwrap_or(0)
    }

    /// Physical address of a symbol.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        let symbol = self.file.symbols().find(|s| s.is_definition() && s.name() == Ok(name))?;
        Some(self.physical(symbol.address()))
    }

    /// Writes the segments into RAM, with zeroes behind them where the file says so.
    ///
    /// # Errors
    /// [`ElfFault::Range`].
    pub fn load(&self, ram: &GuestRam) -> Result<(), ElfFault> {
        for segment in &self.segments {
            if !ram.contains(segment.paddr, segment.memory) {
                return Err(NotRam { gpa: segment.paddr, len: segment.memory }.into());
            }
            ram.write(segment.paddr, segment.bytes)?;
            let written = segment.bytes.len() as u64;
            if segment.memory > written {
                ram.fill(segment.paddr + written, 0, segment.memory - written)?;
            }
        }
        Ok(())
    }
}

/// A program of one segment for tests: `bytes` at `paddr`, zeroes up to `memory`, entry at its start, linked
/// at `vaddr`.
#[cfg(test)]
pub(crate) fn synthetic(vaddr: u64, paddr: u64, bytes: &[u8], memory: u64) -> Vec<u8> {
    let mut file = vec![];
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2_u16, 243] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(&1_u32.to_le_bytes());
    for word in [vaddr, 64, 0] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(&[1_u32, 7].map(u32::to_le_bytes).concat());
    for word in [120, vaddr, paddr, bytes.len() as u64, memory, 8] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(bytes);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::{Segment, SegmentKind};
    use std::sync::Arc;

    fn ram(test: &str) -> GuestRam {
        let name = format!("/quasar-test-{}-{test}", std::process::id());
        let segment = Segment::create(&name, SegmentKind::Ram, 64 << 10, 1).expect("create");
        GuestRam::new(Arc::new(segment), 0x8000_0000)
    }

    #[test]
    fn a_program_lies_at_its_physical_addresses_with_its_bss_zeroed() {
        let ram = ram("elf");
        ram.fill(0x8000_0000, 0xff, 64 << 10).expect("fill");
        let bytes = synthetic(0xffff_ffff_8000_0000, 0x8000_1000, &[1, 2, 3], 16);
        let program = Program::parse(&bytes).expect("parse");
        program.load(&ram).expect("load");
        let mut out = [9; 18];
        ram.read(0x8000_0fff, &mut out).expect("read");
        assert_eq!(out, [0xff, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff]);
        assert_eq!((program.entry(), program.end()), (0x8000_1000, 0x8000_1010));
        assert_eq!(program.symbol("tohost"), None);
    }

    #[test]
    fn foreign_damaged_and_oversized_programs_are_refused() {
        let ram = ram("elf-bad");
        let good = synthetic(0x8000_0000, 0x8000_0000, &[1], 1 << 40);
        assert!(matches!(Program::parse(&good).expect("parse").load(&ram), Err(ElfFault::Range(_))));
        let mut foreign = good.clone();
        foreign[18] = 62;
        assert!(matches!(Program::parse(&foreign), Err(ElfFault::Machine(62))));
        assert!(matches!(Program::parse(&good[..100]), Err(ElfFault::Malformed(_))));
        let mut outside = good;
        outside[72..80].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(Program::parse(&outside), Err(ElfFault::Malformed(_))));
    }
}
