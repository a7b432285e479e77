//! Values that are written in a form of their own.

use clap::builder::{OsStringValueParser, TypedValueParser};
use quasar_abi::control::ProcessKind;
use quasar_api::orders::kind_named;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A disk as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskArgument {
    /// The file.
    pub path: PathBuf,
    /// Refuse writes.
    pub read_only: bool,
}

impl DiskArgument {
    /// Reads one from a command line, where it may be any bytes.
    #[must_use]
    pub fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(|text| Self::read(&text, |path| path.exists()))
    }

    /// `,ro` and `,rw` at the end are options, unless the only file that is there is that of the whole text: a file
    /// whose name ends so can be used as it is, and beside one without the ending by a second `,ro` or `,rw`.
    fn read(text: &OsStr, is_there: impl Fn(&Path) -> bool) -> Result<Self, String> {
        let option = |name: &str, read_only| {
            let path = text.as_bytes().strip_suffix(name.as_bytes())?;
            Some((Path::new(OsStr::from_bytes(path)), read_only))
        };
        let whole = Path::new(text);
        let cut = option(",ro", true).or_else(|| option(",rw", false));
        let (path, read_only) =
            cut.filter(|(path, _)| !is_there(whole) || is_there(path)).unwrap_or((whole, false));
        if path.as_os_str().is_empty() {
            return Err("a disk needs a file: FILE or FILE,ro".into());
        }
        Ok(Self { path: path.to_owned(), read_only })
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

impl ExeFor {
    /// Reads one from a command line, where the program's path may be any bytes.
    #[must_use]
    pub fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(|text| Self::read(&text))
    }

    fn read(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let (kind, path) = bytes.split_at(bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len()));
        let path = path.get(1..).unwrap_or_default();
        let kind = std::str::from_utf8(kind).ok().and_then(kind_named).filter(|_| !path.is_empty());
        let kind = kind.ok_or("it is KIND=PATH, and KIND is cpu, mmu, devices, netswitch or migrator")?;
        Ok(Self { kind, path: OsStr::from_bytes(path).into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(text: impl AsRef<[u8]>, there: &[&str]) -> Result<(PathBuf, bool), String> {
        let is_there = |path: &Path| there.iter().any(|name| path == Path::new(name));
        DiskArgument::read(OsStr::from_bytes(text.as_ref()), is_there).map(|disk| (disk.path, disk.read_only))
    }

    #[test]
    fn a_disk_may_have_commas_in_its_name() {
        assert_eq!(disk("a,b.img", &[]), Ok(("a,b.img".into(), false)));
        assert_eq!(disk("a,b.img,ro", &[]), Ok(("a,b.img".into(), true)));
        assert_eq!(disk("a.img,rw", &["a.img"]), Ok(("a.img".into(), false)));
        assert!(disk(",ro", &[]).is_err() && disk("", &[]).is_err());
    }

    #[test]
    fn a_disks_name_may_end_as_an_option_does() {
        assert_eq!(disk("a.img,ro", &["a.img,ro"]), Ok(("a.img,ro".into(), false)));
        assert_eq!(disk("a.img,rw", &["a.img,rw"]), Ok(("a.img,rw".into(), false)));
        assert_eq!(disk("a.img,ro,ro", &["a.img,ro"]), Ok(("a.img,ro".into(), true)));
        assert_eq!(disk(",ro", &[",ro"]), Ok((",ro".into(), false)));
        // Beside one without the ending the option is what is meant.
        let both = ["a.img", "a.img,ro"];
        assert_eq!(disk("a.img,ro", &both), Ok(("a.img".into(), true)));
        assert_eq!(disk("a.img,ro,rw", &both), Ok(("a.img,ro".into(), false)));
    }

    #[test]
    fn a_programs_name_may_be_any_bytes() {
        let exe = ExeFor::read(OsStr::from_bytes(b"cpu=/a=b\xff")).expect("a program");
        assert_eq!((exe.kind, exe.path.as_os_str().as_bytes()), (ProcessKind::Cpu, &b"/a=b\xff"[..]));
        for wrong in ["cpu", "cpu=", "=a", "gpu=/a", ""] {
            assert!(ExeFor::read(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_disks_name_may_be_any_bytes() {
        let name = b"/img/\xff\xfe.raw";
        let path = PathBuf::from(OsStr::from_bytes(name));
        assert_eq!(disk(name, &[]), Ok((path.clone(), false)));
        assert_eq!(disk([&name[..], b",ro"].concat(), &[]), Ok((path, true)));
    }
}
