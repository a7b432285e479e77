//! Reads Debian packages (deb(5)) into a [`Tree`]; `dpkg-deb` only decompresses, nothing is unpacked on the host.

use super::error::{ImageError, IoContext};
use super::tools::{self, DPKG_DEB};
use super::tree::{Content, Node, Tree};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

/// Adds the files of a package for whose paths (without leading `./`) `keep` says true.
pub fn read_files(deb: &Path, keep: &dyn Fn(&str) -> bool, tree: &mut Tree) -> Result<(), ImageError> {
    let mut command = DPKG_DEB.command()?;
    command.arg("--fsys-tarfile").arg(deb).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().at("starting", command.get_program())?;
    let mut stdout = child.stdout.take().expect("piped above");
    let mut read = read_tar(&mut stdout, deb, keep, tree);
    if read.is_ok() {
        // dpkg-deb must be able to write what follows the end mark, or it dies of a broken pipe.
        read = std::io::copy(&mut stdout, &mut std::io::sink()).map(drop).at("unpacking", deb);
    }
    drop(stdout);
    let output = child.wait_with_output().at("waiting for", command.get_program())?;
    read?;
    if output.status.success() { Ok(()) } else { Err(tools::failed(&command, output.status, &output.stderr)) }
}

/// The control files of a package (`control`, `conffiles`, maintainer scripts), by name.
pub fn read_control(deb: &Path) -> Result<BTreeMap<String, Arc<[u8]>>, ImageError> {
    let tar = tools::run(DPKG_DEB.command()?.arg("--ctrl-tarfile").arg(deb))?;
    let mut tree = Tree::default();
    read_tar(&mut tar.as_slice(), deb, &|_| true, &mut tree)?;
    Ok(tree.iter().filter_map(|(path, _)| Some((path.to_owned(), tree.read(path)?))).collect())
}

fn read_tar(
    input: &mut dyn Read,
    deb: &Path,
    keep: &dyn Fn(&str) -> bool,
    tree: &mut Tree,
) -> Result<(), ImageError> {
    let mut archive = tar::Archive::new(input);
    for entry in archive.entries().at("unpacking", deb)? {
        let mut entry = entry.at("unpacking", deb)?;
        let path = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| malformed(deb, "a file name isn't UTF-8".into()))?;
        let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
        if path.split('/').any(|part| part == "..") {
            return Err(malformed(deb, format!("the path {path} leads out of the tree")));
        }
        if path.is_empty() || path == "." || !keep(&path) {
            continue;
        }
        let Some(content) = content(&mut entry, deb, tree)? else { continue };
        let header = entry.header();
        let number = |value: std::io::Result<u64>| {
            value
                .ok()
                .and_then(|value| u32::try_from(value).ok())
                .ok_or_else(|| malformed(deb, format!("owner of {path}")))
        };
        let node = Node {
            mode: header.mode().at("unpacking", deb)? & 0o7777,
            uid: number(header.uid())?,
            gid: number(header.gid())?,
            mtime: header.mtime().at("unpacking", deb)?,
            content,
        };
        tree.insert(&path, node);
    }
    Ok(())
}

/// The content of an entry; `None` for kinds that packages don't need (devices, pipes).
fn content(
    entry: &mut tar::Entry<'_, impl Read>,
    deb: &Path,
    tree: &Tree,
) -> Result<Option<Content>, ImageError> {
    use tar::EntryType;
    let link = |entry: &tar::Entry<'_, _>| {
        let target = entry.link_name_bytes().map(|bytes| String::from_utf8(bytes.into_owned()));
        target.and_then(Result::ok).ok_or_else(|| malformed(deb, "a link without a target".into()))
    };
    Ok(Some(match entry.header().entry_type() {
        EntryType::Directory => Content::Directory,
        EntryType::Symlink => Content::Symlink(link(entry)?),
        // A hard link shares the bytes of a file that came before it.
        EntryType::Link => match tree.get(&link(entry)?) {
            Some(Node { content, .. }) => content.clone(),
            None => return Ok(None),
        },
        EntryType::Regular | EntryType::Continuous => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).at("unpacking", deb)?;
            Content::File(bytes.into())
        }
        _ => return Ok(None),
    }))
}

fn malformed(deb: &Path, problem: String) -> ImageError {
    ImageError::Malformed { name: deb.display().to_string(), problem }
}

/// What an image has no use for: documentation and translations.
pub fn is_documentation(path: &str) -> bool {
    const DIRECTORIES: [&str; 6] = [
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
        "usr/share/info",
        "usr/share/lintian",
        "usr/share/bug",
    ];
    // Licences stay with what they license.
    let licence = path.starts_with("usr/share/doc/") && path.ends_with("/copyright");
    let below = |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    !licence && DIRECTORIES.iter().any(|dir| below(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_with(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o104_755);
            header.set_uid(1);
            header.set_gid(42);
            header.set_mtime(7);
            header.as_gnu_mut().expect("a GNU header").name[..path.len()].copy_from_slice(path.as_bytes());
            let body = if kind.is_file() {
                data.as_bytes()
            } else {
                header.set_link_name_literal(data).expect("short");
                &[]
            };
            header.set_size(body.len() as u64);
            header.set_cksum();
            builder.append(&header, body).expect("memory never fails");
        }
        builder.into_inner().expect("memory never fails")
    }

    #[test]
    fn owners_modes_and_links_are_kept() {
        let tar = tar_with(&[
            ("./usr/bin/su", tar::EntryType::Regular, "elf"),
            ("./usr/bin/same", tar::EntryType::Link, "./usr/bin/su"),
            ("./usr/share/doc/x", tar::EntryType::Regular, "text"),
        ]);
        let mut tree = Tree::default();
        let keep = |path: &str| !is_documentation(path);
        read_tar(&mut tar.as_slice(), Path::new("x.deb"), &keep, &mut tree).expect("well formed");
        let node = tree.get("usr/bin/su").expect("it was in the archive");
        assert_eq!((node.mode, node.uid, node.gid, node.mtime), (0o4755, 1, 42, 7));
        assert_eq!(tree.read("usr/bin/same").as_deref(), Some(&b"elf"[..]));
        assert!(tree.get("usr/share/doc/x").is_none());
    }

    #[test]
    fn paths_out_of_the_tree_are_refused() {
        let tar = tar_with(&[("./usr/../../etc/passwd", tar::EntryType::Regular, "x")]);
        let mut tree = Tree::default();
        let result = read_tar(&mut tar.as_slice(), Path::new("x.deb"), &|_| true, &mut tree);
        assert!(matches!(result, Err(ImageError::Malformed { .. })));
    }

    #[test]
    fn licences_are_no_documentation() {
        assert!(is_documentation("usr/share/doc/bash/README"));
        assert!(!is_documentation("usr/share/doc/bash/copyright"));
        assert!(!is_documentation("usr/share/docx/y"));
    }
}
