//! Installs Debian packages that are missing: says which, why and how much, asks apt what it would do, and refuses what
//! touches anything that is installed.

use crate::command::{exists, output};
use crate::machine::{ALONE, Machine};
use crate::simulation::{Amount, Simulation};
use crate::trouble::sentence;
use anyhow::{Context, bail, ensure};
use std::path::Path;
use std::process::Command;

/// A program (on the path) or a file (an absolute path) that something needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What must be there.
    pub what: String,
    /// The Debian package that brings it.
    pub package: String,
    /// What it is for.
    pub why: String,
}

impl Need {
    /// One.
    pub fn new(what: &str, package: &str, why: &str) -> Self {
        Self { what: what.to_owned(), package: package.to_owned(), why: why.to_owned() }
    }

    fn met(&self) -> bool {
        if self.what.starts_with('/') { Path::new(&self.what).exists() } else { exists(&self.what) }
    }
}

/// The packages of needs that are not met, each once, with what they are for.
fn missing(needs: &[Need]) -> Vec<(&str, &str)> {
    let mut missing: Vec<(&str, &str)> = vec![];
    for need in needs.iter().filter(|need| !need.met()) {
        if !missing.iter().any(|(package, _)| *package == need.package) {
            missing.push((&need.package, &need.why));
        }
    }
    missing
}

/// Sees to it that all of these are met, for `purpose`.
pub fn provide(purpose: &str, needs: &[Need]) -> anyhow::Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("{purpose} needs these Debian packages, which are missing:");
    for (package, why) in &missing {
        eprintln!("  {package:<28} {why}");
    }
    let names: Vec<&str> = missing.iter().map(|(package, _)| *package).collect();
    if !exists("apt-get") {
        bail!(
            "there is no apt-get: install these with your distribution's tools, then run this again: {}",
            names.join(" ")
        );
    }
    let machine = Machine::as_root(&names)?;
    let outdated = machine.update().err();
    if let Some(error) = &outdated {
        eprintln!("{error:#}; going on with the lists of packages that are here");
    }
    let (wanted, simulation) = plan(&names).map_err(|error| outdated.unwrap_or(error))?;
    let objections = simulation.objections();
    ensure!(
        objections.is_empty(),
        "to install {}, apt would {}; set-up changes nothing that is installed. If you agree to that, run\n  \
         apt-get install --no-install-recommends {}\nas root, then run this again",
        names.join(" "),
        objections.join(", "),
        names.join(" ")
    );
    let Amount { download, disk } = amount(&simulation)?;
    eprintln!(
        "with what they need themselves {} packages, {} MB to download, {} MB on the disk; nothing that is installed \
         is changed",
        simulation.new.len(),
        download.div_ceil(1_000_000),
        disk.div_ceil(1_000_000)
    );
    machine.install(&wanted)?;
    let still: Vec<&str> = needs.iter().filter(|need| !need.met()).map(|need| need.what.as_str()).collect();
    ensure!(still.is_empty(), "apt installed {}, and still missing is {}", names.join(" "), still.join(", "));
    Ok(())
}

/// What to install, and what that would do. Where a package comes in several versions, one that leaves what is installed
/// as it is goes before the newest: a library's older version may be here, and the program of that version still be had.
fn plan(names: &[&str]) -> anyhow::Result<(Vec<String>, Simulation)> {
    let newest: Vec<String> = names.iter().map(ToString::to_string).collect();
    let first = simulate(&newest)?;
    if first.changed.is_empty() {
        return Ok((newest, first));
    }
    let held: Vec<&str> = first.changed.iter().map(|change| change.from.as_str()).collect();
    let fitting =
        |name: &&str| match versions(name).into_iter().find(|version| held.contains(&version.as_str())) {
            Some(version) => format!("{name}={version}"),
            None => (*name).to_owned(),
        };
    let wanted: Vec<String> = names.iter().map(fitting).collect();
    match simulate(&wanted) {
        Ok(second) if second.objections().is_empty() => Ok((wanted, second)),
        _ => Ok((newest, first)),
    }
}

fn simulate(packages: &[String]) -> anyhow::Result<Simulation> {
    let mut command = Command::new("apt-get");
    command.env("LC_ALL", "C").args(["-qq", "--simulate"]).args(ALONE);
    command.args(["install", "--no-install-recommends"]).args(packages);
    let out = command.output().context("cannot start apt-get")?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("{}", sentence(&said).unwrap_or_else(|| format!("apt-get failed: {}", out.status)));
    }
    Ok(Simulation::parse(&String::from_utf8_lossy(&out.stdout)))
}

/// The versions of a package that the machine's archives have.
fn versions(package: &str) -> Vec<String> {
    let listed = output(Command::new("apt-cache").args(["madison", package])).unwrap_or_default();
    let versions = listed.lines().filter_map(|line| line.split('|').nth(1));
    versions.map(|version| version.trim().to_owned()).collect()
}

fn amount(simulation: &Simulation) -> anyhow::Result<Amount> {
    let all = simulation.new.iter().map(|(name, version)| format!("{name}={version}"));
    Ok(Amount::parse(&output(Command::new("apt-cache").arg("show").args(all))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_brings_several_things_is_named_once_and_what_is_there_not_at_all() {
        let needs = [
            Need::new("sh", "dash", "a shell"),
            Need::new("/usr", "base-files", "a directory"),
            Need::new("no-such-program", "tools", "one thing"),
            Need::new("/no/such/file", "tools", "another"),
            Need::new("nor-this-one", "more-tools", "a third"),
        ];
        assert_eq!(missing(&needs), [("tools", "one thing"), ("more-tools", "a third")]);
    }
}
