//! A crate depends on crates of lower layers, on those alone that it names, or by an exception that has a reason.

use super::Finding;
use super::crates::{Crate, Dependency};
use super::manifest::{FILE, Manifest};
use super::tree::Tree;
use std::collections::BTreeMap;

/// Where a crate stands.
struct Place<'m> {
    layer: usize,
    uses: &'m [String],
    line: usize,
}

/// Compares what the crates depend on with the manifest, both ways.
pub fn check(manifest: &Manifest, crates: &[Crate], tree: &Tree) -> Vec<Finding> {
    let mut findings = vec![];
    let mut places: BTreeMap<&str, Place<'_>> = BTreeMap::new();
    for (layer, listed) in manifest.layers.iter().enumerate() {
        for (name, uses) in &listed.crates {
            let line = manifest.line(name);
            if places.insert(name.as_ref(), Place { layer, uses, line }).is_some() {
                findings.push(Finding::new(
                    FILE,
                    line,
                    format!("{} is in two layers", name.as_ref()),
                    "keep one",
                ));
            }
        }
    }
    for (name, place) in &places {
        let Some(found) = crates.iter().find(|c| c.name == *name) else {
            findings.push(Finding::new(
                FILE,
                place.line,
                format!("{name} is no crate of the workspace"),
                "remove it",
            ));
            continue;
        };
        for used in place.uses {
            let higher = places.get(used.as_str()).is_none_or(|other| other.layer >= place.layer);
            if higher {
                let what = format!("{name} may not name {used}, which is not in a lower layer");
                findings.push(Finding::new(
                    FILE,
                    place.line,
                    what,
                    "make it an [[exception]] with its reason",
                ));
            } else if !found.dependencies.iter().any(|d| d.name == *used) {
                let what = format!("{name} does not depend on {used} any more");
                findings.push(Finding::new(FILE, place.line, what, "remove it from the crate's list"));
            }
        }
    }
    for one in crates {
        let Some(place) = places.get(one.name.as_str()) else {
            let what = format!("the crate {} is in no layer of {FILE}", one.name);
            findings.push(Finding::new(&one.manifest(), 1, what, "give it a place there"));
            continue;
        };
        for dependency in &one.dependencies {
            let ours = crates.iter().any(|c| c.name == dependency.name);
            if ours && !place.uses.contains(&dependency.name) && !excepted(manifest, &one.name, dependency) {
                findings.push(refuse(one, dependency, tree));
            }
        }
    }
    findings.extend(stale(manifest, crates));
    findings
}

fn excepted(manifest: &Manifest, name: &str, dependency: &Dependency) -> bool {
    manifest.exceptions.iter().any(|exception| {
        *exception.name.as_ref() == *name
            && exception.uses == dependency.name
            && exception.kind == dependency.kind
    })
}

fn refuse(one: &Crate, dependency: &Dependency, tree: &Tree) -> Finding {
    let file = one.manifest();
    let text = tree.get(&file).unwrap_or_default();
    // `name = …`, `name.workspace = …` or `[dependencies.name]`.
    let names = |line: &str| {
        let rest = line.rsplit_once("dependencies.").map_or(line, |(_, rest)| rest);
        rest.strip_prefix(dependency.name.as_str()).is_some_and(|end| end.starts_with([' ', '.', '=', ']']))
    };
    let line = text.lines().position(names).map_or(1, |index| index + 1);
    let kind = dependency.kind.as_deref().map(|kind| format!("{kind}-")).unwrap_or_default();
    let what = format!("{} may not have the {kind}dependency {}", one.name, dependency.name);
    let remedy = format!(
        "let both use a crate of a lower layer, or, if that cannot be, say so with the reason in {FILE}"
    );
    Finding::new(&file, line, what, remedy)
}

