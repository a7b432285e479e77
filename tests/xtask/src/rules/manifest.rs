//! `architecture.toml`.

use anyhow::Context;
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Spanned;

/// Its place.
pub const FILE: &str = "architecture.toml";

/// What it says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The layers, lowest first.
    #[serde(default, rename = "layer")]
    pub layers: Vec<Layer>,
    /// Dependencies against the rule of the layers.
    #[serde(default, rename = "exception")]
    pub exceptions: Vec<Exception>,
    /// The files with `unsafe` in them, and why they need it.
    #[serde(default, rename = "unsafe")]
    pub unsafety: BTreeMap<Spanned<String>, String>,
    /// The circles of imports that there still are.
    #[serde(default, rename = "circle")]
    pub circles: Vec<Circle>,
    /// Where each line of the text ends.
    #[serde(skip)]
    ends: Vec<usize>,
}

/// Crates that do not depend on one another.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Its name, for the reader.
    #[serde(rename = "name")]
    _name: String,
    /// Its crates, each with those of ours that it depends on.
    pub crates: BTreeMap<Spanned<String>, Vec<String>>,
}

/// A dependency against the rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// The crate.
    #[serde(rename = "crate")]
    pub name: Spanned<String>,
    /// What it depends on.
    pub uses: String,
    /// `dev` or `build`; without it a normal dependency.
    pub kind: Option<String>,
    /// Why that must be.
    pub reason: String,
}

/// Files that import one another in a circle.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circle {
    /// All of them.
    pub files: Spanned<Vec<String>>,
    /// Why, or until when.
    pub reason: String,
}

impl Manifest {
    /// Reads it.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut this: Self = toml::from_str(text).with_context(|| FILE.to_owned())?;
        this.ends = text.match_indices('\n').map(|(at, _)| at).collect();
        Ok(this)
    }

    /// The line of a value in it.
    pub fn line<T>(&self, value: &Spanned<T>) -> usize {
        self.ends.partition_point(|end| *end < value.span().start) + 1
    }
}
