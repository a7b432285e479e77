//! Writes a cpio archive in the "newc" form that the kernel unpacks (Linux Documentation/driver-api/early-userspace/buffer-format.rst).

use super::tree::{Content, Tree};
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHAR_DEVICE: u32 = 0o020_000;

/// What one header says; the fields that are always zero are left out.
struct Header {
    ino: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    mtime: u32,
    size: u32,
    device: (u32, u32),
}

/// Writes the whole tree; equal trees give equal archives.
pub fn write(tree: &Tree, out: &mut impl Write) -> io::Result<()> {
    let mut position = 0;
    for (ino, (path, node)) in (1..).zip(tree.iter()) {
        let (kind, data, nlink, device) = match &node.content {
            Content::Directory => (DIRECTORY, &[][..], 2, (0, 0)),
            Content::File(bytes) => (REGULAR, &bytes[..], 1, (0, 0)),
            Content::Symlink(target) => (SYMLINK, target.as_bytes(), 1, (0, 0)),
            Content::CharDevice { major, minor } => (CHAR_DEVICE, &[][..], 1, (*major, *minor)),
        };
        let size = u32::try_from(data.len()).map_err(|_| too_large(path))?;
        let header = Header {
            ino,
            mode: kind | node.mode,
            uid: node.uid,
            gid: node.gid,
            nlink,
            mtime: u32::try_from(node.mtime).unwrap_or(0),
            size,
            device,
        };
        entry(out, &mut position, &header, path, data)?;
    }
    let trailer = Header { ino: 0, mode: 0, uid: 0, gid: 0, nlink: 1, mtime: 0, size: 0, device: (0, 0) };
    entry(out, &mut position, &trailer, "TRAILER!!!", &[])?;
    pad(out, &mut position, 512)
}

fn too_large(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is too large for a cpio archive (4 GiB)"))
}

fn entry(
    out: &mut impl Write,
    position: &mut u64,
    header: &Header,
    name: &str,
    data: &[u8],
) -> io::Result<()> {
    let text = format!(
        "070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
        header.ino,
        header.mode,
        header.uid,
        header.gid,
        header.nlink,
        header.mtime,
        header.size,
        0,
        0,
        header.device.0,
        header.device.1,
        name.len() + 1,
        0,
    );
    for part in [text.as_bytes(), name.as_bytes(), &[0]] {
        put(out, position, part)?;
    }
    pad(out, position, 4)?;
    put(out, position, data)?;
    pad(out, position, 4)
}

fn put(out: &mut impl Write, position: &mut u64, bytes: &[u8]) -> io::Result<()> {
    *position += bytes.len() as u64;
    out.write_all(bytes)
}

fn pad(out: &mut impl Write, position: &mut u64, to: u64) -> io::Result<()> {
    while !position.is_multiple_of(to) {
        put(out, position, &[0])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: name, mode, size and data of each entry.
    fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let field = |at: usize, index: usize| {
            let text = std::str::from_utf8(&archive[at + 6 + index * 8..at + 14 + index * 8]).expect("ascii");
            usize::from_str_radix(text, 16).expect("hex")
        };
        let (mut at, mut found) = (0, Vec::new());
        loop {
            assert_eq!(&archive[at..at + 6], b"070701");
            let (mode, size, name_len) = (field(at, 1), field(at, 6), field(at, 11));
            let name = String::from_utf8(archive[at + 110..at + 110 + name_len - 1].to_vec()).expect("utf-8");
            assert_eq!(archive[at + 110 + name_len - 1], 0);
            let data = (at + 110 + name_len).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(archive.len() % 512, 0);
                return found;
            }
            let mode = u32::try_from(mode).expect("32 bits");
            found.push((name, mode, archive[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
        }
    }

    #[test]
    fn every_kind_of_node_comes_back() {
        let mut tree = Tree::default();
        tree.file("init", b"#!/bin/sh\n1", 0o755);
        tree.file("etc/x", b"", 0o4600);
        tree.symlink("bin", "usr/bin");
        tree.insert(
            "dev/console",
            super::super::tree::Node::new(0o600, Content::CharDevice { major: 5, minor: 1 }),
        );
        let mut archive = Vec::new();
        write(&tree, &mut archive).expect("memory never fails");
        let found = entries(&archive);
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["bin", "dev", "dev/console", "etc", "etc/x", "init"]);
        assert_eq!(found[0], ("bin".into(), 0o120_777, b"usr/bin".to_vec()));
        assert_eq!(found[1].1, 0o040_755);
        assert_eq!(found[2].1, 0o020_600);
        assert_eq!(found[4], ("etc/x".into(), 0o104_600, Vec::new()));
        assert_eq!(found[5].2, b"#!/bin/sh\n1");
    }

    #[test]
    fn device_numbers_are_in_their_fields() {
        let mut tree = Tree::default();
        tree.insert("c", super::super::tree::Node::new(0o600, Content::CharDevice { major: 5, minor: 1 }));
        let mut archive = Vec::new();
        write(&tree, &mut archive).expect("memory never fails");
        assert_eq!(&archive[6 + 9 * 8..6 + 11 * 8], b"0000000500000001");
    }
}
