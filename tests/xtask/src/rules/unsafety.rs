//! `unsafe` stands in the listed files alone, and each listed file needs its place in the list.

use super::Finding;
use super::manifest::{FILE, Manifest};
use super::tree::Tree;
use proc_macro2::{TokenStream, TokenTree};
use std::str::FromStr;

/// Compares the files that have `unsafe` with the list, both ways.
pub fn check(manifest: &Manifest, tree: &Tree) -> Vec<Finding> {
    let mut findings = vec![];
    for (file, text) in tree.files(".rs") {
        let line = match TokenStream::from_str(text) {
            Ok(tokens) => first(tokens),
            Err(error) => {
                let what = format!("this is no Rust: {error}");
                findings.push(Finding::new(file, error.span().start().line, what, "mend it"));
                continue;
            }
        };
        let listed = manifest.unsafety.iter().find(|(name, _)| name.as_ref() == file);
        match (line, listed) {
            (Some(line), None) => findings.push(Finding::new(
                file,
                line,
                "unsafe code in a file that is not listed",
                format!("do without it, or list the file with its reason under [unsafe] in {FILE}"),
            )),
            (None, Some((name, _))) => findings.push(Finding::new(
                FILE,
                manifest.line(name),
                format!("{file} has no unsafe code any more"),
                "remove it from the list",
            )),
            _ => {}
        }
    }
    for (name, reason) in &manifest.unsafety {
        if tree.get(name.as_ref()).is_none() {
            let what = format!("{} is not there", name.as_ref());
            findings.push(Finding::new(FILE, manifest.line(name), what, "remove it from the list"));
        } else if reason.trim().is_empty() {
            let what = format!("{} has no reason", name.as_ref());
            findings.push(Finding::new(FILE, manifest.line(name), what, "say what needs unsafe code there"));
        }
    }
    findings
}

/// The first line with the keyword, or with an attribute that lets it in. Tokens are looked at, not what they mean: so
/// it is found in macros as well, and comments and texts that speak of it are not.
fn first(tokens: TokenStream) -> Option<usize> {
    let mut allows = false;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "unsafe" => return Some(ident.span().start().line),
            TokenTree::Ident(ident) => allows = ["allow", "expect", "warn"].iter().any(|word| ident == word),
            TokenTree::Group(group) => {
                let named = |token: &TokenTree| matches!(token, TokenTree::Ident(i) if i == "unsafe_code");
                if allows && group.stream().into_iter().any(|token| named(&token)) {
                    return Some(group.span_open().start().line);
                }
                if let Some(line) = first(group.stream()) {
                    return Some(line);
                }
                allows = false;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => allows = false,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(manifest: &str, source: &str) -> Vec<String> {
        let manifest = Manifest::parse(manifest).expect("a manifest");
        let tree = Tree::of(&[("abi/src/ram.rs", source)]);
        check(&manifest, &tree).iter().map(ToString::to_string).collect()
    }

    const LISTED: &str = "[unsafe]\n\"abi/src/ram.rs\" = \"raw memory\"\n";

    #[test]
    fn every_form_of_it_is_found_and_its_line_told() {
        for source in [
            "fn f() {\n unsafe { g() } }",
            "\nunsafe fn f() {}",
            "\nunsafe impl Send for X {}",
            "\nunsafe trait T {}",
            "\nunsafe extern \"C\" { fn f(); }",
            "macro_rules! m { () => {\n unsafe { g() } } }",
            "fn f() { assert!(\nunsafe { g() }) }",
            "\n#![allow(unsafe_code)]",
            "\n#[expect(unsafe_code, reason = \"x\")] mod l1;",
            "\n#[cfg_attr(x, allow(missing_docs, unsafe_code))] mod l1;",
            "\n#[unsafe(no_mangle)] fn f() {}",
        ] {
            let found = found("", source);
            assert!(
                found.len() == 1 && found[0].starts_with("abi/src/ram.rs:2: unsafe code in a file"),
                "{source}: {found:?}"
            );
            assert_eq!(super::tests::found(LISTED, source), [""; 0], "{source}");
        }
    }

    #[test]
    fn talk_of_it_is_none() {
        for source in [
            "#![forbid(unsafe_code)] // unsafe {}",
            "#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]",
            "/// It is unsafe { } to\nfn f() { let _ = \"unsafe { }\"; }",
            "fn f() { let r#unsafe = 1; not_unsafe(); }",
        ] {
            assert_eq!(found("", source), [""; 0], "{source}");
        }
    }

    #[test]
    fn a_list_that_is_longer_than_needed_is_named() {
        let found_one = found(LISTED, "fn f() {}");
        assert_eq!(
            found_one,
            ["architecture.toml:2: abi/src/ram.rs has no unsafe code any more; remove it from the list"]
        );
        let gone = format!("{LISTED}\"abi/src/gone.rs\" = \"x\"\n");
        assert_eq!(
            found(&gone, "unsafe fn f() {}"),
            ["architecture.toml:3: abi/src/gone.rs is not there; remove it from the list"]
        );
        let silent = found("[unsafe]\n\"abi/src/ram.rs\" = \"\"\n", "unsafe fn f() {}");
        assert!(silent.len() == 1 && silent[0].contains("has no reason"), "{silent:?}");
    }
}
