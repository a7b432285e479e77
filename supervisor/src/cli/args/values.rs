//! Values that are written in a form of their own.

use crate::children::kind_named;
use quasar_abi::control::ProcessKind;
use std::path::PathBuf;

/// A disk as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskArgument {
    /// The file.
    pub path: PathBuf,
    /// Refuse writes.
    pub read_only: bool,
}

impl std::str::FromStr for DiskArgument {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (path, read_only) = match text.rsplit_once(',') {
            Some((path, "ro")) => (path, true),
            Some((path, "rw")) => (path, false),
            _ => (text, false),
        };
        if path.is_empty() {
            return Err("a disk needs a file: FILE or FILE,ro".into());
        }
        Ok(Self { path: path.into(), read_only })
    }
}

/// A program for a kind of process as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExeFor {
    /// The kind.
    pub kind: ProcessKind,
    /// The program.
    pub path: PathBuf,
}

impl std::str::FromStr for ExeFor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, path) = text.split_once('=').unwrap_or((text, ""));
        let kind = kind_named(kind).filter(|_| !path.is_empty());
        let kind = kind.ok_or("it is KIND=PATH, and KIND is cpu, mmu, devices, netswitch or migrator")?;
        Ok(Self { kind, path: path.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_may_have_commas_in_its_name() {
        let disk = |text: &str| text.parse::<DiskArgument>();
        assert_eq!(disk("a,b.img"), Ok(DiskArgument { path: "a,b.img".into(), read_only: false }));
        assert_eq!(disk("a,b.img,ro"), Ok(DiskArgument { path: "a,b.img".into(), read_only: true }));
        assert!(disk(",ro").is_err());
    }
}
