//! No circles of imports within a crate but the listed ones, which can only shrink.

use super::Finding;
use super::crates::Crate;
use super::manifest::{FILE, Manifest};
use super::resolve::{self, Uses};
use super::{modules, tree::Tree};
use std::collections::{BTreeMap, BTreeSet};

/// Files that all lead to one another, and the steps of one way round.
type Circle = (BTreeSet<String>, Vec<Step>);

/// A file, the line in which it uses the next one.
type Step = (String, usize, String);

/// Compares the circles of all crates with the list, both ways.
pub fn check(manifest: &Manifest, crates: &[Crate], tree: &Tree) -> Vec<Finding> {
    let mut found: BTreeMap<BTreeSet<String>, Vec<Step>> = BTreeMap::new();
    for root in crates.iter().flat_map(|c| &c.roots) {
        found.extend(circles(&resolve::uses(&modules::of(tree, root))));
    }
    let mut findings = vec![];
    let mut known: Vec<BTreeSet<&str>> = vec![];
    for circle in &manifest.circles {
        let line = manifest.line(&circle.files);
        let files: BTreeSet<&str> = circle.files.as_ref().iter().map(String::as_str).collect();
        let is_here = |members: &BTreeSet<String>| members.iter().any(|file| files.contains(file.as_str()));
        let gone: Vec<&str> = {
            let left: BTreeSet<&str> =
                found.keys().filter(|m| is_here(m)).flatten().map(String::as_str).collect();
            files.difference(&left).copied().collect()
        };
        if gone.len() == files.len() {
            let what = "this circle is no more".to_owned();
            findings.push(Finding::new(FILE, line, what, "remove it from the list"));
        } else if !gone.is_empty() {
            let what = format!("not in this circle any more: {}", gone.join(", "));
            findings.push(Finding::new(FILE, line, what, "remove them from its files"));
        }
        if circle.reason.trim().is_empty() {
            findings.push(Finding::new(FILE, line, "a circle without a reason", "give it one"));
        }
        known.push(files);
    }
    for (members, steps) in &found {
        let listed = |known: &BTreeSet<&str>| members.iter().all(|file| known.contains(file.as_str()));
        if !known.iter().any(listed) {
            findings.push(describe(members, steps));
        }
    }
    findings
}

fn describe(members: &BTreeSet<String>, steps: &[Step]) -> Finding {
    let way: Vec<String> = steps.iter().map(|(from, line, to)| format!("{from}:{line} uses {to}")).collect();
    let (file, line) = steps.first().map_or(("", 1), |(from, line, _)| (from, *line));
    let mut what = format!("these modules import one another in a circle: {}", way.join(", "));
    if members.len() > steps.len() {
        let all: Vec<&str> = members.iter().map(String::as_str).collect();
        what = format!("{what} (all of it: {})", all.join(", "));
    }
    Finding::new(file, line, what, "move what both need into a module of its own")
}

/// The circles among a crate's files.
fn circles(uses: &Uses) -> Vec<Circle> {
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        uses.keys().map(|file| (file.as_str(), reachable(uses, file))).collect();
    let mut circles = vec![];
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for (file, targets) in &reach {
        if targets.contains(file) && !done.contains(file) {
            let back = |to: &&str| reach.get(*to).is_some_and(|from| from.contains(file));
            let members: BTreeSet<&str> = targets.iter().copied().filter(back).collect();
            done.extend(&members);
            let steps = round(uses, file, &members);
            circles.push((members.into_iter().map(ToOwned::to_owned).collect(), steps));
        }
    }
    circles
}

fn reachable<'u>(uses: &'u Uses, from: &str) -> BTreeSet<&'u str> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for to in uses.get(file).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(to.as_str()) {
                open.push(to);
            }
        }
    }
    found
}

/// A shortest way from a file back to it.
fn round(uses: &Uses, start: &str, members: &BTreeSet<&str>) -> Vec<Step> {
    let mut before: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
    let mut open = std::collections::VecDeque::from([start]);
    while let Some(file) = open.pop_front() {
        for (to, line) in uses.get(file).into_iter().flatten().filter(|(to, _)| members.contains(to.as_str()))
        {
            if !before.contains_key(to.as_str()) {
                before.insert(to, (file, *line));
                open.push_back(to);
            }
        }
    }
    let mut steps = vec![];
    let mut to = start;
    while let Some((from, line)) = before.get(to) {
        steps.push(((*from).to_owned(), *line, to.to_owned()));
        to = from;
        if to == start {
            break;
        }
    }
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (&str, &str) = ("cpu/src/a.rs", "\nuse crate::b::B;\npub struct A;");
    const B: (&str, &str) = ("cpu/src/b.rs", "pub struct B;\nfn f() { crate::a::f() }");
    const C: (&str, &str) = ("cpu/src/c.rs", "use crate::a::A;\nuse crate::d;\nfn f() { d::g(); }");
    const D: (&str, &str) = ("cpu/src/d.rs", "pub fn g() {}");

    fn found(manifest: &str, files: &[(&str, &str)]) -> Vec<String> {
        let mut files = files.to_vec();
        files.push(("cpu/src/lib.rs", "mod a; mod b; mod c; mod d;"));
        let one = Crate { roots: vec!["cpu/src/lib.rs".into()], ..Crate::default() };
        let manifest = Manifest::parse(manifest).expect("a manifest");
        check(&manifest, &[one], &Tree::of(&files)).iter().map(ToString::to_string).collect()
    }

    const LISTED: &str = "[[circle]]\nfiles = [\"cpu/src/a.rs\", \"cpu/src/b.rs\"]\nreason = \"old\"\n";

    #[test]
    fn a_circle_is_told_with_its_steps() {
        let found = found("", &[A, B, C, D]);
        assert_eq!(
            found,
            [
                "cpu/src/a.rs:2: these modules import one another in a circle: cpu/src/a.rs:2 uses cpu/src/b.rs, \
              cpu/src/b.rs:2 uses cpu/src/a.rs; move what both need into a module of its own"
            ]
        );
    }

    #[test]
    fn a_listed_circle_is_let_be_until_it_is_gone() {
        assert_eq!(found(LISTED, &[A, B, C, D]), [""; 0]);
        let cut = ("cpu/src/b.rs", "pub struct B;");
        assert_eq!(
            found(LISTED, &[A, cut, C, D]),
            ["architecture.toml:2: this circle is no more; remove it from the list"]
        );
    }

    #[test]
    fn a_listed_circle_may_shrink_and_not_grow() {
        let longer = LISTED.replace("b.rs\"", "b.rs\", \"cpu/src/c.rs\"");
        assert_eq!(
            found(&longer, &[A, B, C, D]),
            ["architecture.toml:2: not in this circle any more: cpu/src/c.rs; remove them from its files"]
        );
        let back = ("cpu/src/b.rs", "pub struct B(crate::c::C);\nfn f() { crate::a::f() }");
        let grown = found(LISTED, &[A, back, C, D]);
        assert!(
            grown.len() == 1
                && grown[0].ends_with("of its own")
                && grown[0].contains("all of it: cpu/src/a.rs, cpu/src/b.rs, cpu/src/c.rs"),
            "{grown:?}"
        );
        let silent = found(&LISTED.replace("old", ""), &[A, B, C, D]);
        assert!(silent.len() == 1 && silent[0].contains("without a reason"), "{silent:?}");
    }
}
