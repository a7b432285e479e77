//! What a build is asked for, and what it answers.

use std::path::PathBuf;

/// What to build; [`BuildOptions::default`] is what the command line builds without options.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Debian suite, for example `trixie`.
    pub suite: String,
    /// Size of the ext4 disk in bytes (sparse: what is unused takes no room).
    pub size_bytes: u64,
    /// Where to put copies of the images; without it they are used where they lie in the cache.
    pub out: Option<PathBuf>,
    /// Archive to download from; by default the one that the machine's own apt uses.
    pub mirror: Option<String>,
    /// Keyring to verify the archive with; by default the one that the machine's own apt uses.
    pub keyring: Option<PathBuf>,
    /// Ask the archive for newer packages even if it was asked less than a day ago.
    pub refresh: bool,
    /// Compile the benchmark set (needs the riscv64 cross compiler).
    pub bench: bool,
    /// Cache directory; by default `$XDG_CACHE_HOME/quasar` or `~/.cache/quasar`.
    pub cache: Option<PathBuf>,
}

impl Default for BuildOptions {
    fn default() -> Self {
        BuildOptions {
            suite: "trixie".into(),
            size_bytes: 1 << 30,
            out: None,
            mirror: None,
            keyring: None,
            refresh: false,
            bench: true,
            cache: None,
        }
    }
}

/// Where the images are. The disk is a pristine base: give each VM a copy ([`quasar_places::copy_sparse`]).
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct BuiltImages {
    /// The kernel, a raw RISC-V `Image`.
    pub kernel: PathBuf,
    /// Initramfs of the small guest (an uncompressed cpio archive).
    pub initrd: PathBuf,
    /// ext4 disk with Debian, systemd, sshd and nginx.
    pub disk: PathBuf,
    /// Initramfs that mounts the disk and goes over to it.
    pub disk_initrd: PathBuf,
    /// Private key that both guests accept for root (`.pub` beside it).
    pub ssh_key: PathBuf,
    /// Release of the kernel, for example `6.12.107+deb13-riscv64`.
    pub kernel_version: String,
    /// JSON with packages, versions and hashes.
    pub manifest: PathBuf,
    /// True if nothing had to be built.
    pub from_cache: bool,
}

/// Hears what a long build is doing.
pub trait Progress {
    /// A new step begins.
    fn step(&self, message: &str);
    /// So many things of the present step are done (`total` is 0 where unknown).
    fn advance(&self, done: u64, total: u64);
    /// So many bytes of the present step are there (`total` is 0 where unknown).
    fn transfer(&self, done: u64, total: u64);
}

/// A listener that says nothing.
pub struct NoProgress;

impl Progress for NoProgress {
    fn step(&self, _message: &str) {}
    fn advance(&self, _done: u64, _total: u64) {}
    fn transfer(&self, _done: u64, _total: u64) {}
}
