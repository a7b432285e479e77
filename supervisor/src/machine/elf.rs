//! ELF programs: what to put where, where to begin, and which symbols matter.

use super::error::{BootError, ElfFault, MOST_BYTES_WITH_SYMBOLS};
use super::source::Source;
use object::elf::{EM_RISCV, FileHeader64, PT_LOAD, ProgramHeader64};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSymbol};
use quasar_abi::ram::{GuestRam, NotRam};
use std::collections::BTreeMap;

impl From<object::Error> for ElfFault {
    fn from(error: object::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The symbols that a bare program tells its host by.
const SYMBOLS: [&str; 4] = ["tohost", "fromhost", "begin_signature", "end_signature"];

/// A program that lies in a file.
#[derive(Debug)]
pub struct Program {
    /// The file.
    source: Source,
    entry: u64,
    segments: Vec<Loadable>,
    symbols: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Loadable {
    vaddr: u64,
    paddr: u64,
    memory: u64,
    offset: u64,
    bytes: u64,
}

/// Whether these bytes begin an ELF file.
#[must_use]
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// An architecture's name, where it has one that people know.
const fn machine_name(machine: u16) -> &'static str {
    match machine {
        3 => " (x86)",
        20 => " (PowerPC)",
        21 => " (PowerPC64)",
        22 => " (S/390)",
        40 => " (ARM)",
        62 => " (x86-64)",
        183 => " (AArch64)",
        258 => " (LoongArch)",
        _ => "",
    }
}

impl Program {
    /// Reads the headers.
    ///
    /// # Errors
    /// [`BootError::Elf`] and [`BootError::Read`].
    pub fn open(source: Source) -> Result<Self, BootError> {
        let path = source.path.clone();
        let fault = |fault: ElfFault| BootError::Elf { path: path.clone(), source: fault };
        let header = FileHeader64::<LittleEndian>::parse(source.head()).map_err(|e| fault(e.into()))?;
        let endian = header.endian().map_err(|e| fault(e.into()))?;
        let machine = header.e_machine.get(endian);
        if machine != EM_RISCV {
            return Err(fault(ElfFault::Machine(machine.0, machine_name(machine.0))));
        }
        let outside = |what| fault(ElfFault::Malformed(format!("{what} lies outside the file")));
        let inside = |offset: u64, len: u64| offset.checked_add(len).is_some_and(|end| end <= source.bytes);
        let (at, count) = (header.e_phoff(endian), u64::from(header.e_phnum(endian)));
        let len = count * size_of::<ProgramHeader64<LittleEndian>>() as u64;
        if usize::from(header.e_phentsize(endian)) != size_of::<ProgramHeader64<LittleEndian>>() && count > 0
        {
            return Err(fault(ElfFault::Malformed("its program headers have another size".into())));
        }
        if !inside(at, len) {
            return Err(outside("its table of segments"));
        }
        let table = source.read(at, len)?;
        let count = usize::try_from(count).unwrap_or(0);
        let (entries, _) = object::pod::slice_from_bytes::<ProgramHeader64<LittleEndian>>(&table, count)
            .map_err(|()| outside("its table of segments"))?;
        let mut segments = vec![];
        for entry in entries {
            if entry.p_type(endian) != PT_LOAD || entry.p_memsz(endian) == 0 {
                continue;
            }
            let (offset, bytes) = (entry.p_offset(endian), entry.p_filesz(endian));
            if !inside(offset, bytes) {
                return Err(outside("a segment"));
            }
            let (vaddr, paddr) = (entry.p_vaddr(endian), entry.p_paddr(endian));
            segments.push(Loadable { vaddr, paddr, memory: entry.p_memsz(endian).max(bytes), offset, bytes });
        }
        if segments.is_empty() {
            return Err(fault(ElfFault::Empty));
        }
        let entry = header.e_entry(endian);
        Ok(Self { source, entry, segments, symbols: BTreeMap::new() })
    }

    /// Reads the headers, and the symbols that a bare program tells its host by.
    ///
    /// # Errors
    /// As [`Program::open`].
    pub fn open_bare(source: Source) -> Result<Self, BootError> {
        let mut program = Self::open(source)?;
        let fault = |fault| BootError::Elf { path: program.source.path.clone(), source: fault };
        if program.source.bytes > MOST_BYTES_WITH_SYMBOLS {
            return Err(fault(ElfFault::Long(program.source.bytes)));
        }
        let bytes = program.source.read(0, program.source.bytes)?;
        let file = ElfFile64::<LittleEndian>::parse(bytes.as_slice()).map_err(|e| fault(e.into()))?;
        let known = |name: &str| SYMBOLS.into_iter().find(|known| *known == name);
        let mut symbols = BTreeMap::new();
        for symbol in file.symbols().filter(ObjectSymbol::is_definition) {
            if let Some(name) = symbol.name().ok().and_then(known) {
                symbols.entry(name).or_insert(program.physical(symbol.address()));
            }
        }
        program.symbols = symbols;
        Ok(program)
    }

    /// The physical address of a virtual one, by the segment that holds it; others are taken as they are.
    fn physical(&self, vaddr: u64) -> u64 {
        let inside = |s: &&Loadable| vaddr.wrapping_sub(s.vaddr) < s.memory;
        self.segments.iter().find(inside).map_or(vaddr, |s| s.paddr.wrapping_add(vaddr - s.vaddr))
    }

    /// The file.
    #[must_use]
    pub const fn source(&self) -> &Source {
        &self.source
    }

    /// Physical address of the first instruction.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.physical(self.entry)
    }

    /// First physical address behind what is loaded.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.segments.iter().map(|s| s.paddr.saturating_add(s.memory)).max().unwrap_or(0)
    }

