//! passt: Debian's own where it is recent, else built from the sources of a later suite.
//!
//! Debian 12's acknowledges what a guest sends only when the program behind the socket has received it. A server that
//! writes an answer in two pieces then waits 40 ms for each: the client's delayed acknowledgement.

use crate::apt::Apt;
use crate::command::{exists, output, root};
use crate::install::Need;
use crate::stage::stage;
use anyhow::Context;
use std::path::PathBuf;
use std::process::Command;

/// Date of the oldest version that is taken as it is: Debian 13's.
const RECENT: u32 = 20_250_503;
/// The first release of Debian that has it.
const FIRST_RELEASE: u32 = 13;
/// The suite whose sources are built.
const SUITE: &str = "trixie";

/// Date in a version such as `0.0~git20250503.587980c-2`; 0 when there is none.
fn date(version: &str) -> u32 {
    let date = version.split("git").nth(1).and_then(|rest| rest.get(..8));
    date.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Date of the installed one. The package is asked too: some versions print theirs on a terminal alone.
fn installed() -> u32 {
    let said = output(Command::new("passt").arg("--version")).unwrap_or_default();
    let package =
        || output(Command::new("dpkg-query").args(["--show", "--showformat", "${Version}", "passt"]));
    if exists("passt") { date(&said).max(date(&package().unwrap_or_default())) } else { 0 }
}

/// Where the daemon looks for a passt before it looks on the path: beside Quasar's programs.
fn beside() -> PathBuf {
    root().join("target/release/passt")
}

fn found() -> bool {
    installed() >= RECENT || beside().is_file()
}

/// Whether this release of Debian has a recent one; a release to come has no number yet.
fn packaged() -> bool {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let number = release.lines().find_map(|line| line.strip_prefix("VERSION_ID="));
    number.is_none_or(|number| {
        number.trim_matches('"').parse().is_ok_and(|number: u32| number >= FIRST_RELEASE)
    })
}

/// What must be there for [`provide`].
pub fn needs() -> Vec<Need> {
    if found() {
        return vec![];
    }
    if packaged() && !exists("passt") {
        return vec![Need::new("passt", "passt", "unprivileged network uplink")];
    }
    let why = "builds passt, the unprivileged network uplink";
    vec![Need::new("make", "make", why), Need::new("/usr/include/stdio.h", "libc6-dev", why)]
}

/// Sees to it that the daemon finds a recent one, with what it [`needs`].
pub fn provide() -> anyhow::Result<()> {
    if found() {
        return Ok(());
    }
    stage("building passt, the guest's network uplink, from Debian's source: this release's is too old");
    let work = tempfile::tempdir()?;
    let apt = Apt::new(work.path())?;
    apt.look_into("deb-src", &[SUITE])?;
    apt.source("passt")?;
    let archive = apt.downloaded(".orig.tar")?;
    let version =
        archive.file_name().and_then(|name| name.to_str()?.split('_').nth(1)?.split(".orig").next());
    let version = version.with_context(|| format!("{} names no version", archive.display()))?;
    let source = work.path().join("passt");
    std::fs::create_dir(&source)?;
    output(Command::new("tar").arg("-xf").arg(&archive).args(["--strip-components=1", "-C"]).arg(&source))?;
    let build = format!("VERSION={version}");
    output(Command::new("make").args(["-s", "-C"]).arg(&source).args([&build, "passt"]))?;
    std::fs::create_dir_all(root().join("target/release"))?;
    std::fs::copy(source.join("passt"), beside())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_says_its_date() {
        assert_eq!(date("passt 0.0~git20230309.7c7625d-1\nCopyright Red Hat"), 20_230_309);
        assert_eq!(date("0.0~git20250503.587980c-2+deb13u1"), 20_250_503);
        assert_eq!(date("passt unknown version"), 0);
        assert_eq!(date(""), 0);
    }
}
