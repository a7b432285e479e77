//! The host-target interface: a word written to `tohost` is a command for the host.
//!
//! Bits 63..56 name a device, 55..48 a command, the rest is its payload. Device 0 is the system: an odd payload
//! ends the program, an even one points to a system call's words. Device 1 is a console.

use quasar_abi::ram::GuestRam;
use std::io::Write;

/// The RISC-V Linux system calls that are served.
const SYS_WRITE: u64 = 64;
const SYS_EXIT: u64 = 93;
const ENOSYS: i64 = 38;
const EFAULT: i64 = 14;
/// Longest text written by one call; a longer one is cut, as POSIX allows.
const MAX_WRITE: u64 = 64 << 10;

/// A decoded command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HtifCommand {
    /// The program ends; 0 means that it passed.
    Exit(u64),
    /// System call, its words at this guest-physical address: number, arguments.
    SystemCall(u64),
    /// A byte for the console.
    PutChar(u8),
    /// Anything else is left unanswered.
    Unknown(u64),
}

impl HtifCommand {
    /// Decodes the word written to `tohost`.
    #[must_use]
    pub const fn decode(word: u64) -> Self {
        let payload = word & 0xffff_ffff_ffff;
        match (word >> 56, word >> 48 & 0xff) {
            (0, 0) if payload & 1 == 1 => Self::Exit(payload >> 1),
            (0, 0) => Self::SystemCall(payload),
            (1, 1) => Self::PutChar(payload.to_le_bytes()[0]),
            _ => Self::Unknown(word),
        }
    }
}

/// Where the two words lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// Guest-physical address of `tohost`.
    pub tohost: u64,
    /// Guest-physical address of `fromhost`, 0 when there is none.
    pub fromhost: u64,
}

/// Serves a command: writes the console's bytes to `out`, answers in the guest's memory, and returns the exit
/// code when the program ends.
///
/// # Errors
/// When `out` cannot be written.
pub fn answer(ram: &GuestRam, words: Words, word: u64, out: &mut dyn Write) -> std::io::Result<Option<u64>> {
    let reply = match HtifCommand::decode(word) {
        HtifCommand::Exit(code) => return Ok(Some(code)),
        HtifCommand::PutChar(byte) => {
            out.write_all(&[byte])?;
            out.flush()?;
            None
        }
        HtifCommand::SystemCall(at) => {
            let cell = |index: u64| ram.cell64(at.wrapping_add(index * 8)).map_or(0, |c| c.get());
            if cell(0) == SYS_EXIT {
                return Ok(Some(cell(1)));
            }
            let result = match cell(0) {
                SYS_WRITE => write(ram, cell(2), cell(3), out)?,
                _ => -ENOSYS,
            };
            if let Ok(first) = ram.cell64(at) {
                first.set(result.cast_unsigned());
            }
            Some(1)
        }
        HtifCommand::Unknown(word) => {
            log::warn!("the program wrote {word:#x} to tohost, which is no command that is served");
            None
        }
    };
    // The guest waits for tohost to be zero before its next command, so the answer comes first.
    if let (Some(reply), Ok(cell)) = (reply, ram.cell64(words.fromhost)) {
        cell.store(reply, std::sync::atomic::Ordering::Release);
    }
    if let Ok(cell) = ram.cell64(words.tohost) {
        cell.store(0, std::sync::atomic::Ordering::Release);
    }
    Ok(None)
}

fn write(ram: &GuestRam, from: u64, len: u64, out: &mut dyn Write) -> std::io::Result<i64> {
    let len = len.min(MAX_WRITE);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    if ram.read(from, &mut bytes).is_err() {
        return Ok(-EFAULT);
    }
    out.write_all(&bytes)?;
    out.flush()?;
    Ok(i64::try_from(len).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::machine::RAM_BASE;
    use quasar_abi::{Segment, SegmentKind};
    use std::sync::Arc;

    const WORDS: Words = Words { tohost: RAM_BASE, fromhost: RAM_BASE + 64 };

    fn ram(test: &str) -> GuestRam {
        let name = format!("/quasar-test-{}-{test}", std::process::id());
        GuestRam::new(Arc::new(Segment::create(&name, SegmentKind::Ram, 8192, 1).expect("ram")), RAM_BASE)
    }

    #[test]
    fn commands_are_told_apart() {
        assert_eq!(HtifCommand::decode(1), HtifCommand::Exit(0));
        assert_eq!(HtifCommand::decode(13), HtifCommand::Exit(6));
        assert_eq!(HtifCommand::decode(0x8000_2000), HtifCommand::SystemCall(0x8000_2000));
        assert_eq!(HtifCommand::decode(0x0101_0000_0000_0041), HtifCommand::PutChar(b'A'));
        assert_eq!(HtifCommand::decode(0x0100_0000_0000_0000), HtifCommand::Unknown(1 << 56));
    }

    #[test]
    fn writes_are_printed_and_answered_and_exit_ends() {
        let ram = ram("htif");
        let set = |at, value| ram.cell64(at).expect("cell").set(value);
        let get = |at| ram.cell64(at).expect("cell").get();
        let call = RAM_BASE + 0x100;
        ram.write(RAM_BASE + 0x200, b"hello").expect("write");
        for (index, word) in [(0, SYS_WRITE), (1, 1), (2, RAM_BASE + 0x200), (3, 5)] {
            set(call + index * 8, word);
        }
        set(WORDS.tohost, call);
        let mut out = vec![];
        assert_eq!(answer(&ram, WORDS, call, &mut out).expect("answer"), None);
        assert_eq!(
            (out.as_slice(), get(call), get(WORDS.tohost), get(WORDS.fromhost)),
            (&b"hello"[..], 5, 0, 1)
        );
        set(call, SYS_WRITE);
        set(call + 16, 0x10);
        answer(&ram, WORDS, call, &mut out).expect("answer");
        assert_eq!(get(call).cast_signed(), -EFAULT);
        set(call, 1234);
        answer(&ram, WORDS, call, &mut out).expect("answer");
        assert_eq!(get(call).cast_signed(), -ENOSYS);
        set(call, SYS_EXIT);
        set(call + 8, 7);
        assert_eq!(answer(&ram, WORDS, call, &mut out).expect("answer"), Some(7));
        // A pointer to nowhere is a system call 0, which is not served and harms nobody.
        assert_eq!(answer(&ram, WORDS, 0x10, &mut out).expect("answer"), None);
    }
}
