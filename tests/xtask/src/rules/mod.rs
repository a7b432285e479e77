//! The rules of the house, which `architecture.toml` writes down: who depends on whom, where `unsafe` is, which modules
//! import one another in a circle, and that every path which documents and comments name is there.

mod circles;
mod crates;
mod layers;
mod manifest;
mod mentions;
mod modules;
mod paths;
mod resolve;
mod tree;
mod unsafety;

use crate::command::root;
use anyhow::bail;
use manifest::Manifest;
use std::fmt;
use std::time::Instant;
use tree::Tree;

/// A rule that is broken somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where, from the repository's root.
    file: String,
    /// In which line, from 1.
    line: usize,
    /// What is there.
    what: String,
    /// What to do.
    remedy: String,
}

impl Finding {
    fn new(file: &str, line: usize, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.file, self.line, self.what, self.remedy)
    }
}

/// Checks the repository.
pub fn run() -> anyhow::Result<()> {
    let start = Instant::now();
    let tree = Tree::read(&root())?;
    let manifest = Manifest::parse(tree.text(manifest::FILE)?)?;
    let crates = crates::ours()?;
    let mut findings = layers::check(&manifest, &crates, &tree);
    findings.extend(unsafety::check(&manifest, &tree));
    findings.extend(circles::check(&manifest, &crates, &tree));
    findings.extend(paths::check(&crates, &tree));
    findings.sort();
    findings.dedup();
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} of the rules in {} are broken, see above", findings.len(), manifest::FILE);
    }
    eprintln!("the rules of {} hold: {} ms", manifest::FILE, start.elapsed().as_millis());
    Ok(())
}
