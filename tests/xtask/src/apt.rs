//! An apt that looks into other suites than the machine's and leaves the machine's own configuration alone.

use crate::command::output;
use crate::progress::{STATUS, bar, watched};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Keys of Debian's archive.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Lists and downloads of its own, below one directory.
pub struct Apt {
    dir: PathBuf,
    mirror: String,
}

impl Apt {
    /// The archive is the one that the machine's own apt uses.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "parts"] {
            std::fs::create_dir_all(dir.join(part))?;
        }
        std::fs::write(dir.join("status"), "")?;
        Ok(Self { dir: dir.to_owned(), mirror: debian_archive()? })
    }

    /// A program of apt's; what it downloads comes into the directory.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, part) in [
            ("Dir::State::Lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::SourceParts", "parts"),
        ] {
            command.arg("-o").arg(format!("{option}={}", self.dir.join(part).display()));
        }
        command.args(["-o", "APT::Sandbox::User=root", "-qq"]);
        command.current_dir(&self.dir);
        command
    }

    /// Looks into these suites from now on: at their packages ("deb") or their sources ("deb-src").
    pub fn look_into(&self, what: &str, suites: &[&str]) -> anyhow::Result<()> {
        let source =
            |suite| format!("{what} [arch=amd64 signed-by={KEYRING}] {} {suite} main\n", self.mirror);
        let sources: String = suites.iter().map(source).collect();
        std::fs::write(self.dir.join("sources.list"), sources)?;
        self.get(&["-o", "APT::Update::Error-Mode=any", "update"])
    }

    /// Runs its apt-get; a failure is a sentence.
    fn get(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = self.command("apt-get");
        let bar = bar("asking Debian's archive");
        let done = watched(command.env("LC_ALL", "C").args(STATUS).args(arguments), &bar)?;
        bar.finish_and_clear();
        done.map_err(anyhow::Error::from)
    }

    /// Downloads packages alone, without what they need.
    pub fn download(&self, packages: &[&str]) -> anyhow::Result<()> {
        self.get(&[&["download"], packages].concat())
    }

    /// Downloads a package's source, as it came from its authors.
    pub fn source(&self, package: &str) -> anyhow::Result<()> {
        self.get(&["source", "--download-only", "--tar-only", package])
    }

    /// Downloads what would be installed for a package on an empty machine, from one of the suites rather than the others.
    pub fn fetch(&self, package: &str, suite: &str) -> anyhow::Result<()> {
        self.get(&["install", "--download-only", "-y", "--no-install-recommends", "-t", suite, package])
    }

    /// The downloaded file whose name has this in it.
    pub fn downloaded(&self, part: &str) -> anyhow::Result<PathBuf> {
        let mut files = std::fs::read_dir(&self.dir)?.flatten();
        let file = files.find(|file| file.file_name().to_string_lossy().contains(part));
        Ok(file.context("apt downloaded nothing")?.path())
    }

    /// The packages that were downloaded to be installed.
    pub fn archives(&self) -> anyhow::Result<Vec<PathBuf>> {
        let files = std::fs::read_dir(self.dir.join("cache/archives"))?.flatten().map(|file| file.path());
        Ok(files.filter(|file| file.extension().is_some_and(|extension| extension == "deb")).collect())
    }

    /// The versions of a package in the suites it looks into.
    pub fn versions(&self, package: &str) -> anyhow::Result<Vec<String>> {
        let listed = output(self.command("apt-cache").args(["madison", package]))?;
        let versions = listed.lines().filter_map(|line| line.split('|').nth(1));
        Ok(versions.map(|version| version.trim().to_owned()).collect())
    }
}

/// The archive of Debian itself that this machine's apt uses.
pub fn debian_archive() -> anyhow::Result<String> {
    let own = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let addresses = output(Command::new("apt-get").args(own)).context(
        "set-up uses apt and Debian's packages, and apt does not answer; on another distribution than Debian build with \
         `cargo build --release --workspace` and install what `quasar image build` asks for",
    )?;
    let mut addresses = addresses.lines().map(|address| address.trim_end_matches('/'));
    let debian = addresses.find(|address| address.ends_with("/debian"));
    let none = "this machine's apt knows no archive of Debian, which guests are made from: add one to /etc/apt/sources.list.d";
    Ok(debian.context(none)?.to_owned())
}
