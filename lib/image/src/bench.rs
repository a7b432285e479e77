//! Cross-compiles the programs of `tests/guest/bench`: the benchmark set and the checkers that migration tests run in a guest.

use super::cache;
use super::error::{ImageError, IoContext};
use super::tools::{self, CROSS_CC};
use super::tree::Tree;
use std::path::Path;

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../tests/guest/bench/", $name)))),*]
    };
}

/// The sources; headers and scripts among them.
pub(super) const SOURCES: &[(&str, &str)] = sources![
    "bench.h",
    "chase.c",
    "check.h",
    "dhry.c",
    "dirty.c",
    "fault.c",
    "fib.c",
    "forkexec.c",
    "getpid.c",
    "interp.c",
    "mandel.c",
    "matmul.c",
    "memcpy.c",
    "nbody.c",
    "pingpong.c",
    "run.sh",
    "sha256.c",
    "sieve.c",
    "sort.c",
    "tcpcheck.c",
    "tick.c",
    "triad.c",
    "udpecho.c",
    "verify.c",
];

/// Contraction and vectorising are off so that checksums of floating point are the same on every machine.
const FLAGS: &[&str] = &[
    "-O2",
    "-static",
    "-s",
    "-std=gnu11",
    "-ffp-contract=off",
    "-fno-tree-vectorize",
    "-Wall",
    "-Wextra",
    "-pthread",
];

/// The programs, compiled or from the cache, as a tree with `bench/<name>`.
pub(super) fn programs(cache_root: &Path) -> Result<Tree, ImageError> {
    let version = tools::run(CROSS_CC.command()?.arg("--version"))?;
    let mut hash = cache::Hasher::default();
    hash.add(&version);
    FLAGS.iter().for_each(|flag| hash.add(flag.as_bytes()));
    SOURCES.iter().for_each(|(name, text)| {
        hash.add(name.as_bytes());
        hash.add(text.as_bytes());
    });
    let dir = cache_root.join("bench").join(hash.hex());
    if !dir.is_dir() {
        let draft = tempfile::tempdir_in(cache_root).at("making a directory in", cache_root)?;
        compile(draft.path())?;
        let parent = cache_root.join("bench");
        std::fs::create_dir_all(&parent).at("making directory", parent)?;
        std::fs::rename(draft.keep(), &dir).at("moving to", &dir)?;
    }
    let mut tree = Tree::default();
    for (name, text) in SOURCES {
        if let Some(program) = name.strip_suffix(".c") {
            let path = dir.join(program);
            tree.file(&format!("bench/{program}"), std::fs::read(&path).at("reading", path)?, 0o755);
        } else if name.ends_with(".sh") {
            tree.file(&format!("bench/{name}"), text, 0o755);
        }
    }
    Ok(tree)
}

fn compile(dir: &Path) -> Result<(), ImageError> {
    for (name, text) in SOURCES {
        let path = dir.join(name);
        std::fs::write(&path, text).at("writing", path)?;
    }
    for program in SOURCES.iter().filter_map(|(name, _)| name.strip_suffix(".c")) {
        let source = format!("{program}.c");
        tools::run(CROSS_CC.command()?.current_dir(dir).args(FLAGS).args(["-o", program, &source, "-lm"]))?;
    }
    Ok(())
}
