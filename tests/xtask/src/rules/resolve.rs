//! Who uses whom: paths of a crate's modules followed to the file that defines what they name.
//!
//! A name that a module only hands on (`pub use`) belongs to the module that defines it, so that a facade is nobody's
//! dependency. A module that is imported counts where something in it is used. What a module uses of those that it is
//! within does not count: it is a part of them.

use super::modules::{Module, Named};
use std::collections::BTreeMap;

/// Imports of imports are followed so far.
const DEPTH: usize = 16;

/// The uses of other files in each file: where each stands first.
pub type Uses = BTreeMap<String, BTreeMap<String, usize>>;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Module(usize),
    /// Something that this module defines.
    In(usize),
}

/// All uses among a crate's modules.
pub fn uses(modules: &[Module]) -> Uses {
    let mut uses = Uses::new();
    for (at, module) in modules.iter().enumerate() {
        let mut note = |found: usize, line: usize| {
            let to = &modules[found].file;
            if *to != module.file && !is_within(modules, at, to) {
                let first = uses.entry(module.file.clone()).or_default().entry(to.clone()).or_insert(line);
                *first = (*first).min(line);
            }
        };
        for path in &module.paths {
            if let Some(Found::In(found) | Found::Module(found)) = follow(modules, at, &path.path, DEPTH) {
                note(found, path.line);
            }
        }
        for import in &module.imports {
            let used = !import.public || import.name.as_ref().is_some_and(|name| module.names.contains(name));
            match follow(modules, at, &import.from.path, DEPTH) {
                Some(Found::In(found)) if used => note(found, import.from.line),
                // Whatever is in it.
                Some(Found::Module(found)) if import.name.is_none() && !import.public => {
                    note(found, import.from.line);
                }
                _ => {}
            }
        }
    }
    uses
}

/// Whether a module is in one of this file.
fn is_within(modules: &[Module], mut at: usize, file: &str) -> bool {
    while at != 0 {
        at = modules[at].parent;
        if modules[at].file == file {
            return true;
        }
    }
    false
}

/// Follows a path that stands in a module; none where it leads to another crate.
fn follow(modules: &[Module], at: usize, path: &[String], depth: usize) -> Option<Found> {
    let (first, rest) = path.split_first()?;
    let mut found = match first.as_str() {
        "crate" => Found::Module(0),
        "self" => Found::Module(at),
        "super" => Found::Module(modules[at].parent),
        name => named(modules, at, name, depth)?,
    };
    for name in rest {
        found = match found {
            Found::Module(module) if name == "super" => Found::Module(modules[module].parent),
            // What is not found is made by a macro, or a variant of what is.
            Found::Module(module) => named(modules, module, name, depth).unwrap_or(Found::In(module)),
            Found::In(_) => return Some(found),
        };
    }
    Some(found)
}

/// What a name means in a module.
fn named(modules: &[Module], at: usize, name: &str, depth: usize) -> Option<Found> {
    let module = &modules[at];
    if let Some(child) = module.children.get(name) {
        return Some(Found::Module(*child));
    }
    if module.items.contains(name) {
        return Some(Found::In(at));
    }
    let depth = depth.checked_sub(1)?;
    let import = module.imports.iter().find(|import| import.name.as_deref() == Some(name));
    if let Some(import) = import {
        return outer(modules, at, &import.from, name, depth);
    }
    module.imports.iter().filter(|import| import.name.is_none()).find_map(|import| {
        match follow(modules, at, &import.from.path, depth)? {
            Found::Module(from) if from != at => named(modules, from, name, depth),
            // The variants of an enumeration.
            _ => None,
        }
    })
}

/// An import's origin; `use log::log` of another crate must not lead to itself.
fn outer(modules: &[Module], at: usize, from: &Named, name: &str, depth: usize) -> Option<Found> {
    if from.path.first().is_some_and(|first| first == name) && !modules[at].children.contains_key(name) {
        return None;
    }
    follow(modules, at, &from.path, depth)
}

#[cfg(test)]
mod tests {
    use super::super::{modules, tree::Tree};
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let uses = uses(&modules::of(&Tree::of(files), "src/lib.rs"));
        let each = uses.iter().flat_map(|(from, to)| to.iter().map(move |(to, line)| (from, to, line)));
        let short = |file: &String| file.trim_start_matches("src/").to_owned();
        each.map(|(from, to, line)| format!("{}:{line} {}", short(from), short(to))).collect()
    }

    #[test]
    fn imports_and_paths_in_code_are_followed() {
        let files = [
            ("src/lib.rs", "mod a; mod b; mod c;\nfn f() { a::one(); }"),
            ("src/a.rs", "use crate::b::{Two,\n deep::Three as Drei};\npub fn one() {}"),
            ("src/b/mod.rs", "pub mod deep;\npub struct Two;\nfn f() { assert!(g(deep::Three)); }"),
            ("src/b/deep.rs", "pub struct Three;\nfn f() { use super::Two; super::super::c::g(); }"),
            ("src/c.rs", "pub fn g() -> crate::a::X {}"),
        ];
        let expected = [
            "a.rs:2 b/deep.rs",
            "a.rs:1 b/mod.rs",
            // Not to what `deep` is in.
            "b/deep.rs:2 c.rs",
            "b/mod.rs:3 b/deep.rs",
            "c.rs:1 a.rs",
            "lib.rs:2 a.rs",
        ];
        assert_eq!(found(&files), expected);
    }

    #[test]
    fn a_facade_is_no_dependency_and_what_it_uses_itself_is() {
        let files = [
            ("src/lib.rs", "mod a; mod b; pub use a::Two; pub use b::*;"),
            ("src/a.rs", "use crate::{One, Two};\npub struct Two(One);"),
            ("src/b/mod.rs", "mod deep; pub use deep::One; pub use deep::Used;\nfn f(_: Used) {}"),
            ("src/b/deep.rs", "pub struct One; pub struct Used;"),
        ];
        assert_eq!(found(&files), ["a.rs:1 b/deep.rs", "b/mod.rs:1 b/deep.rs"]);
    }

    #[test]
    fn a_module_counts_where_something_in_it_is_used() {
        let files = [
            ("src/lib.rs", "mod a; mod b;"),
            (
                "src/a.rs",
                "use crate::b::{self, deep};\nuse b::deep as tief;\nfn f() { deep::x(); tief::x(); }",
            ),
            ("src/b/mod.rs", "pub mod deep;"),
            ("src/b/deep.rs", "pub fn x() {}"),
        ];
        assert_eq!(found(&files), ["a.rs:3 b/deep.rs"]);
    }

    #[test]
    fn tests_and_other_crates_do_not_count() {
        let files = [
            ("src/lib.rs", "mod a; mod log;"),
            (
                "src/a.rs",
                "use ::log::x; use anyhow::Context;\n#[cfg(test)]\nmod tests { use crate::log::y; }\n#[cfg(all(test, unix))] use crate::log::z;\npub(in crate::log) fn f() {}",
            ),
            ("src/log.rs", "pub fn x() {}"),
        ];
        assert_eq!(found(&files), [""; 0]);
    }
}
