//! Copies of disks.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Copies a file and leaves holes where it is zero, so that a disk image stays sparse. An existing target is
/// replaced.
///
/// # Errors
/// What the system says.
pub fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    const STEP: usize = 1 << 16;
    let (mut source, mut target) = (File::open(from)?, File::create(to)?);
    let size = source.metadata()?.len();
    target.set_len(size)?;
    let (mut buffer, mut at) = (vec![0; STEP], 0);
    loop {
        let mut filled = 0;
        while filled < STEP {
            match source.read(&mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            return Ok(());
        }
        if buffer[..filled].iter().any(|byte| *byte != 0) {
            target.seek(SeekFrom::Start(at))?;
            target.write_all(&buffer[..filled])?;
        }
        at += filled as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn sparse_copies_are_equal_and_sparse() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        let mut data = vec![0_u8; 4 << 20];
        data[3_000_000] = 7;
        data.extend([1, 0, 0]);
        std::fs::write(&from, &data).expect("writable");
        copy_sparse(&from, &to).expect("copied");
        assert!(std::fs::read(&to).expect("readable") == data);
        let blocks = |path: &Path| std::fs::metadata(path).expect("there").blocks();
        assert!(blocks(&to) < blocks(&from));
    }
}
