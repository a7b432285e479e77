//! Kernels of a few instructions, for tests of what is around a guest.

use quasar_abi::machine::{SYSCON, UART};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of an Image's header (Linux, Documentation/arch/riscv/boot-image-header.rst).
const HEADER: usize = 64;

/// An Image with this code behind its header, which begins with a jump to it; in memory it occupies `span` bytes.
#[must_use]
pub fn image(code: &[u32], span: u64) -> Vec<u8> {
    // jal x0, 64
    let mut bytes = 0x0400_006f_u32.to_le_bytes().to_vec();
    bytes.resize(HEADER, 0);
    bytes[8..16].copy_from_slice(&0x20_0000_u64.to_le_bytes());
    bytes[16..24].copy_from_slice(&span.to_le_bytes());
    bytes[48..56].copy_from_slice(b"RISCV\0\0\0");
    bytes[56..60].copy_from_slice(b"RSC\x05");
    bytes.extend(code.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

/// A kernel that powers the machine off at once.
///
/// # Errors
/// When it cannot be written.
pub fn brief(directory: &Path) -> io::Result<PathBuf> {
    assert_eq!(SYSCON.base, 0x10_0000, "the first instruction below");
    // lui t0, 0x100; lui t1, 5; addi t1, t1, 0x555; sw t1, 0(t0); j .
    write(directory, "brief", &[0x0010_02b7, 0x0000_5337, 0x5553_0313, 0x0062_a023, 0x0000_006f])
}

/// A kernel that waits for ever.
///
/// # Errors
/// When it cannot be written.
pub fn idle(directory: &Path) -> io::Result<PathBuf> {
    // wfi; j -4
    write(directory, "idle", &[0x1050_0073, 0xffdf_f06f])
}

/// A kernel that writes this to the serial port and then loops, without waiting or in WFI.
///
/// # Errors
/// When it cannot be written.
pub fn says(directory: &Path, name: &str, text: &str, waits: bool) -> io::Result<PathBuf> {
    assert_eq!(UART.base, 0x1000_0000, "the first instruction below");
    // lui t0, 0x10000; auipc t1, 0; addi t1, t1, 36; 1: lbu t2, 0(t1); beqz t2, 2f; sb t2, 0(t0); addi t1, t1, 1; j 1b
    let mut code = vec![
        0x1000_02b7,
        0x0000_0317,
        0x0243_0313,
        0x0003_4383,
        0x0003_8863,
        0x0072_8023,
        0x0013_0313,
        0xff1f_f06f,
    ];
    // 2: wfi (or nop); j 2b
    code.extend([if waits { 0x1050_0073 } else { 0x0000_0013 }, 0xffdf_f06f]);
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize((text.len() + 1).next_multiple_of(4), 0);
    code.extend(bytes.chunks(4).filter_map(|word| word.first_chunk()).map(|word| u32::from_le_bytes(*word)));
    write(directory, name, &code)
}

fn write(directory: &Path, name: &str, code: &[u32]) -> io::Result<PathBuf> {
    let path = directory.join(name);
    std::fs::write(&path, image(code, 4096))?;
    Ok(path)
}
