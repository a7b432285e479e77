//! The machine's own apt sources: one-line `.list` files and deb822 `.sources` files (sources.list(5)).

use super::error::{ImageError, IoContext};
use std::path::{Path, PathBuf};

/// Where Debian's own keyring package puts its keys.
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What a source says about the keys it is signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedBy {
    /// A keyring file.
    File(PathBuf),
    /// An armoured key within the source itself.
    Inline(String),
}

/// One enabled source of binary packages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// Archive roots.
    pub uris: Vec<String>,
    /// Suites.
    pub suites: Vec<String>,
    /// Components.
    pub components: Vec<String>,
    /// Keys, if the source names them.
    pub signed_by: Option<SignedBy>,
}

/// A Debian archive to download from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Root of the archive.
    pub uri: String,
    /// The suite that the machine itself uses (the keyring certainly knows its keys).
    pub machine_suite: Option<String>,
    /// Keys to verify it with.
    pub signed_by: SignedBy,
}

/// Reads `sources.list` and `sources.list.d/` under `root` (normally `/etc/apt`).
pub fn read(root: &Path) -> Result<Vec<Source>, ImageError> {
    let mut files = vec![root.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(root.join("sources.list.d")) {
        let mut parts: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        parts.sort();
        files.extend(parts);
    }
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let text = std::fs::read_to_string(file).at("reading", file)?;
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(parse_one_line(&text)),
            Some("sources") => sources.extend(parse_deb822(&text)),
            _ => {}
        }
    }
    Ok(sources)
}

/// Parses the one-line form: `deb [options] uri suite components...`.
pub fn parse_one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let mut source = Source::default();
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (options, after) = bracketed.split_once(']')?;
        rest = after;
        for (name, value) in options.split_whitespace().filter_map(|option| option.split_once('=')) {
            if name.eq_ignore_ascii_case("signed-by") {
                source.signed_by = value.split(',').next().map(|file| SignedBy::File(file.into()));
            }
        }
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    source.uris.push(words.next()?);
    source.suites.push(words.next()?);
    source.components.extend(words);
    Some(source)
}

/// Parses the deb822 form: paragraphs of `Field: value` with continuation lines.
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(from_paragraph(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                // A lone dot stands for an empty line, which armoured keys contain.
                value.push_str(match line.trim() {
                    "." => "",
                    other => other,
                });
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn from_paragraph(fields: &[(String, String)]) -> Option<Source> {
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let words = |name| field(name).unwrap_or("").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let disabled = field("enabled").is_some_and(|value| matches!(value, "no" | "false" | "0" | "off"));
    if disabled || !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    let signed_by = field("signed-by").filter(|value| !value.is_empty()).map(|value| {
        if value.contains("BEGIN PGP") {
            SignedBy::Inline(value.trim_start().to_owned())
        } else {
            SignedBy::File(value.split([' ', '\n', ',']).next().unwrap_or(value).into())
        }
    });
    Some(Source { uris: words("uris"), suites: words("suites"), components: words("components"), signed_by })
}

/// The Debian archive among `sources`: its main archive, not the one for security updates.
pub fn debian_archive(sources: &[Source]) -> Option<Archive> {
    let source = sources.iter().filter(|source| is_debian(source)).min_by_key(|source| {
        // An archive named by Debian's keyring is surer than one recognised by its path.
        usize::from(!names_debian_keyring(source))
    })?;
    let suite = source.suites.iter().find(|suite| !suite.contains('-')).or(source.suites.first());
    let signed_by = match &source.signed_by {
        Some(signed_by) => signed_by.clone(),
        None => SignedBy::File(DEBIAN_KEYRING.into()),
    };
    Some(Archive { uri: source.uris.first()?.clone(), machine_suite: suite.cloned(), signed_by })
}

fn names_debian_keyring(source: &Source) -> bool {
    matches!(&source.signed_by, Some(SignedBy::File(file)) if file.to_string_lossy().contains("debian-archive"))
}

fn is_debian(source: &Source) -> bool {
    let by_path = source.uris.first().is_some_and(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    let security = source.suites.iter().all(|suite| suite.ends_with("-security"));
    source.components.iter().any(|component| component == "main")
        && !security
        && (by_path || names_debian_keyring(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_with_options_and_comments() {
        let text = "# a comment\n\
                    deb-src http://mirror.example/debian trixie main\n\
                    deb [arch=amd64 signed-by=/k/debian-archive-keyring.gpg] http://mirror.example/debian trixie main contrib # why\n";
        let sources = parse_one_line(text);
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].uris, ["http://mirror.example/debian"]);
        assert_eq!(sources[0].suites, ["trixie"]);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(sources[0].signed_by, Some(SignedBy::File("/k/debian-archive-keyring.gpg".into())));
    }

    #[test]
    fn deb822_paragraphs_disabled_and_inline_keys() {
        let text = "Types: deb deb-src\nURIs: http://a.example/debian\n# in between\nSuites: trixie\n trixie-updates\n\
                    Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n -----END PGP PUBLIC KEY BLOCK-----\n\
                    \nTypes: deb\nURIs: http://b.example/x\nSuites: y\nComponents: main\nEnabled: no\n\
                    \nTypes: deb-src\nURIs: http://c.example/x\nSuites: y\nComponents: main\n";
        let sources = parse_deb822(text);
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].suites, ["trixie", "trixie-updates"]);
        let Some(SignedBy::Inline(key)) = &sources[0].signed_by else { panic!("the key is inline") };
        assert_eq!(key, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabcd\n-----END PGP PUBLIC KEY BLOCK-----");
    }

    #[test]
    fn the_main_archive_is_preferred_to_security_and_others() {
        let keyring = Some(SignedBy::File("/usr/share/keyrings/debian-archive-keyring.gpg".into()));
        let source = |uri: &str, suite: &str, signed_by: &Option<SignedBy>| Source {
            uris: vec![uri.into()],
            suites: vec![suite.into()],
            components: vec!["main".into()],
            signed_by: signed_by.clone(),
        };
        let sources = [
            source("https://other.example/apt", "stable", &None),
            source("http://a.example/debian-security", "bookworm-security", &keyring),
            source("http://b.example/debian", "bookworm", &None),
            source("http://c.example/pool-of-debian", "bookworm", &keyring),
        ];
        let archive = debian_archive(&sources).expect("there is one");
        assert_eq!(archive.uri, "http://c.example/pool-of-debian");
        assert_eq!(archive.machine_suite.as_deref(), Some("bookworm"));
        assert_eq!(debian_archive(&sources[..2]), None);
        let by_path = debian_archive(&sources[..3]).expect("recognised by its path");
        assert_eq!(by_path.signed_by, SignedBy::File(DEBIAN_KEYRING.into()));
    }
}