    /// Physical address of one of the symbols by which a bare program tells its host.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.get(name).copied()
    }

    /// Says whether all of it lies in a machine's RAM.
    ///
    /// # Errors
    /// [`BootError::Elf`].
    pub fn fits(&self, base: u64, memory: u64) -> Result<(), BootError> {
        let outside = |s: &&Loadable| {
            let offset = s.paddr.wrapping_sub(base);
            offset >= memory || s.memory > memory - offset
        };
        self.segments.iter().find(outside).map_or(Ok(()), |s| {
            let source = NotRam { gpa: s.paddr, len: s.memory }.into();
            Err(BootError::Elf { path: self.source.path.clone(), source })
        })
    }

    /// Writes the segments into RAM, with zeroes behind them where the file says so.
    ///
    /// # Errors
    /// [`BootError::Elf`] when it does not fit, [`BootError::Read`] when the file cannot be read any more.
    pub fn load(&self, ram: &GuestRam) -> Result<(), BootError> {
        self.fits(ram.base(), ram.len())?;
        for segment in &self.segments {
            self.source.copy(segment.offset, segment.bytes, ram, segment.paddr)?;
            if segment.memory > segment.bytes {
                ram.fill(segment.paddr + segment.bytes, 0, segment.memory - segment.bytes)?;
            }
        }
        self.source.is_whole()
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

    fn program(bytes: &[u8]) -> Result<Program, BootError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("write");
        Program::open_bare(Source::open("program", file.path())?)
    }

    fn fault(result: Result<impl std::fmt::Debug, BootError>) -> ElfFault {
        match result {
            Err(BootError::Elf { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    }

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
        let program = program(&bytes).expect("parse");
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
        assert!(matches!(fault(program(&good).expect("parse").load(&ram)), ElfFault::Range(_)));
        let mut foreign = good.clone();
        foreign[18] = 62;
        assert!(matches!(fault(program(&foreign)), ElfFault::Machine(62, " (x86-64)")));
        assert!(matches!(fault(program(&good[..100])), ElfFault::Malformed(_)));
        let mut outside = good;
        outside[72..80].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(fault(program(&outside)), ElfFault::Malformed(_)));
    }
}
