//! The repository's files.

use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Kinds of files that are read.
const TEXT: &[&str] = &["rs", "md", "toml", "c", "h", "S", "ld", "sh"];

/// All that is in the repository, by paths from its root with `/` between their parts.
#[derive(Debug, Default)]
pub struct Tree {
    texts: BTreeMap<String, String>,
    /// Every file and every directory.
    entries: BTreeSet<String>,
}

impl Tree {
    /// Reads what is below `root`; hidden directories but those that it has (`.ci`, `.cargo`), and what cargo builds,
    /// are passed by.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let mut this = Self::default();
        this.directory(root, "")?;
        Ok(this)
    }

    fn directory(&mut self, root: &Path, path: &str) -> anyhow::Result<()> {
        let directory = root.join(path);
        let cannot = || format!("cannot read {}", directory.display());
        for entry in std::fs::read_dir(&directory).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let kind = entry.file_type().with_context(cannot)?;
            let hidden = name.starts_with('.') && !matches!(name.as_str(), ".ci" | ".cargo");
            if kind.is_dir() {
                if !hidden && name != "target" {
                    self.directory(root, &path)?;
                    self.entries.insert(path);
                }
            } else if kind.is_file() {
                if Path::new(&name).extension().is_some_and(|e| TEXT.iter().any(|text| e == *text)) {
                    let text = std::fs::read(entry.path()).with_context(|| format!("cannot read {path}"))?;
                    self.texts.insert(path.clone(), String::from_utf8_lossy(&text).into_owned());
                }
                self.entries.insert(path);
            }
        }
        Ok(())
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> anyhow::Result<&str> {
        self.get(path).with_context(|| format!("there is no {path} in the repository"))
    }

    /// The text of a file, if it is there.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// The files whose names end like this, with their texts.
    pub fn files(&self, suffix: &str) -> impl Iterator<Item = (&str, &str)> {
        let all = self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        all.filter(move |(path, _)| path.ends_with(suffix))
    }

    /// Every file and directory.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(String::as_str)
    }

    /// Whether this is a file or directory.
    pub fn has(&self, path: &str) -> bool {
        self.entries.contains(path)
    }
}

#[cfg(test)]
impl Tree {
    /// One of these files.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let mut this = Self::default();
        for (path, text) in files {
            this.texts.insert((*path).to_owned(), (*text).to_owned());
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            this.entries.extend(ends.map(|end| path[..end].to_owned()));
        }
        this
    }
}
