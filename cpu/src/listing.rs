//! The disassembly of an ELF file, as `quasar isa dis` prints it.

use crate::isa;
use anyhow::Context;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SectionFlags, SegmentFlags, elf};
use quasar_abi::files::{self, Access, UserFile};
use quasar_abi::output::{OutputError, Stdout};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

/// Prints the executable sections of an ELF file, or its executable segments when it has no sections.
///
/// # Errors
/// When the file cannot be read or is no RISC-V ELF file, and [`OutputError`].
pub fn print(path: &Path) -> anyhow::Result<()> {
    let bytes = read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut out = std::io::BufWriter::new(Stdout);
    let written = write(&bytes, &mut out).and_then(|()| Ok(out.flush()?));
    // What the buffer still holds could not be written either.
    drop(out.into_parts());
    written.map_err(|error| match error.downcast::<std::io::Error>() {
        Ok(error) => OutputError::from(error).into(),
        Err(error) => error.context(format!("{} cannot be disassembled", path.display())),
    })
}

/// Longest file that is read.
const MOST_BYTES: u64 = 1 << 30;

/// A file of the right kind, whatever the user has named.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![];
    let UserFile { mut file, bytes: length } = files::open(path, Access::Read)?;
    Read::by_ref(&mut file).take(elf::ELFMAG.len() as u64).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes == elf::ELFMAG, "it is no ELF file");
    anyhow::ensure!(length <= MOST_BYTES, "it has {length} bytes, and {MOST_BYTES} are the most");
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes the disassembly of an ELF file's bytes.
///
/// # Errors
/// As for [`print`].
pub fn write(bytes: &[u8], out: &mut dyn Write) -> anyhow::Result<()> {
    let file = object::File::parse(bytes)?;
    let machine = file.architecture();
    anyhow::ensure!(machine == object::Architecture::Riscv64, "it is for {machine:?}, not 64-bit RISC-V");
    let names: BTreeMap<u64, &str> = file
        .symbols()
        .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?)))
        .filter(|(_, name)| !name.is_empty() && !name.starts_with('$'))
        .collect();
    let mut found = false;
    for section in file.sections() {
        let code = matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.contains(elf::SHF_EXECINSTR));
        if code {
            found = true;
            writeln!(out, "\n{}:", section.name().unwrap_or("?"))?;
            write_code(section.address(), section.data()?, &names, out)?;
        }
    }
    if found {
        return Ok(());
    }
    for segment in file.segments() {
        if matches!(segment.flags(), SegmentFlags::Elf { p_flags, .. } if p_flags.contains(elf::PF_X)) {
            writeln!(out, "\nsegment at {:#x}:", segment.address())?;
            write_code(segment.address(), segment.data()?, &names, out)?;
        }
    }
    Ok(())
}

fn write_code(
    base: u64,
    code: &[u8],
    names: &BTreeMap<u64, &str>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut rest = code;
    let mut at = base;
    while let Some((low, after)) = rest.split_first_chunk::<2>() {
        if let Some(name) = names.get(&at) {
            writeln!(out, "\n{at:016x} <{name}>:")?;
        }
        let low = u16::from_le_bytes(*low);
        let high = after.first_chunk::<2>().map(|high| u16::from_le_bytes(*high));
        let (word, len) = match high {
            Some(high) if low & 3 == 3 => (u32::from(low) | u32::from(high) << 16, 4),
            _ => (u32::from(low), 2),
        };
        let text = isa::disassemble(&isa::decode(word), at);
        let width = len * 2;
        writeln!(out, "{at:12x}:  {word:0width$x}{:pad$}  {text}", "", pad = 8 - width)?;
        rest = &rest[len..];
        at += len as u64;
    }
    Ok(())
}
