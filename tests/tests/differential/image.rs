//! From cases to a program: the harness is assembled around them.

use crate::case::Case;
use crate::layout::{CASES_HEADER, symbols};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The assembler's driver.
pub const COMPILER: &str = "riscv64-linux-gnu-gcc";

/// Builds the image of `cases` in `directory`.
///
/// # Errors
/// When the assembler is missing or refuses.
pub fn build(cases: &[Case], directory: &Path) -> anyhow::Result<PathBuf> {
    let mut bytes = (cases.len() as u64).to_le_bytes().to_vec();
    bytes.resize(usize::try_from(CASES_HEADER)?, 0);
    for (slot, case) in cases.iter().enumerate() {
        bytes.extend(case.record(slot));
    }
    std::fs::write(directory.join("cases.bin"), bytes)?;
    let image = directory.join("image.elf");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/bare");
    let output = Command::new(COMPILER)
        .current_dir(directory)
        .args(["-nostdlib", "-static", "-no-pie", "-march=rv64gc", "-mabi=lp64d", "-Wl,--build-id=none"])
        .args(symbols(cases.len() as u64).iter().map(|(name, value)| format!("-D{name}={value:#x}")))
        .arg("-T")
        .arg(sources.join("differential.ld"))
        .arg(sources.join("differential.S"))
        .arg("-o")
        .arg(&image)
        .output()
        .with_context(|| format!("{COMPILER} is missing: install the package gcc-riscv64-linux-gnu"))?;
    ensure!(output.status.success(), "{COMPILER}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(image)
}
