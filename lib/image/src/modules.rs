//! Kernel modules: which others they need (their `.modinfo`), and the index files for `modprobe`.

use super::elf;
use super::error::ImageError;
use super::tools::{self, XZ};
use super::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What a module's `.modinfo` section says that matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// Modules that must be loaded before.
    pub depends: Vec<String>,
    /// Modules (or aliases) that had better be loaded before.
    pub soft_pre: Vec<String>,
    /// Aliases by which a device asks for it.
    pub aliases: Vec<String>,
}

/// A module as it goes into an image.
#[derive(Debug, Clone)]
pub struct Module {
    /// Path relative to the directory of the release, without compression suffix (`kernel/fs/ext4/ext4.ko`).
    pub path: String,
    /// Its uncompressed bytes.
    pub bytes: Vec<u8>,
    /// What it says about itself.
    pub info: Info,
}

/// The modules of one kernel release within a tree.
pub struct Modules<'a> {
    tree: &'a Tree,
    release: String,
    paths: BTreeMap<String, String>,
    builtin: BTreeSet<String>,
}

impl<'a> Modules<'a> {
    /// Finds the modules below `usr/lib/modules/<release>`.
    pub fn new(tree: &'a Tree, release: &str) -> Result<Modules<'a>, ImageError> {
        let dir = directory(release);
        let paths =
            tree.below(&dir).filter_map(|(path, _)| Some((module_name(path)?, path.to_owned()))).collect();
        let builtin = tree.need_text(&format!("{dir}/modules.builtin"))?;
        let builtin = builtin.lines().filter_map(module_name).collect();
        Ok(Modules { tree, release: release.into(), paths, builtin })
    }

    /// The modules of `wanted` with all that they need, in an order in which they can be loaded.
    pub fn closure(&self, wanted: &[&str]) -> Result<Vec<Module>, ImageError> {
        let mut loaded = BTreeMap::new();
        let order = order(wanted, &self.builtin, &mut |name| {
            let Some(path) = self.paths.get(name) else { return Ok(None) };
            let module = self.load(path)?;
            let info = module.info.clone();
            loaded.insert(name.to_owned(), module);
            Ok(Some(info))
        })?;
        Ok(order.iter().filter_map(|name| loaded.remove(name)).collect())
    }

    /// One of the index files that come with the kernel (`modules.order`).
    pub fn index(&self, name: &str) -> Result<std::sync::Arc<[u8]>, ImageError> {
        self.tree.need(&format!("{}/{name}", directory(&self.release)))
    }

    fn load(&self, path: &str) -> Result<Module, ImageError> {
        let packed = self.tree.need(path)?;
        let bytes = match path.strip_suffix(".xz") {
            Some(_) => tools::run_with_input(XZ.command()?.arg("-dc"), &packed)?,
            None => packed.to_vec(),
        };
        let info = elf::section(&bytes, ".modinfo").map(parse_modinfo).ok_or_else(|| {
            ImageError::Malformed { name: path.into(), problem: "no .modinfo section".into() }
        })?;
        let prefix = format!("{}/", directory(&self.release));
        let path = path.trim_start_matches(&prefix).trim_end_matches(".xz").to_owned();
        Ok(Module { path, bytes, info })
    }
}

/// Where the modules of a release lie.
pub fn directory(release: &str) -> String {
    format!("usr/lib/modules/{release}")
}

/// Puts modules into an image, with the text indices that busybox' `modprobe` reads (kmod's wants depmod's binary ones).
pub fn install(modules: &[Module], release: &str, into: &mut Tree) {
    let dir = directory(release);
    let by_name: BTreeMap<String, &Module> =
        modules.iter().filter_map(|module| Some((module_name(&module.path)?, module))).collect();
    let (mut dependencies, mut aliases) = (String::new(), String::new());
    for module in modules {
        into.file(&format!("{dir}/{}", module.path), &module.bytes, 0o644);
        let needed = all_dependencies(module, &by_name);
        write!(dependencies, "{}:", module.path).expect("writing to a string never fails");
        for path in needed {
            write!(dependencies, " {path}").expect("writing to a string never fails");
        }
        dependencies.push('\n');
        let name = module_name(&module.path).unwrap_or_default();
        for alias in &module.info.aliases {
            writeln!(aliases, "alias {alias} {name}").expect("writing to a string never fails");
        }
    }
    into.file(&format!("{dir}/modules.dep"), dependencies, 0o644);
    into.file(&format!("{dir}/modules.alias"), aliases, 0o644);
}

/// Paths of everything a module needs, nearest first, as `modules.dep` lists them.
fn all_dependencies<'m>(module: &'m Module, by_name: &BTreeMap<String, &'m Module>) -> Vec<&'m str> {
    let mut found: Vec<&str> = Vec::new();
    let mut pending: Vec<&Module> = vec![module];
    while let Some(next) = pending.pop() {
        for needed in next.info.depends.iter().filter_map(|name| by_name.get(name)) {
            // Listed again further back, as it must be loaded before all that need it.
            found.retain(|path| *path != needed.path);
            found.push(&needed.path);
            pending.push(needed);
        }
    }
    found
}

/// Names in loading order: a depth-first walk over what each module needs. `info` answers `None` for unknown names.
pub fn order(
    wanted: &[&str],
    builtin: &BTreeSet<String>,
    info: &mut dyn FnMut(&str) -> Result<Option<Info>, ImageError>,
) -> Result<Vec<String>, ImageError> {
    let mut walk = Walk { builtin, info, seen: BTreeSet::new(), order: Vec::new() };
    for name in wanted {
        walk.visit(&normal(name), true)?;
    }
    Ok(walk.order)
}

struct Walk<'w> {
    builtin: &'w BTreeSet<String>,
    info: &'w mut dyn FnMut(&str) -> Result<Option<Info>, ImageError>,
    seen: BTreeSet<String>,
    order: Vec<String>,
}

