//! Signatures: the memory that an architectural test leaves, as text (RISC-V architectural tests).

use quasar_abi::ram::{GuestRam, NotRam};
use std::fmt::Write;
use std::num::NonZeroU8;

/// Longest signature that is read.
const MAX_BYTES: u64 = 16 << 20;

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

/// The memory from `begin` to `end` as hexadecimal little-endian numbers of so many bytes, one a line.
///
/// # Errors
/// [`SignatureError`].
pub fn format_signature(
    ram: &GuestRam,
    (begin, end): (u64, u64),
    granularity: NonZeroU8,
) -> Result<String, SignatureError> {
    let len = end.saturating_sub(begin);
    if len > MAX_BYTES {
        return Err(SignatureError::TooLong(len));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    ram.read(begin, &mut bytes)?;
    let mut text = String::with_capacity(bytes.len() * 3);
    for line in bytes.chunks(granularity.get().into()) {
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
            |granularity: u8| format_signature(&ram, range, NonZeroU8::new(granularity).expect("some"));
        assert_eq!(format(4).expect("text"), "12345678\ndeadbeef\n");
        assert_eq!(format(8).expect("text"), "deadbeef12345678\n");
        let outside = format_signature(&ram, (RAM_BASE, RAM_BASE + 8192), NonZeroU8::MIN);
        assert!(matches!(outside, Err(SignatureError::NotRam(_))), "{outside:?}");
        let long = format_signature(&ram, (RAM_BASE, RAM_BASE + MAX_BYTES + 1), NonZeroU8::MIN);
        assert_eq!(long, Err(SignatureError::TooLong(MAX_BYTES + 1)));
    }
}
