//! The workspace's crates as cargo knows them. Of `cargo metadata`'s answer only this much is read; a crate that reads
//! all of it would change the features of what the programs are built with.

use crate::command::{cargo, output, root};
use anyhow::Context;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// One of our crates.
#[derive(Debug, Default)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its directory, from the repository's root.
    pub directory: String,
    /// Its dependencies, others' crates too.
    pub dependencies: Vec<Dependency>,
    /// The files that its library, programs, tests and examples begin with.
    pub roots: Vec<String>,
}

impl Crate {
    /// Its `Cargo.toml`.
    pub fn manifest(&self) -> String {
        format!("{}/Cargo.toml", self.directory)
    }
}

/// What a crate depends on.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The other crate.
    pub name: String,
    /// `dev`, `build`, or none for a normal one.
    pub kind: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    src_path: PathBuf,
}

/// The workspace's members.
pub fn ours() -> anyhow::Result<Vec<Crate>> {
    let told = output(cargo().args(["metadata", "--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&told).context("cargo metadata's answer")?;
    metadata.packages.into_iter().map(|package| of(package, &root())).collect()
}

fn of(package: Package, root: &Path) -> anyhow::Result<Crate> {
    let from_root = |path: &Path| -> anyhow::Result<String> {
        let path = path.strip_prefix(root).with_context(|| format!("{} is elsewhere", path.display()))?;
        Ok(path.display().to_string())
    };
    Ok(Crate {
        directory: from_root(package.manifest_path.parent().unwrap_or(root))?,
        roots: package.targets.iter().map(|t| from_root(&t.src_path)).collect::<anyhow::Result<_>>()?,
        name: package.name,
        dependencies: package.dependencies,
    })
}
