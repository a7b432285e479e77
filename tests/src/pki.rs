//! Certificates for hosts under test.

use crate::process::output;
use crate::programs;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority of its own with certificates for these hosts: a directory of keys for each.
///
/// # Errors
/// When `quasar pki` fails.
pub fn authority(directory: &Path, hosts: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let at = directory.to_str().context("a path")?;
    output(Command::new(programs::quasar()?).args(["pki", "init", "--dir", at]))?;
    let issue = |host: &&str| {
        let out = directory.join(format!("for-{host}"));
        let to = out.to_str().context("a path")?;
        output(Command::new(programs::quasar()?).args(["pki", "issue", host, "--dir", at, "--out", to]))?;
        Ok(out)
    };
    hosts.iter().map(issue).collect()
}
