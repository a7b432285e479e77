//! How much of its command line a Linux kernel keeps. The rest it drops without a word, the last parameters with it.

/// `COMMAND_LINE_SIZE` of RISC-V since Linux 6.3, the NUL behind the line included.
const SIZE: usize = 1024;
/// The same before.
const OLD_SIZE: usize = 512;
/// Older series that got the new size, with the release that did (spring of 2023).
const BACKPORTS: [(u32, u32, u32); 7] =
    [(4, 14, 312), (4, 19, 280), (5, 4, 240), (5, 10, 177), (5, 15, 105), (6, 1, 22), (6, 2, 9)];
/// What stands before the version in every kernel that is not compressed.
const BANNER: &[u8] = b"Linux version ";

/// A command line that a kernel would cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the kernel's command line has {given} bytes, of which this kernel (Linux {version}) keeps {kept}: it would lose {lost:?} \
     at the end"
)]
pub struct TooLong {
    /// Bytes that were given.
    pub given: usize,
    /// Bytes that are kept.
    pub kept: usize,
    /// The kernel's version.
    pub version: String,
    /// The beginning of what would be lost.
    pub lost: String,
}

/// The version in a kernel's banner; none in what is no Linux, or is compressed.
fn version(kernel: &[u8]) -> Option<(u32, u32, u32)> {
    let at = |start: usize| {
        let text = &kernel[start + BANNER.len()..];
        let end = text.iter().take(32).position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        let mut numbers = std::str::from_utf8(&text[..end]).ok()?.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some((next()?, next()?, next().unwrap_or(0)))
    };
    let mut from = 0;
    while let Some(found) = kernel.get(from..)?.windows(BANNER.len()).position(|bytes| bytes == BANNER) {
        if let Some(version) = at(from + found) {
            return Some(version);
        }
        from += found + BANNER.len();
    }
    None
}

/// Bytes that a kernel of this version has for its command line, the NUL included.
fn size((major, minor, patch): (u32, u32, u32)) -> usize {
    let backported = |(a, b, c): &(u32, u32, u32)| (*a, *b) == (major, minor) && patch >= *c;
    if (major, minor) >= (6, 3) || BACKPORTS.iter().any(backported) { SIZE } else { OLD_SIZE }
}

/// Whether a kernel needs to be looked through: none has less.
#[must_use]
pub const fn may_be_cut(line: &str) -> bool {
    line.len() >= OLD_SIZE
}

/// Checks that a kernel keeps all of its command line. Of one whose version is not found nothing is known, and nothing
/// refused.
///
/// # Errors
/// [`TooLong`].
pub fn check(kernel: &[u8], line: &str) -> Result<(), TooLong> {
    if !may_be_cut(line) {
        return Ok(());
    }
    let Some(version) = version(kernel) else { return Ok(()) };
    let kept = size(version) - 1;
    if line.len() <= kept {
        return Ok(());
    }
    let start = (0..=kept).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    let (major, minor, patch) = version;
    Err(TooLong {
        given: line.len(),
        kept,
        version: format!("{major}.{minor}.{patch}"),
        lost: line[start..].chars().take(60).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(banner: &str) -> Vec<u8> {
        let mut bytes = vec![0; 5000];
        bytes.extend(b"Linux version %s (%s)\n\0");
        bytes.extend(banner.as_bytes());
        bytes.extend([0; 3000]);
        bytes
    }

    #[test]
    fn the_version_decides_what_is_kept() {
        for (banner, kept) in [
            ("Linux version 6.12.48+deb13-riscv64 (debian-kernel@lists.debian.org)", 1023),
            ("Linux version 6.3.0-rc1 (a@b)", 1023),
            ("Linux version 7.0 (a@b)", 1023),
            ("Linux version 6.1.22 (a@b)", 1023),
            ("Linux version 6.1.21 (a@b)", 511),
            ("Linux version 5.16.20 (a@b)", 511),
            ("Linux version 5.15.200 (a@b)", 1023),
        ] {
            let kernel = kernel(banner);
            assert_eq!(check(&kernel, &"x".repeat(kept)), Ok(()), "{banner}");
            let line = format!("{} last=1", "x".repeat(kept));
            let error = check(&kernel, &line).expect_err(banner);
            assert_eq!(
                (error.given, error.kept, error.lost.as_str()),
                (kept + 7, kept, " last=1"),
                "{banner}"
            );
        }
    }

    #[test]
    fn a_character_is_lost_whole() {
        let line = format!("{}ä", "x".repeat(1022));
        let error = check(&kernel("Linux version 6.12.1 (a@b)"), &line).expect_err("a byte too long");
        assert_eq!((error.given, error.kept, error.lost.as_str()), (1024, 1023, "ä"));
    }

    #[test]
    fn of_what_is_no_linux_nothing_is_known() {
        let long = "x".repeat(5000);
        for kernel in [&b""[..], &[0; 100], b"Linux version ", b"Linux version 6", b"Linux version x.y"] {
            assert_eq!(check(kernel, &long), Ok(()));
        }
    }
}
