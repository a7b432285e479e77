//! What a file is that is not what it was taken for, by its first bytes.

/// A format that a guest cannot use as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A disk image of another program.
    Disk(&'static str),
    /// A compressed file.
    Compressed(&'static str),
    /// A program or kernel of another kind.
    Program(&'static str),
    /// Text.
    Text,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disk(name) => write!(f, "it is a disk image in the format {name}"),
            Self::Compressed(name) => write!(f, "it is compressed with {name}"),
            Self::Program(name) => write!(f, "it is {name}"),
            Self::Text => f.write_str("it is a text file"),
        }
    }
}

/// Offset, bytes there, name.
type Magic = (usize, &'static [u8], &'static str);

const DISKS: &[Magic] = &[
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd (vpc)"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
];

const COMPRESSED: &[Magic] = &[
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"BZh", "bzip2"),
    (0, b"\x04\x22\x4d\x18", "lz4"),
    (0, b"\x02\x21\x4c\x18", "lz4"),
    (0, b"\x89LZO\0", "lzop"),
    (0, b"\x5d\0\0", "lzma"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
];

/// Kernels of other machines, and of this one in wrappings that need firmware of another kind.
const PROGRAMS: &[Magic] = &[
    (0x38, b"ARM\x64", "a Linux Image for arm64"),
    (0x202, b"HdrS", "a Linux bzImage for x86"),
    (4, b"zimg", "a compressed EFI kernel (vmlinuz.efi)"),
    (0, b"\x27\x05\x19\x56", "a U-Boot image"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree or FIT image"),
    (0, b"#!", "a script"),
    (0x24, b"\x18\x28\x6f\x01", "a Linux zImage for arm"),
];

fn find(magics: &[Magic], head: &[u8]) -> Option<&'static str> {
    let has = |(at, bytes, _): &&Magic| head.get(*at..).is_some_and(|rest| rest.starts_with(bytes));
    magics.iter().find(has).map(|(_, _, name)| *name)
}

/// A format of disk images, or a compressed file, where the bytes of a disk are expected.
#[must_use]
pub fn of_disk(head: &[u8]) -> Option<Format> {
    // The short magics of old compressors can begin a boot sector.
    let compressed = find(COMPRESSED, head).filter(|name| !matches!(*name, "lzma" | "bzip2" | "lzop"));
    find(DISKS, head).map(Format::Disk).or(compressed.map(Format::Compressed))
}

/// What else a file is that was given as a kernel, firmware or ramdisk.
#[must_use]
pub fn of_program(head: &[u8]) -> Option<Format> {
    let text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    find(PROGRAMS, head)
        .map(Format::Program)
        .or_else(|| find(DISKS, head).map(Format::Disk))
        .or_else(|| find(COMPRESSED, head).map(Format::Compressed))
        .or_else(|| head.iter().all(text).then_some(Format::Text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_told_by_its_first_bytes() {
        for (at, bytes, name) in DISKS {
            let mut head = vec![0; *at];
            head.extend_from_slice(bytes);
            assert_eq!(of_disk(&head), Some(Format::Disk(name)));
            assert_eq!(of_program(&head).map(|f| f.to_string().contains(name)), Some(true));
            assert_eq!(of_disk(&head[..head.len() - 1]), None, "{name} cut short");
        }
        assert_eq!(of_disk(b"\xfd7zXZ\0..."), Some(Format::Compressed("xz")));
        assert_eq!(of_program(b"\x5d\0\0\x80"), Some(Format::Compressed("lzma")));
    }

    #[test]
    fn disks_and_programs_are_left_alone() {
        assert_eq!(of_disk(&[0; 512]), None);
        // A boot sector, an encrypted disk, an archive: all are bytes of a disk.
        for bytes in [&b"\xeb\x63\x90"[..], b"LUKS\xba\xbe", b"usr/bin/", b"BZh", b""] {
            assert_eq!(of_disk(bytes), None, "{bytes:?}");
        }
        assert_eq!(of_program(b"\x13\x04\x05\x00\x93\x84\x05\x00"), None);
        assert_eq!(of_program(b"a line\n"), Some(Format::Text));
        let mut x86 = vec![b'M'; 0x202];
        x86.extend_from_slice(b"HdrS");
        assert!(of_program(&x86).is_some_and(|f| f.to_string().contains("x86")));
    }
}
