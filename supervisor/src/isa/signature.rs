//! Signatures: the memory that an architectural test leaves, as text (RISC-V architectural tests).

use quasar_abi::ram::{GuestRam, NotRam};
use std::fmt::Write;

/// Longest signature that is read.
const MAX_BYTES: u64 = 16 << 20;

/// Bytes per line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granularity(u8);

impl Granularity {
    /// What the architectural tests expect.
    pub const WORD: Self = Self(4);
}

impl std::str::FromStr for Granularity {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(bytes @ (1 | 2 | 4 | 8 | 16)) => Ok(Self(bytes)),
            _ => Err(format!("{text:?} is no granularity; it is 1, 2, 4, 8 or 16 bytes")),
        }
    }
}

impl std::fmt::Display for Granularity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a signature cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It lies outside memory.
    #[error(transparent)]
    NotRam(#[from] NotRam),
    /// It is longer than any test's.
    #[error(
        "begin_signature and end_signature are {0} bytes apart, {MAX_BYTES} are the most that are read; look at \
         where the program defines them"
    )]
    TooLong(u64),
}

/// The memory from `begin` to `end` as lines of hexadecimal little-endian numbers.
///
/// # Errors
/// [`SignatureError`].
pub fn format_signature(
    ram: &GuestRam,
    (begin, end): (u64, u64),
    granularity: Granularity,
) -> Result<String, SignatureError> {
    let len = end.saturating_sub(begin);
    if len > MAX_BYTES {
        return Err(SignatureError::TooLong(len));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    ram.read(begin, &mut bytes)?;
    let mut text = String::with_capacity(bytes.len() * 3);
    for line in bytes.chunks(granularity.0.into()) {
        for byte in line.iter().rev() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::machine::RAM_BASE;
    use quasar_abi::{Segment, SegmentKind};
    use std::sync::Arc;

    #[test]
    fn words_are_printed_most_significant_digit_first() {
        let name = format!("/quasar-test-{}-signature", std::process::id());
        let segment = Segment::create(&name, SegmentKind::Ram, 4096, 1).expect("ram");
        let ram = GuestRam::new(Arc::new(segment), RAM_BASE);
        ram.write(RAM_BASE, &[0x78, 0x56, 0x34, 0x12, 0xef, 0xbe, 0xad, 0xde]).expect("write");
        let range = (RAM_BASE, RAM_BASE + 8);
        let format =
            |granularity: &str| format_signature(&ram, range, granularity.parse().expect("granularity"));
        assert_eq!(format("4").expect("text"), "12345678\ndeadbeef\n");
        assert_eq!(format("8").expect("text"), "deadbeef12345678\n");
        let outside = format_signature(&ram, (RAM_BASE, RAM_BASE + 8192), Granularity::WORD);
        assert!(matches!(outside, Err(SignatureError::NotRam(_))), "{outside:?}");
        let long = format_signature(&ram, (RAM_BASE, RAM_BASE + MAX_BYTES + 1), Granularity::WORD);
        assert_eq!(long, Err(SignatureError::TooLong(MAX_BYTES + 1)));
        assert!("3".parse::<Granularity>().is_err());
    }
}
