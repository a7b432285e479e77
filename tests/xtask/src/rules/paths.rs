//! Every path of the repository that a document or a comment names is there.
//!
//! A path of the repository is what ends with the name of a source or document (`mod.rs`), or lies in one of the
//! repository's folders or in somebody's `src`. It may leave out its beginning: some file or folder must end with it; a
//! bare name in a comment must be in the crate. `{a,b}` stands for each, `*` for anything in one name. What begins at a
//! file system's root, at a home or at a variable is not ours; nor are the blocks of commands in documents. The history
//! speaks of what was, and is not looked at.

use super::Finding;
use super::crates::Crate;
use super::manifest::FILE as MANIFEST;
use super::mentions::{self, Kind, Mention};
use super::tree::Tree;

/// Where names of earlier times stand.
const HISTORY: &str = "CHANGELOG.md";

/// What sources and documents end with.
const OURS: &[&str] = &["rs", "md", "S", "c", "h", "ld", "toml"];

/// Looks at all documents and comments.
pub fn check(crates: &[Crate], tree: &Tree) -> Vec<Finding> {
    let mut findings = vec![];
    for (file, text) in tree.files("") {
        let named = match file.rsplit_once('.').map(|(_, kind)| kind) {
            Some("rs") => mentions::rust(text),
            Some("md") => mentions::document(text),
            _ => mentions::plain(text),
        };
        // The manifest's own are looked at by its rules.
        if file == HISTORY || file == MANIFEST {
            continue;
        }
        let home = crates.iter().map(|c| c.directory.as_str());
        let home = home.filter(|directory| file.strip_prefix(directory).is_some_and(|f| f.starts_with('/')));
        let home = home.max_by_key(|directory| directory.len());
        findings.extend(named.iter().flat_map(|mention| lost(tree, file, home, mention)));
    }
    findings
}

/// The paths of a mention that are not there.
fn lost(tree: &Tree, file: &str, home: Option<&str>, mention: &Mention) -> Vec<Finding> {
    let missing = |path: &str| {
        let what = format!("names {path}, which is not in the repository");
        Finding::new(file, mention.line, what, "name what there is now")
    };
    match mention.kind {
        Kind::Link => {
            let to = mention.text.split('#').next().unwrap_or_default();
            let elsewhere = to.is_empty() || to.contains(':') || to.starts_with('/');
            let found = elsewhere || tree.has(&joined(file, to));
            if found { vec![] } else { vec![missing(to)] }
        }
        Kind::Code => {
            let paths = expand(mention.text.trim_start_matches("./"));
            let ours = paths.into_iter().filter(|path| is_ours(tree, path));
            ours.filter(|path| !is_there(tree, home, path)).map(|path| missing(&path)).collect()
        }
        Kind::Word => {
            // In a sentence "a/b" is mostly something else: only a whole path to a file is believed to be one.
            let word = mention.text.trim_end_matches(['.', ',', ';', ':', '?', '!']);
            let whole = is_path(word) && named_as_source(word) && in_folder(tree, word);
            if whole && !is_there(tree, None, word) { vec![missing(word)] } else { vec![] }
        }
    }
}