impl Walk<'_> {
    fn visit(&mut self, name: &str, must_exist: bool) -> Result<(), ImageError> {
        if self.builtin.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        match (self.info)(name)? {
            Some(info) => {
                for needed in &info.depends {
                    self.visit(needed, true)?;
                }
                for helpful in &info.soft_pre {
                    self.visit(helpful, false)?;
                }
                self.order.push(name.to_owned());
                Ok(())
            }
            None if must_exist => Err(ImageError::Missing { what: "kernel module", name: name.into() }),
            None => Ok(()),
        }
    }
}

/// Reads the `key=value` texts of a `.modinfo` section.
pub fn parse_modinfo(section: &[u8]) -> Info {
    let mut info = Info::default();
    for text in section.split(|byte| *byte == 0) {
        let text = String::from_utf8_lossy(text);
        match text.split_once('=') {
            Some(("depends", names)) => {
                info.depends.extend(names.split(',').filter(|name| !name.is_empty()).map(normal));
            }
            Some(("softdep", words)) => {
                let pre = words.split_whitespace().skip_while(|word| *word != "pre:").skip(1);
                info.soft_pre.extend(pre.take_while(|word| !word.ends_with(':')).map(normal));
            }
            Some(("alias", alias)) => info.aliases.push(alias.into()),
            _ => {}
        }
    }
    info
}

/// The module's name for a path: the file's name without suffixes, `-` as `_`.
fn module_name(path: &str) -> Option<String> {
    let file = path.trim().rsplit('/').next()?;
    let stem = file.strip_suffix(".xz").unwrap_or(file).strip_suffix(".ko")?;
    Some(normal(stem))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> BTreeMap<&'static str, Info> {
        let info = |depends: &[&str], soft: &[&str]| Info {
            depends: depends.iter().map(|name| normal(name)).collect(),
            soft_pre: soft.iter().map(|name| normal(name)).collect(),
            aliases: Vec::new(),
        };
        BTreeMap::from([
            ("ext4", info(&["jbd2", "mbcache", "crc16"], &["crc32c", "nowhere"])),
            ("jbd2", info(&["crc16"], &[])),
            ("mbcache", info(&[], &[])),
            ("crc16", info(&[], &[])),
            ("crc32c", info(&[], &[])),
            ("virtio_rng", info(&["virtio_ring"], &[])),
            ("broken", info(&["missing"], &[])),
        ])
    }

    fn ordered(wanted: &[&str]) -> Result<Vec<String>, ImageError> {
        let world = world();
        let builtin = BTreeSet::from(["virtio_ring".to_owned()]);
        order(wanted, &builtin, &mut |name| Ok(world.get(name).cloned()))
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let order = ordered(&["ext4", "virtio-rng", "jbd2"]).expect("all are there");
        assert_eq!(order, ["crc16", "jbd2", "mbcache", "crc32c", "ext4", "virtio_rng"]);
    }

    #[test]
    fn a_missing_module_is_an_error_unless_it_is_soft() {
        assert!(ordered(&["broken"]).is_err());
        assert!(ordered(&["nowhere"]).is_err());
    }

    #[test]
    fn modinfo_is_parsed() {
        let section = b"license=GPL\0depends=jbd2,crc-16,\0softdep=pre: crc32c other post: later\0alias=fs-ext4\0depends=\0";
        let info = parse_modinfo(section);
        assert_eq!(info.depends, ["jbd2", "crc_16"]);
        assert_eq!(info.soft_pre, ["crc32c", "other"]);
        assert_eq!(info.aliases, ["fs-ext4"]);
    }

    #[test]
    fn modules_dep_lists_the_whole_chain() {
        let module = |path: &str, depends: &[&str]| Module {
            path: path.into(),
            bytes: Vec::new(),
            info: Info { depends: depends.iter().map(|name| normal(name)).collect(), ..Info::default() },
        };
        let modules = [
            module("k/crc16.ko", &[]),
            module("k/jbd2.ko", &["crc16"]),
            module("k/ext4.ko", &["crc16", "jbd2"]),
        ];
        let mut tree = Tree::default();
        install(&modules, "6.1", &mut tree);
        let text = tree.need_text("usr/lib/modules/6.1/modules.dep").expect("written");
        assert_eq!(text, "k/crc16.ko:\nk/jbd2.ko: k/crc16.ko\nk/ext4.ko: k/jbd2.ko k/crc16.ko\n");
    }
}
