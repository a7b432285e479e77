//! Raw Linux `Image` files (Linux, Documentation/arch/riscv/boot-image-header.rst).

use super::formats::{self, Format};
use quasar_abi::machine::RAM_BASE;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
const MAGIC2: u32 = 0x0543_5352;
const ALIGN: u64 = 0x20_0000;

/// What the header of an `Image` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// Where the kernel wants to lie, from the start of RAM (2 MiB aligned).
    pub text_offset: u64,
    /// Bytes it occupies in memory, its BSS included.
    pub image_size: u64,
}

/// Why a kernel cannot be loaded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImageFault {
    /// A compressed file.
    #[error("it is compressed with {0}; unpack it first")]
    Compressed(&'static str),
    /// Something else that has a name.
    #[error("{0}, not a RISC-V Linux Image (magic RSC\\x05) or a RISC-V ELF file")]
    Format(Format),
    /// A big-endian kernel.
    #[error("the header says that the kernel is big-endian, which no hart is")]
    BigEndian,
    /// The offset makes no sense.
    #[error("the header's text offset {0:#x} is not a multiple of 2 MiB")]
    Offset(u64),
    /// Neither an Image nor an ELF.
    #[error("it is neither a RISC-V Linux Image (magic RSC\\x05) nor a RISC-V ELF file")]
    Unknown,
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl ImageHeader {
    /// Reads the header of a kernel.
    ///
    /// # Errors
    /// [`ImageFault`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageFault> {
        let unknown = || match formats::of_program(bytes) {
            Some(Format::Compressed(name)) => ImageFault::Compressed(name),
            Some(format) => ImageFault::Format(format),
            None => ImageFault::Unknown,
        };
        let magic2 = bytes.get(56..60).and_then(|b| b.first_chunk()).ok_or_else(unknown)?;
        if u32::from_le_bytes(*magic2) != MAGIC2 {
            return Err(unknown());
        }
        let text_offset = word(bytes, 8).ok_or_else(unknown)?;
        let image_size = word(bytes, 16).ok_or_else(unknown)?;
        let flags = word(bytes, 24).ok_or_else(unknown)?;
        if flags & 1 != 0 {
            return Err(ImageFault::BigEndian);
        }
        if !text_offset.is_multiple_of(ALIGN) {
            return Err(ImageFault::Offset(text_offset));
        }
        Ok(Self { text_offset, image_size })
    }

    /// Where the kernel is put: its offset from RAM's start, but never below what firmware occupies.
    #[must_use]
    pub fn load_address(&self, lowest: u64) -> u64 {
        (RAM_BASE + self.text_offset).max(lowest.next_multiple_of(ALIGN))
    }

    /// Bytes to keep free from the load address on.
    #[must_use]
    pub fn span(&self, file_bytes: u64) -> u64 {
        self.image_size.max(file_bytes)
    }
}

/// A header for tests, here and in those of the boot plan.
#[cfg(test)]
pub(crate) fn header(text_offset: u64, image_size: u64, flags: u64) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[8..16].copy_from_slice(&text_offset.to_le_bytes());
    bytes[16..24].copy_from_slice(&image_size.to_le_bytes());
    bytes[24..32].copy_from_slice(&flags.to_le_bytes());
    bytes[48..56].copy_from_slice(b"RISCV\0\0\0");
    bytes[56..60].copy_from_slice(b"RSC\x05");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_and_others_are_refused() {
        let parsed = ImageHeader::parse(&header(0x20_0000, 0x1e6_b000, 0)).expect("header");
        assert_eq!(parsed, ImageHeader { text_offset: 0x20_0000, image_size: 0x1e6_b000 });
        assert_eq!(parsed.load_address(RAM_BASE), 0x8020_0000);
        assert_eq!(parsed.load_address(0x8020_0001), 0x8040_0000);
        assert_eq!(parsed.span(100), 0x1e6_b000);
        assert_eq!(ImageHeader::parse(&header(0, 0, 1)), Err(ImageFault::BigEndian));
        assert_eq!(ImageHeader::parse(&header(5, 0, 0)), Err(ImageFault::Offset(5)));
        assert_eq!(ImageHeader::parse(&[0x1f, 0x8b, 8]), Err(ImageFault::Compressed("gzip")));
        assert_eq!(ImageHeader::parse(b"MZ\0"), Err(ImageFault::Unknown));
        let mut arm64 = header(0, 0, 0);
        arm64[56..60].copy_from_slice(b"ARM\x64");
        let error = ImageHeader::parse(&arm64).expect_err("foreign").to_string();
        assert!(error.contains("for arm64"), "{error}");
    }
}
