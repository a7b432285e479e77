//! Prose in the repository, and what it names: the comments of sources, documents but for their blocks of commands.

use proc_macro2::{TokenStream, TokenTree};
use std::ops::Range;
use std::str::FromStr;

/// Something that was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// In which line, from 1.
    pub line: usize,
    /// The words.
    pub text: String,
    /// How.
    pub kind: Kind,
}

/// How something is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Between backticks.
    Code,
    /// As a word of a sentence.
    Word,
    /// As where a document's link leads.
    Link,
}

/// Pieces of prose, each with its first line.
type Prose = Vec<(usize, String)>;

/// What a Rust source's comments name.
pub fn rust(source: &str) -> Vec<Mention> {
    let lines: Vec<usize> = source.match_indices('\n').map(|(at, _)| at).collect();
    let line = |at: usize| lines.partition_point(|end| *end < at) + 1;
    let mut prose: Prose = vec![];
    for range in comments(source) {
        let first = line(range.start);
        for (index, text) in source[range].lines().enumerate() {
            let text = text.trim_start().trim_start_matches(['/', '*', '!']);
            match prose.last_mut() {
                // Lines of one comment: a name between backticks does not end with the line.
                Some((start, block)) if *start + block.matches('\n').count() + 1 == first + index => {
                    *block = format!("{block}\n{text}");
                }
                _ => prose.push((first + index, text.to_owned())),
            }
        }
    }
    prose.iter().flat_map(|(line, text)| of(*line, text, false)).collect()
}

/// Where the comments are: what is between tokens, and those that document, which are tokens.
fn comments(source: &str) -> Vec<Range<usize>> {
    let mut tokens = vec![];
    spans(TokenStream::from_str(source).unwrap_or_default(), &mut tokens);
    let documents = |range: &Range<usize>| ["//", "/*"].iter().any(|c| source[range.clone()].starts_with(c));
    let mut found: Vec<Range<usize>> = vec![];
    let mut end = 0;
    for token in tokens {
        if documents(&token) {
            if found.last() != Some(&token) {
                found.push(token.clone());
            }
        } else if token.start > end {
            found.push(end..token.start);
        }
        end = end.max(token.end);
    }
    found.push(end..source.len());
    let holds = |range: &Range<usize>| source.get(range.clone()).is_some_and(|text| text.contains('/'));
    found.into_iter().filter(holds).collect()
}

fn spans(tokens: TokenStream, found: &mut Vec<Range<usize>>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                found.push(group.span_open().byte_range());
                spans(group.stream(), found);
                found.push(group.span_close().byte_range());
            }
            other => found.push(other.span().byte_range()),
        }
    }
}

/// What a document names.
pub fn document(text: &str) -> Vec<Mention> {
    of(1, text, true)
}

/// What any other text names.
pub fn plain(text: &str) -> Vec<Mention> {
    let lines = text.lines().enumerate();
    lines.flat_map(|(index, line)| of(index + 1, line, false)).collect()
}

/// What prose names that begins in this line. Blocks between fences are passed by; backticks that have no partner in
/// their paragraph are none.
fn of(first: usize, text: &str, links: bool) -> Vec<Mention> {
    let mut found = vec![];
    let (mut fenced, mut paragraph, mut start) = (false, String::new(), first);
    for (index, line) in text.lines().enumerate() {
        let fence = line.trim_start().starts_with("```");
        if fence || fenced || line.trim().is_empty() {
            self::paragraph(start, &paragraph, links, &mut found);
            paragraph.clear();
            start = first + index + 1;
            fenced ^= fence;
        } else {
            paragraph.push_str(line);
            paragraph.push('\n');
        }
    }
    self::paragraph(start, &paragraph, links, &mut found);
    found
}

fn paragraph(first: usize, text: &str, links: bool, found: &mut Vec<Mention>) {
    let parts: Vec<&str> = text.split('`').collect();
    let mut line = first;
    for (index, part) in parts.iter().enumerate() {
        // The last part is outside, or has no second backtick.
        let inside = index % 2 == 1 && index + 1 < parts.len();
        if inside {
            found.push(Mention { line, text: part.trim().to_owned(), kind: Kind::Code });
        } else {
            for (below, words) in part.split('\n').enumerate() {
                let line = line + below;
                let word = |text: &str| Mention { line, text: text.to_owned(), kind: Kind::Word };
                found.extend(
                    words.split([' ', '(', ')', '[', ']', '"', '\'']).filter(|w| w.contains('/')).map(word),
                );
                if links {
                    let ends = words.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
                    found.extend(ends.map(|(to, _)| Mention { line, text: to.to_owned(), kind: Kind::Link }));
                }
            }
        }
        line += part.matches('\n').count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(mentions: &[Mention]) -> Vec<(usize, &str)> {
        let codes = mentions.iter().filter(|m| m.kind == Kind::Code);
        codes.map(|m| (m.line, m.text.as_str())).collect()
    }

    #[test]
    fn comments_of_every_form_are_read_and_code_is_not() {
        let source = "\
//! Of `a/b.rs`
// and of `c.rs`,
/* `d.rs`
 * `e.rs` */
fn f() { // `f.rs`
    let _ = \"// `no.rs`\"; let _ = 'a'; let _: &'static str = r#\" `no.rs` // \"#;
    /// `g.rs`
    let x = 1; /* `h.rs` */ y();
}
#[doc = \"`no.rs`\"]
struct S;
// `last.rs`";
        let found = rust(source);
        let expected = [
            (1, "a/b.rs"),
            (2, "c.rs"),
            (3, "d.rs"),
            (4, "e.rs"),
            (5, "f.rs"),
            (7, "g.rs"),
            (8, "h.rs"),
            (12, "last.rs"),
        ];
        assert_eq!(codes(&found), expected);
    }

    #[test]
    fn a_name_may_begin_in_one_line_and_an_example_is_none() {
        let source =
            "/// With `cargo\n/// run` of `a.rs`:\n/// ```\n/// `b.rs`\n/// ```\n/// and `c.rs`\nfn f() {}";
        assert_eq!(codes(&rust(source)), [(1, "cargo\n run"), (2, "a.rs"), (6, "c.rs")]);
    }

    #[test]
    fn documents_have_links_and_blocks_of_commands() {
        let text = "# T\nSee [x](docs/a.md#b) and\n`a.rs`, (tests/b.rs).\n\n```console\n$ cat `c.rs`\n```\na ` alone\n\n`d.rs`\n";
        let found = document(text);
        assert_eq!(codes(&found), [(3, "a.rs"), (10, "d.rs")]);
        let others = |kind| found.iter().filter(move |m| m.kind == kind).map(|m| (m.line, m.text.as_str()));
        assert_eq!(others(Kind::Link).collect::<Vec<_>>(), [(2, "docs/a.md#b")]);
        assert!(others(Kind::Word).any(|word| word == (3, "tests/b.rs")), "{found:?}");
    }
}
