//! The little of ELF64 (little-endian) that building images takes: needed libraries, the interpreter, and a section's bytes.

/// What a program or library asks the dynamic loader for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dynamic {
    /// `DT_NEEDED` names.
    pub needed: Vec<String>,
    /// `PT_INTERP` path.
    pub interpreter: Option<String>,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// True for ELF64 little-endian files.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF\x02\x01")
}

/// What the file needs at run time; `None` if it isn't ELF64 or is damaged. A static program needs nothing.
pub fn dynamic(bytes: &[u8]) -> Option<Dynamic> {
    if !is_elf(bytes) {
        return None;
    }
    let table = offset(u64_at(bytes, 0x20)?)?;
    let (size, count) = (usize::from(u16_at(bytes, 0x36)?), usize::from(u16_at(bytes, 0x38)?));
    let segments: Vec<Segment> = (0..count)
        .map(|index| Segment::read(bytes, table.checked_add(index * size)?))
        .collect::<Option<_>>()?;
    let mut found = Dynamic::default();
    if let Some(segment) = segments.iter().find(|segment| segment.kind == PT_INTERP) {
        found.interpreter = Some(text_at(bytes, offset(segment.file)?)?);
    }
    let Some(segment) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else {
        return Some(found);
    };
    let (start, length) = (offset(segment.file)?, offset(segment.size)?);
    let entries = bytes.get(start..start.checked_add(length)?)?;
    let (mut names, mut strings) = (Vec::new(), None);
    for entry in entries.chunks_exact(16) {
        match (u64_at(entry, 0)?, u64_at(entry, 8)?) {
            (DT_NULL, _) => break,
            (DT_NEEDED, name) => names.push(name),
            (DT_STRTAB, address) => strings = Some(address),
            _ => {}
        }
    }
    if !names.is_empty() {
        let address = strings?;
        let segment = segments.iter().find(|segment| segment.holds(address))?;
        let base = segment.file.checked_add(address - segment.address)?;
        for name in names {
            found.needed.push(text_at(bytes, offset(base.checked_add(name)?)?)?);
        }
    }
    Some(found)
}

/// The bytes of the section called `name`.
pub fn section<'a>(bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    if !is_elf(bytes) {
        return None;
    }
    let table = offset(u64_at(bytes, 0x28)?)?;
    let (size, count, names) = (
        usize::from(u16_at(bytes, 0x3a)?),
        usize::from(u16_at(bytes, 0x3c)?),
        usize::from(u16_at(bytes, 0x3e)?),
    );
    let header = |index: usize| bytes.get(table.checked_add(index.checked_mul(size)?)?..);
    let names = offset(u64_at(header(names)?, 0x18)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let at = names.checked_add(usize::try_from(u32_at(header, 0)?).ok()?)?;
        if text_at(bytes, at)? != name {
            return None;
        }
        let (start, length) = (offset(u64_at(header, 0x18)?)?, offset(u64_at(header, 0x20)?)?);
        bytes.get(start..start.checked_add(length)?)
    })
}

struct Segment {
    kind: u32,
    file: u64,
    address: u64,
    size: u64,
}

impl Segment {
    fn read(bytes: &[u8], at: usize) -> Option<Segment> {
        let header = bytes.get(at..)?;
        Some(Segment {
            kind: u32_at(header, 0)?,
            file: u64_at(header, 8)?,
            address: u64_at(header, 16)?,
            size: u64_at(header, 32)?,
        })
    }

    fn holds(&self, address: u64) -> bool {
        self.kind == PT_LOAD && address.checked_sub(self.address).is_some_and(|distance| distance < self.size)
    }
}

fn offset(value: u64) -> Option<usize> {
    usize::try_from(value).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The zero-terminated text at an offset.
fn text_at(bytes: &[u8], at: usize) -> Option<String> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file with one loaded segment at address 0x1000, an interpreter and `needed`; enough for [`dynamic`].
    pub(in super::super) fn library(interpreter: Option<&str>, needed: &[&str]) -> Vec<u8> {
        let mut strings = vec![0];
        let names: Vec<usize> = needed.iter().map(|name| append(&mut strings, name)).collect();
        let interp = interpreter.map(|path| append(&mut strings, path));
        let (headers, string_at) = (64_u64, 64 + 3 * 56);
        let dynamic_at = string_at + strings.len();
        let mut table: Vec<u64> = names.iter().flat_map(|name| [DT_NEEDED, *name as u64]).collect();
        table.extend([DT_STRTAB, 0x1000 + string_at as u64, DT_NULL, 0]);
        let total = dynamic_at + table.len() * 8;
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(64, 0);
        bytes[0x20..0x28].copy_from_slice(&headers.to_le_bytes());
        bytes[0x36..0x38].copy_from_slice(&56_u16.to_le_bytes());
        bytes[0x38..0x3a].copy_from_slice(&3_u16.to_le_bytes());
        let interp_kind = if interp.is_some() { PT_INTERP } else { 0 };
        for (kind, at, size) in [
            (PT_LOAD, 0, total),
            (PT_DYNAMIC, dynamic_at, table.len() * 8),
            (interp_kind, string_at + interp.unwrap_or(0), 1),
        ] {
            bytes.extend(u64::from(kind).to_le_bytes());
            for value in [at, 0x1000 + at, 0, size, size, 1] {
                bytes.extend((value as u64).to_le_bytes());
            }
        }
        bytes.extend(&strings);
        bytes.extend(table.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    fn append(strings: &mut Vec<u8>, text: &str) -> usize {
        let at = strings.len();
        strings.extend(text.as_bytes());
        strings.push(0);
        at
    }

    #[test]
    fn needed_and_interpreter_are_found() {
        let bytes = library(Some("/lib/ld.so.1"), &["libc.so.6", "libz.so.1"]);
        let found = dynamic(&bytes).expect("well formed");
        assert_eq!(found.needed, ["libc.so.6", "libz.so.1"]);
        assert_eq!(found.interpreter.as_deref(), Some("/lib/ld.so.1"));
    }

    #[test]
    fn damage_is_no_panic() {
        let bytes = library(Some("/lib/ld.so.1"), &["libc.so.6"]);
        assert_eq!(dynamic(b"#!/bin/sh\n"), None);
        for length in 0..bytes.len() {
            dynamic(&bytes[..length]);
            section(&bytes[..length], ".modinfo");
        }
        for at in 6..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = 0xff;
            dynamic(&damaged);
            section(&damaged, ".modinfo");
        }
    }
}
