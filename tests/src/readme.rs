//! The README's tour, as steps that can be taken: its `console` blocks, with what each command shows.
//!
//! ```text
//! $ quasar ps                   a command; `a$` and `b$` are typed at two machines
//! web … running                 a line that it shows, in this order; `…` is anything
//! $ quasar console web          # Ctrl-] leaves
//! GUEST READY …                 the key is pressed when the lines have been shown
//! ```

use anyhow::{Context, bail, ensure};

/// A key that ends a command, as the comment behind the command says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Leaves a console.
    Detach,
    /// Interrupts.
    Interrupt,
}

impl Key {
    const ALL: [(&'static str, Self); 2] = [("Ctrl-]", Self::Detach), ("Ctrl-C", Self::Interrupt)];

    /// What a terminal sends.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Detach => "\x1d",
            Self::Interrupt => "\x03",
        }
    }
}

/// A machine at which something is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// The user's own, and the first of two.
    A,
    /// The second of two.
    B,
}

/// A command and what comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where.
    pub machine: Machine,
    /// As typed, its comment included.
    pub command: String,
    /// What ends it.
    pub key: Option<Key>,
    /// Lines that it shows.
    pub shown: Vec<String>,
}

const PROMPTS: [(&str, Machine); 3] = [("$ ", Machine::A), ("a$ ", Machine::A), ("b$ ", Machine::B)];

fn step(line: &str) -> Option<Step> {
    let (prompt, machine) = PROMPTS.into_iter().find(|(prompt, _)| line.starts_with(prompt))?;
    let command = line[prompt.len()..].to_owned();
    let comment = command.split_once(" # ").map_or("", |(_, comment)| comment);
    let key = Key::ALL.into_iter().find(|(name, _)| comment.starts_with(name)).map(|(_, key)| key);
    Some(Step { machine, command, key, shown: vec![] })
}

/// The steps in all `console` blocks of a section.
///
/// # Errors
/// When there is no such section, or something is shown before the first command.
pub fn steps(text: &str, section: &str) -> anyhow::Result<Vec<Step>> {
    let heading = format!("\n## {section}\n");
    let (_, rest) = text.split_once(&heading).with_context(|| format!("there is no section {section}"))?;
    let body = rest.split("\n## ").next().unwrap_or(rest);
    let mut found: Vec<Step> = vec![];
    for block in body.split("\n```console\n").skip(1) {
        let (block, _) = block.split_once("\n```").context("a console block does not end")?;
        let mut first = true;
        for line in block.lines().filter(|line| !line.trim().is_empty()) {
            match (step(line), found.last_mut()) {
                (Some(step), _) => found.push(step),
                (None, Some(last)) if !first => last.shown.push(line.to_owned()),
                (None, _) => bail!("{line:?} is shown before any command"),
            }
            first = false;
        }
    }
    ensure!(!found.is_empty(), "the section {section} has no console block");
    Ok(found)
}

/// Whether a line of the README says what a line that came says.
#[must_use]
pub fn says(pattern: &str, line: &str) -> bool {
    let mut rest = line;
    let parts: Vec<Vec<&str>> = pattern.split('…').map(|part| part.split_whitespace().collect()).collect();
    // Columns are as wide as what stands in them: blanks count as one.
    let folded = rest.split_whitespace().collect::<Vec<_>>().join(" ");
    rest = &folded;
    for part in parts {
        let part = part.join(" ");
        let Some(at) = rest.find(&part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// The first of the README's lines that did not come in its turn.
#[must_use]
pub fn missing<'s>(shown: &'s [String], came: &str) -> Option<&'s str> {
    let plain = plain(came);
    let mut lines = plain.split(['\n', '\r']);
    shown.iter().find(|pattern| !lines.any(|line| says(pattern, line))).map(String::as_str)
}

/// Text without a terminal's control sequences (ECMA-48, 5.4).
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\x1b' {
            out.push(c);
        } else if chars.next() == Some('[') {
            let _final = chars.find(|c| ('@'..='~').contains(c));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# T\n\n## Tour\nWords.\n```console\n$ one\nfirst … 5\n\n$ two # Ctrl-] leaves\n```\nand\n\
                        ```console\nb$ three # not Ctrl-C\n```\n\n## Next\n```console\n$ four\n```\n";

    #[test]
    fn steps_are_those_of_the_section() {
        let steps = steps(TEXT, "Tour").expect("steps");
        let commands: Vec<&str> = steps.iter().map(|step| step.command.as_str()).collect();
        assert_eq!(commands, ["one", "two # Ctrl-] leaves", "three # not Ctrl-C"]);
        assert_eq!(steps[0].shown, ["first … 5"]);
        assert_eq!((steps[1].key, steps[2].key), (Some(Key::Detach), None));
        assert_eq!((steps[1].machine, steps[2].machine), (Machine::A, Machine::B));
    }

    #[test]
    fn what_is_wrong_with_the_text_is_said() {
        assert!(super::steps(TEXT, "Nothing").is_err());
        assert!(super::steps("\n## S\n\n```console\nshown\n```\n", "S").is_err());
        assert!(super::steps("\n## S\nwords\n", "S").is_err());
    }

    #[test]
    fn lines_come_in_their_order() {
        let shown = ["NAME STATE".to_owned(), "web … running … 5".to_owned()];
        assert_eq!(missing(&shown, "NAME    STATE\r\n\x1b[1mweb\x1b[0m   pid 7  running 3 5 6\r\n"), None);
        assert_eq!(missing(&shown, "web is running 5\nNAME STATE\n"), Some("web … running … 5"));
        assert_eq!(missing(&shown, "NAME STATE\nweb stopped\n"), Some("web … running … 5"));
        assert_eq!(missing(&shown, ""), Some("NAME STATE"));
    }
}