/// Exceptions that nobody needs, or that say nothing.
fn stale(manifest: &Manifest, crates: &[Crate]) -> Vec<Finding> {
    let mut findings = vec![];
    for exception in &manifest.exceptions {
        let name = exception.name.as_ref();
        let needed = crates.iter().filter(|c| c.name == *name).flat_map(|c| &c.dependencies);
        let line = manifest.line(&exception.name);
        if !needed.into_iter().any(|d| d.name == exception.uses && d.kind == exception.kind) {
            let what = format!("{name} does not depend on {} any more", exception.uses);
            findings.push(Finding::new(FILE, line, what, "remove the exception"));
        }
        if exception.reason.trim().is_empty() {
            findings.push(Finding::new(FILE, line, "an exception without a reason", "give it one"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
[[layer]]
name = "contract"
crates = { abi = [] }

[[layer]]
name = "processes"
crates = { cpu = ["abi"], mmu = ["abi"] }

[[exception]]
crate = "cpu"
uses = "mmu"
kind = "dev"
reason = "a test needs it"
"#;

    fn dependency(name: &str, kind: Option<&str>) -> Dependency {
        Dependency { name: name.to_owned(), kind: kind.map(ToOwned::to_owned) }
    }

    fn one(name: &str, dependencies: Vec<Dependency>) -> Crate {
        Crate { name: name.to_owned(), directory: name.to_owned(), dependencies, roots: vec![] }
    }

    fn good() -> Vec<Crate> {
        vec![
            one("abi", vec![dependency("serde", None)]),
            one("cpu", vec![dependency("abi", None), dependency("mmu", Some("dev"))]),
            one("mmu", vec![dependency("abi", None)]),
        ]
    }

    fn found(manifest: &str, crates: &[Crate]) -> Vec<String> {
        let tree =
            Tree::of(&[("mmu/Cargo.toml", "[dependencies]\nabi.workspace = true\ncpu.workspace = true\n")]);
        let manifest = Manifest::parse(manifest).expect("a manifest");
        check(&manifest, crates, &tree).iter().map(ToString::to_string).collect()
    }

    fn only(manifest: &str, crates: &[Crate], start: &str) {
        let found = found(manifest, crates);
        assert!(found.len() == 1 && found[0].starts_with(start), "{found:?}");
    }

    #[test]
    fn what_the_manifest_says_holds() {
        assert_eq!(found(MANIFEST, &good()), [""; 0]);
    }

    #[test]
    fn a_sibling_may_not_be_used_of_any_kind() {
        for (kind, words) in [(None, "the dependency cpu"), (Some("dev"), "the dev-dependency cpu")] {
            let mut crates = good();
            crates[2].dependencies.push(dependency("cpu", kind));
            only(MANIFEST, &crates, &format!("mmu/Cargo.toml:3: mmu may not have {words}; "));
        }
        // An exception is for its kind alone.
        let mut crates = good();
        crates[1].dependencies.push(dependency("mmu", None));
        only(MANIFEST, &crates, "cpu/Cargo.toml:1: cpu may not have the dependency mmu; ");
    }

    #[test]
    fn a_crate_without_a_place_and_a_place_without_a_crate_are_named() {
        let mut crates = good();
        crates.push(one("web", vec![]));
        only(MANIFEST, &crates, "web/Cargo.toml:1: the crate web is in no layer");
        let more = MANIFEST.replace("{ abi = [] }", "{ abi = [], lost = [] }");
        only(&more, &good(), "architecture.toml:4: lost is no crate");
    }

    #[test]
    fn what_is_listed_and_not_needed_is_named() {
        let mut crates = good();
        crates[1].dependencies.truncate(1);
        only(
            MANIFEST,
            &crates,
            "architecture.toml:11: cpu does not depend on mmu any more; remove the exception",
        );
        let mut crates = good();
        crates[2].dependencies.clear();
        only(MANIFEST, &crates, "architecture.toml:8: mmu does not depend on abi any more");
    }

    #[test]
    fn a_list_cannot_name_a_sibling_and_an_exception_needs_a_reason() {
        let listed = MANIFEST.replace("mmu = [\"abi\"]", "mmu = [\"abi\", \"cpu\"]");
        only(&listed, &good(), "architecture.toml:8: mmu may not name cpu, which is not in a lower layer");
        only(
            &MANIFEST.replace("a test needs it", " "),
            &good(),
            "architecture.toml:11: an exception without",
        );
    }
}
