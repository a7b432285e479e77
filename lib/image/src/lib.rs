//! Guest images made from Debian packages: `quasar image build debian`.
//!
//! The steps, each in a file of its own:
//! 1. [`sources`], [`apt`]: find the mirror and keyring in the machine's own apt sources and let an isolated apt resolve and
//!    download riscv64 packages. apt verifies the signatures; nothing of the machine's own package state is touched.
//! 2. [`deb`], [`tree`]: unpack the packages into a tree held in memory, with owners and modes as packaged, so that neither
//!    root nor `fakeroot` is needed. No program of the guest's runs on the host.
//! 3. [`closure`], [`modules`]: the shared libraries and kernel modules that the small guest needs, and no others.
//! 4. [`initramfs`], [`cpio`]: the small guest. [`configure`], [`accounts`], [`disk`]: the Debian disk.
//! 5. [`cache`]: everything is kept under a key made of the package hashes, the recipe and the sources.

#![forbid(unsafe_code)]

pub mod accounts;
pub mod apt;
mod assemble;
mod bench;
mod build;
pub mod cache;
pub mod closure;
pub mod configure;
pub mod cpio;
pub mod deb;
pub mod disk;
pub mod elf;
mod error;
pub mod initramfs;
pub mod keys;
pub mod manifest;
pub mod modules;
mod options;
pub mod recipe;
pub mod sources;
mod tools;
pub mod tree;

pub use build::build;
pub use error::ImageError;
pub use options::{BuildOptions, BuiltImages, NoProgress, Progress};
