//! The shared libraries that programs need, transitively.

use super::elf;
use super::error::ImageError;
use super::tree::Tree;
use std::collections::BTreeSet;

/// Where the loader of a Debian riscv64 system looks.
const LIBRARY_DIRECTORIES: [&str; 3] = ["usr/lib/riscv64-linux-gnu", "usr/lib", "usr/lib64"];

/// Paths in `pool` (links followed on neither end) of all libraries and loaders that the programs at `roots` need.
///
/// A library is listed under the name by which it is looked up, so that copying `pool.read(path)` to `path` suffices.
pub fn libraries(pool: &Tree, roots: &[&str]) -> Result<BTreeSet<String>, ImageError> {
    let mut found = BTreeSet::new();
    let mut pending: Vec<String> = roots.iter().map(|&root| root.to_owned()).collect();
    while let Some(path) = pending.pop() {
        let bytes = pool.need(&path)?;
        let Some(dynamic) = elf::dynamic(&bytes) else { continue };
        for name in &dynamic.needed {
            let place = LIBRARY_DIRECTORIES
                .iter()
                .map(|dir| format!("{dir}/{name}"))
                .find(|place| pool.read(place).is_some());
            let place = place.ok_or_else(|| ImageError::Missing {
                what: "shared library",
                name: format!("{name} (for {path})"),
            })?;
            if found.insert(place.clone()) {
                pending.push(place);
            }
        }
        if let Some(interpreter) = dynamic.interpreter {
            let place = interpreter.trim_start_matches('/').to_owned();
            let place = if place.starts_with("lib/") { format!("usr/{place}") } else { place };
            pool.need(&place)?;
            found.insert(place);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::elf::tests::library;
    use super::*;

    #[test]
    fn libraries_of_libraries_are_found_once() {
        let mut pool = Tree::with_merged_usr();
        pool.file("usr/bin/a", library(Some("/lib/ld.so.1"), &["libx.so.1", "libc.so.6"]), 0o755);
        pool.file("usr/lib/riscv64-linux-gnu/libx.so.1.2", library(None, &["libc.so.6"]), 0o644);
        pool.symlink("usr/lib/riscv64-linux-gnu/libx.so.1", "libx.so.1.2");
        pool.file("usr/lib/riscv64-linux-gnu/libc.so.6", library(None, &[]), 0o644);
        pool.file("usr/lib/ld.so.1", library(None, &[]), 0o755);
        let found = libraries(&pool, &["usr/bin/a"]).expect("all are there");
        let names: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(
            names,
            ["usr/lib/ld.so.1", "usr/lib/riscv64-linux-gnu/libc.so.6", "usr/lib/riscv64-linux-gnu/libx.so.1"]
        );
    }

    #[test]
    fn a_missing_library_is_named() {
        let mut pool = Tree::with_merged_usr();
        pool.file("usr/bin/a", library(None, &["libgone.so.3"]), 0o755);
        let error = libraries(&pool, &["usr/bin/a"]).expect_err("it isn't there");
        assert!(error.to_string().contains("libgone.so.3"), "{error}");
    }
}