/// What a path in a file leads to, from the repository's root.
pub fn joined(file: &str, link: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// Each of the names that one with braces stands for.
fn expand(text: &str) -> Vec<String> {
    let Some((before, rest)) = text.split_once('{') else { return vec![text.to_owned()] };
    let Some((among, after)) = rest.split_once('}') else { return vec![text.to_owned()] };
    among.split(',').flat_map(|one| expand(&format!("{before}{}{after}", one.trim()))).collect()
}

fn is_path(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./*".contains(c);
    !text.is_empty() && text.chars().all(plain) && !text.starts_with('/') && !text.contains("..")
}

fn named_as_source(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    // `FCVT.W.S` is none.
    !stem.is_empty() && !stem.contains('.') && OURS.contains(&kind)
}

fn in_folder(tree: &Tree, path: &str) -> bool {
    path.split_once('/').is_some_and(|(first, _)| tree.has(first))
}

/// Whether that is said to be in the repository.
fn is_ours(tree: &Tree, path: &str) -> bool {
    // Cargo's directory, a placeholder.
    let elsewhere = path.starts_with("target/") || path.split('/').next().is_some_and(is_placeholder);
    let somewhere_inside = path.split('/').skip(1).any(|part| part == "src");
    is_path(path) && !elsewhere && (named_as_source(path) || in_folder(tree, path) || somewhere_inside)
}

fn is_placeholder(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

fn is_there(tree: &Tree, home: Option<&str>, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let bare = !path.contains('/');
    let fits = |entry: &str| {
        let own = home.is_none_or(|home| entry.strip_prefix(home).is_some_and(|rest| rest.starts_with('/')));
        (own || !bare || !entry.contains('/')) && ends_with(entry, path)
    };
    tree.entries().any(fits)
}

/// Whether the last parts of an entry are these.
fn ends_with(entry: &str, path: &str) -> bool {
    let (mut entry, mut path) = (entry.rsplit('/'), path.rsplit('/'));
    path.all(|pattern| entry.next().is_some_and(|name| glob(pattern, name)))
}

fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| glob(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Vec<String> {
        let mut files = vec![
            ("Cargo.toml", ""),
            ("CHANGELOG.md", "`cpu/src/gone.rs`"),
            ("docs/api.md", ""),
            ("cpu/src/lib.rs", ""),
            ("cpu/src/isa/list.rs", ""),
            ("cpu/src/fp.rs", ""),
            ("abi/src/ram.rs", ""),
            ("tests/guest/bare/htif.S", ""),
        ];
        files.push((name, text));
        let of = |name: &str| Crate { name: name.into(), directory: name.into(), ..Crate::default() };
        let findings = check(&[of("cpu"), of("abi"), of("tests")], &Tree::of(&files));
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_there_may_be_named_whole_or_by_its_end() {
        for there in [
            "cpu/src/isa/list.rs",
            "cpu/src/isa",
            "cpu/src/isa/",
            "isa/list.rs",
            "cpu/src/{isa,fp.rs}",
            "cpu/src/{isa/list,fp}.rs",
            "tests/guest/bare/*.S",
            "bare/*.S",
            "Cargo.toml",
            "./docs/api.md",
        ] {
            assert_eq!(found("docs/x.md", &format!("It is in `{there}`.")), [""; 0], "{there}");
            assert_eq!(found("cpu/src/x.rs", &format!("// It is in `{there}`.")), [""; 0], "{there}");
        }
        assert_eq!(
            found("docs/x.md", "[API](api.md#a), [home](../Cargo.toml), [far](https://x.y/z.md)"),
            [""; 0]
        );
    }

    #[test]
    fn what_is_not_there_is_named_with_its_line() {
        for (named, gone) in [
            ("`cpu/src/gone.rs`", "cpu/src/gone.rs"),
            ("`cpu/src/gone`", "cpu/src/gone"),
            ("`door/src/lib.rs`", "door/src/lib.rs"),
            ("`door/src`", "door/src"),
            ("`cpu/src/{isa,gone}`", "cpu/src/gone"),
            ("`gone.rs`", "gone.rs"),
            ("`tests/guest/*.ld`", "tests/guest/*.ld"),
            ("it (docs/gone.md).", "docs/gone.md"),
        ] {
            let expected = |file: &str| {
                format!("{file}:2: names {gone}, which is not in the repository; name what there is now")
            };
            assert_eq!(found("docs/x.md", &format!("\n{named}")), [expected("docs/x.md")], "{named}");
            let comment = found("cpu/src/x.rs", &format!("\n/// {named}\nfn f() {{}}"));
            assert_eq!(comment, [expected("cpu/src/x.rs")], "{named}");
            assert_eq!(found("x.toml", &format!("\n# {named}")), [expected("x.toml")], "{named}");
        }
        let link = found("docs/x.md", "[gone](../cpu/src/gone.rs)");
        assert_eq!(link.len(), 1, "{link:?}");
        // Another crate's file by its bare name.
        assert_eq!(found("cpu/src/x.rs", "// `ram.rs`").len(), 1);
    }

    #[test]
    fn what_is_no_path_of_ours_is_let_be() {
        for other in [
            "/usr/lib/x.h",
            "~/a.rs",
            "$HOME/a.rs",
            "target/release/x.rs",
            "TARGET/release/",
            "a/b",
            "application/json",
            "c.mv",
            "fence.i",
            "x86_64",
            "`cat gone.rs`",
            "https://x.y/z.rs",
            "crate::a",
            "apt-<suite>/x.rs",
        ] {
            assert_eq!(found("docs/x.md", &format!("So `{other}` it is")), [""; 0], "{other}");
        }
        assert_eq!(found("docs/x.md", "and/or cpu/mmu, jefe/src/main.rs"), [""; 0]);
        assert_eq!(found("docs/x.md", "```\n`cpu/src/gone.rs`\n```"), [""; 0]);
        assert_eq!(found("cpu/src/x.rs", "const A: &str = \"`cpu/src/gone.rs`\";"), [""; 0]);
    }
}
