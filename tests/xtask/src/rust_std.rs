//! Rust's standard library for other targets: from rustup, or built from its source.
//!
//! Where rustup's servers cannot be reached, the source comes from the component `rust-src` if that is
//! installed, or from Debian's package of the same name in exactly the compiler's version; the library is
//! built once and kept in the cache.

use crate::apt::Apt;
use crate::command::{cache, exists, output, run};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Seconds for rustup to fetch all targets; some 30 MB each.
const RUSTUP_SECONDS: &str = "180";
/// Suites in which the compiler's version may be found.
const SUITES: &[&str] = &["trixie-backports", "trixie", "forky", "sid", "experimental"];

fn rustc(arguments: &[&str]) -> anyhow::Result<String> {
    Ok(output(Command::new("rustc").args(arguments))?.trim().to_owned())
}

fn holds_std(library: &Path) -> bool {
    let entries = std::fs::read_dir(library).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Whether the toolchain itself has the library.
pub fn installed(triple: &str) -> bool {
    rustc(&["--print", "target-libdir", "--target", triple]).is_ok_and(|dir| holds_std(Path::new(&dir)))
}

fn in_sysroot(sysroot: &Path, triple: &str) -> bool {
    holds_std(&sysroot.join("lib/rustlib").join(triple).join("lib"))
}

/// Sees to it that the library is there for all of these targets. Returns the sysroot that holds those which
/// the toolchain does not have, if there is one.
pub fn provide(triples: &[&str]) -> anyhow::Result<Option<PathBuf>> {
    let version = rustc(&["-vV"])?.lines().find_map(|l| l.strip_prefix("release: ").map(str::to_owned));
    let version = version.context("rustc does not say its version")?;
    let cache = cache()?.join(format!("cross/rust-{version}"));
    let sysroot = cache.join("sysroot");
    let missing = || triples.iter().copied().filter(|t| !installed(t) && !in_sysroot(&sysroot, t));
    if missing().next().is_some() && exists("rustup") {
        let wanted: Vec<&str> = missing().collect();
        let mut rustup = Command::new("timeout");
        rustup.args([RUSTUP_SECONDS, "rustup", "target", "add"]).args(&wanted);
        if let Err(error) = run(&mut rustup) {
            eprintln!("{error:#}; the standard library is built from its source instead");
        }
    }
    let wanted: Vec<&str> = missing().collect();
    if !wanted.is_empty() {
        let library = source(&version, &cache)?;
        build(&library, &wanted, &sysroot)?;
    }
    Ok(sysroot.is_dir().then_some(sysroot))
}

/// The library's source of this version.
fn source(version: &str, cache: &Path) -> anyhow::Result<PathBuf> {
    let component = PathBuf::from(rustc(&["--print", "sysroot"])?).join("lib/rustlib/src/rust/library");
    let kept = cache.join("library");
    if let Some(found) = [component, kept.clone()].into_iter().find(|dir| dir.join("Cargo.lock").is_file()) {
        return Ok(found);
    }
    let apt = Apt::new(&cache.join("apt"))?;
    let package = download(&apt, version)?;
    let unpacked = cache.join("unpacked");
    std::fs::create_dir_all(&unpacked)?;
    // The whole package is ten times of what is needed.
    let tar = "set -eu; dpkg-deb --fsys-tarfile \"$1\" | tar -x -C \"$2\" --strip-components=4 --wildcards \
               './usr/src/rustc-*/library'";
    run(Command::new("sh").args(["-c", tar, "sh"]).arg(&package).arg(&unpacked))?;
    std::fs::rename(unpacked.join("library"), &kept).context("the package rust-src holds no library/")?;
    std::fs::remove_dir_all(cache.join("apt"))?;
    Ok(kept)
}

/// Downloads `rust-src` of a version from the first suite that has it.
fn download(apt: &Apt, version: &str) -> anyhow::Result<PathBuf> {
    for suite in SUITES {
        if let Err(error) = apt.look_into("deb", &[suite]) {
            eprintln!("{error:#}");
            continue;
        }
        let wanted = format!("{version}+");
        let Some(found) = apt.versions("rust-src")?.into_iter().find(|v| v.starts_with(&wanted)) else {
            continue;
        };
        apt.download(&[&format!("rust-src={found}")])?;
        return apt.downloaded(".deb");
    }
    bail!(
        "Debian has no package rust-src {version} in {}; run `rustup target add TARGET` or `rustup component \
         add rust-src` where rustup's servers can be reached",
        SUITES.join(", ")
    )
}

/// Builds the library for all of these targets and puts it into `sysroot`.
fn build(library: &Path, triples: &[&str], sysroot: &Path) -> anyhow::Result<()> {
    let work = sysroot.with_file_name("work");
    std::fs::create_dir_all(work.join("src"))?;
    std::fs::write(work.join("src/lib.rs"), "")?;
    std::fs::write(
        work.join("Cargo.toml"),
        "[package]\nname = \"seed\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n",
    )?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&work).env_remove("RUSTFLAGS");
    // A released compiler builds its own library like this; there is no other way without rustup.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    cargo.env("CARGO_TARGET_DIR", work.join("target"));
    cargo.args(["build", "--release", "-Zbuild-std=std,panic_abort,proc_macro,test"]);
    cargo.args(triples.iter().flat_map(|triple| ["--target", triple]));
    run(&mut cargo)?;
    for triple in triples {
        let place = sysroot.join("lib/rustlib").join(triple).join("lib");
        std::fs::create_dir_all(&place)?;
        for entry in std::fs::read_dir(work.join("target").join(triple).join("release/deps"))? {
            let (path, name) = entry.map(|e| (e.path(), e.file_name()))?;
            let name = name.to_string_lossy();
            if name.starts_with("lib") && name.ends_with(".rlib") && !name.starts_with("libseed-") {
                std::fs::copy(&path, place.join(&*name))?;
            }
        }
    }
    Ok(std::fs::remove_dir_all(work)?)
}
