//! The guest images, built when they are not there yet.

use crate::process::output;
use crate::programs;
use anyhow::Context;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Where the images are; see `quasar image build`.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Images {
    /// The kernel.
    pub kernel: PathBuf,
    /// The small guest.
    pub initrd: PathBuf,
    /// Debian on a disk; never started itself, each guest gets a copy.
    pub disk: PathBuf,
    /// The initramfs that goes over to the disk.
    pub disk_initrd: PathBuf,
    /// The key that both guests accept for root.
    pub ssh_key: PathBuf,
}

/// Builds the images (seconds when that has been done before).
///
/// # Errors
/// When `quasar image build` fails.
pub fn build() -> anyhow::Result<Images> {
    let text = output(Command::new(programs::quasar()?).args(["image", "build", "debian", "--json"]))?;
    serde_json::from_str(&text).with_context(|| format!("quasar image build said {text:?}"))
}

/// The images, looked for once per process.
///
/// # Errors
/// As [`build`].
pub fn images() -> anyhow::Result<&'static Images> {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    if let Some(images) = IMAGES.get() {
        return Ok(images);
    }
    let built = build()?;
    Ok(IMAGES.get_or_init(|| built))
}

/// Debian's OpenSBI.
pub const OPENSBI: &str = "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin";
