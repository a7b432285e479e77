//! Whether a kernel has the memory to unpack its initial ramdisk: it holds the archive and its content at one time.

use super::error::BootError;
use super::source::Source;

/// Bytes that a content has by what its archive says of it; nothing when that is not said.
fn unpacked_bytes(source: &Source) -> Result<Option<u64>, BootError> {
    let head = source.head();
    if head.starts_with(b"0707") {
        return Ok(Some(source.bytes));
    }
    if head.starts_with(&[0x1f, 0x8b]) {
        // RFC 1952, 2.3.1: the length modulo 2^32 stands at the end; of several members, the last one's.
        let Some(at) = source.bytes.checked_sub(4) else { return Ok(None) };
        let last = source.read(at, 4)?;
        let said: Option<u64> = last.first_chunk().map(|bytes| u32::from_le_bytes(*bytes).into());
        // An archive of another kind may follow, and then these bytes are no length.
        return Ok(said.filter(|said| *said <= source.bytes.saturating_mul(MOST_DEFLATED)));
    }
    Ok(zstd_content(head))
}

/// What deflate makes of one byte at most.
const MOST_DEFLATED: u64 = 1032;

/// The content size that a Zstandard frame states (RFC 8878, 3.1.1.1).
fn zstd_content(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(b"\x28\xb5\x2f\xfd")?;
    let (descriptor, rest) = rest.split_first()?;
    let single = descriptor >> 5 & 1 == 1;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let field = rest.get(usize::from(!single) + dictionary..)?;
    match descriptor >> 6 {
        0 if single => field.first().map(|byte| u64::from(*byte)),
        0 => None,
        1 => field.first_chunk().map(|bytes| u64::from(u16::from_le_bytes(*bytes)) + 256),
        2 => field.first_chunk().map(|bytes| u32::from_le_bytes(*bytes).into()),
        _ => field.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)),
    }
}

/// A kernel of at least this size is a distribution's: it has a tmpfs, and tables of its own besides its image.
const LARGE_KERNEL: u64 = 16 << 20;

/// Bytes of RAM below which it is certain that a kernel of so many bytes does not start with such a ramdisk. A small one
/// may make do with the three things themselves. A distribution's has reserved 2.3 times its size when it has started
/// (Debian 13: 70 MiB of 30), and unpacks into a tmpfs, which takes half of what is then left, unless `root=` is on
/// its command line (Linux, init/do_mounts.c: `init_rootfs`).
fn needed(kernel: u64, ramdisk: u64, content: u64, append: &str) -> u64 {
    let large = kernel >= LARGE_KERNEL;
    let has_root = append.split_whitespace().any(|word| word.starts_with("root="));
    let kernel = if large { kernel / 4 * 9 } else { kernel };
    let content = if large && !has_root { content.saturating_mul(2) } else { content };
    kernel.saturating_add(ramdisk).saturating_add(content)
}

/// Refuses memory of so many bytes, in which a kernel of so many cannot unpack a ramdisk.
pub(super) fn has_room(memory: u64, kernel: u64, ramdisk: &Source, append: &str) -> Result<(), BootError> {
    let Some(content) = unpacked_bytes(ramdisk)? else { return Ok(()) };
    let need = needed(kernel, ramdisk.bytes, content, append);
    if need <= memory {
        return Ok(());
    }
    Err(BootError::Unpack { kernel, ramdisk: ramdisk.bytes, content, need, memory })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Option<u64> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("write");
        unpacked_bytes(&Source::open("initial ramdisk", file.path()).expect("open")).expect("a length")
    }

    #[test]
    fn a_distributions_kernel_needs_what_was_measured() {
        const MIB: u64 = 1 << 20;
        // With Debian 13's kernel and 35 MiB of files 160M fail, and 192M do.
        let debian = |append| needed(0x1e6_b000, 36_636_160, 36_636_160, append);
        assert!((161 * MIB..=184 * MIB).contains(&debian("console=ttyS0")), "{}", debian("") >> 20);
        assert!((128 * MIB..144 * MIB).contains(&debian("quiet root=/dev/vda")));
        assert_eq!(needed(5 * MIB, 2 * MIB, 4 * MIB, ""), 11 * MIB);
    }

    #[test]
    fn the_content_is_as_long_as_the_archive_says() {
        assert_eq!(of(b"070701000"), Some(9));
        assert_eq!(of(b"\x1f\x8b\x08.......\x00\x20\x00\x00"), Some(1 << 13));
        // More than deflate can make of it: another archive follows, and these bytes are no length.
        assert_eq!(of(b"\x1f\x8b\x08.......\x00\x00\x10\x00"), None);
        // A single segment of one byte's length, and one of a 4-byte length; a stream says nothing.
        assert_eq!(of(b"\x28\xb5\x2f\xfd\x20\x07"), Some(7));
        assert_eq!(of(b"\x28\xb5\x2f\xfd\xa0\x00\x00\x00\x01"), Some(1 << 24));
        assert_eq!(of(b"\x28\xb5\x2f\xfd\x00\x58\x00"), None);
        assert_eq!(of(b"\x28\xb5\x2f\xfd\x60"), None);
        assert_eq!(of(b"hsqs"), None);
    }
}
