//! A file tree in memory: what goes into an image, with owners and modes that the host's user may not be allowed to set.

use super::error::ImageError;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory,
    /// A regular file.
    File(Arc<[u8]>),
    /// A symbolic link and its target.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// A file, directory or link with its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Permission bits with set-id and sticky bits (`0o7777` at most).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change, seconds since 1970.
    pub mtime: u64,
    /// What it is.
    pub content: Content,
}

/// A tree of nodes. Paths are relative to its root, without leading or trailing slash; parents sort before children.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// Directories that Debian has merged into `/usr` (a package may still ship files under the old name).
const MERGED: [&str; 4] = ["bin/", "sbin/", "lib/", "lib64/"];

impl Tree {
    /// A tree with the links of a merged `/usr`.
    pub fn with_merged_usr() -> Tree {
        let mut tree = Tree::default();
        for name in ["bin", "sbin", "lib"] {
            tree.directory(&format!("usr/{name}"), 0o755);
            tree.symlink(name, &format!("usr/{name}"));
        }
        tree
    }

    /// Puts `node` at `path`, over what was there; missing parents become directories of root's.
    pub fn insert(&mut self, path: &str, node: Node) {
        let path = normal(path);
        if path.is_empty() {
            return;
        }
        if let Some((parent, _)) = path.rsplit_once('/')
            && !self.nodes.contains_key(parent)
        {
            self.insert(parent, Node::new(0o755, Content::Directory));
        }
        // A directory that is shipped again keeps its place; its attributes are the later package's.
        self.nodes.insert(path, node);
    }

    /// Puts a file of root's there.
    pub fn file(&mut self, path: &str, content: impl AsRef<[u8]>, mode: u32) {
        self.insert(path, Node::new(mode, Content::File(content.as_ref().into())));
    }

    /// Puts a directory of root's there.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.insert(path, Node::new(mode, Content::Directory));
    }

    /// Puts a symbolic link there.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.insert(path, Node::new(0o777, Content::Symlink(target.into())));
    }

    /// Gives a node another owner.
    pub fn chown(&mut self, path: &str, uid: u32, gid: u32) {
        if let Some(node) = self.nodes.get_mut(&normal(path)) {
            (node.uid, node.gid) = (uid, gid);
        }
    }

    /// Takes a node out, with what is below it.
    pub fn remove(&mut self, path: &str) {
        let path = normal(path);
        let below = format!("{path}/");
        self.nodes.retain(|name, _| *name != path && !name.starts_with(&below));
    }

    /// The node at exactly this path (a link isn't followed).
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&normal(path))
    }

    /// The path after following links in every component; `None` if it leads nowhere.
    pub fn resolve(&self, path: &str) -> Option<String> {
        let mut pending: Vec<String> = normal(path).rsplit('/').map(str::to_owned).collect();
        let mut at: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(name),
            }
            if let Content::Symlink(target) = &self.nodes.get(&at.join("/"))?.content {
                links += 1;
                if links > 40 {
                    return None;
                }
                at.pop();
                if target.starts_with('/') {
                    at.clear();
                }
                pending.extend(target.rsplit('/').map(str::to_owned));
            }
        }
        Some(at.join("/"))
    }

    /// The content of the file at `path`, links followed.
    pub fn read(&self, path: &str) -> Option<Arc<[u8]>> {
        match &self.nodes.get(&self.resolve(path)?)?.content {
            Content::File(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// The content of a file that the recipe needs.
    pub fn need(&self, path: &str) -> Result<Arc<[u8]>, ImageError> {
        self.read(path).ok_or_else(|| ImageError::Missing { what: "file", name: path.into() })
    }

    /// The text of a file that the recipe needs.
    pub fn need_text(&self, path: &str) -> Result<String, ImageError> {
        Ok(String::from_utf8_lossy(&self.need(path)?).into_owned())
    }

    /// All nodes, parents before children.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// All nodes below a directory, parents before children.
    pub fn below<'a>(&'a self, directory: &str) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        let prefix = format!("{}/", normal(directory));
        self.nodes
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(path, node)| (path.as_str(), node))
    }

    /// Bytes in regular files.
    pub fn content_bytes(&self) -> u64 {
        self.nodes.values().map(Node::len).sum()
    }

    /// Sets every time of change that is later than `limit` to it, so that builds of the same content are alike.
    pub fn clamp_times(&mut self, limit: u64) {
        for node in self.nodes.values_mut() {
            node.mtime = node.mtime.min(limit);
        }
    }
}

impl Node {
    /// A node of root's.
    pub fn new(mode: u32, content: Content) -> Node {
        Node { mode, uid: 0, gid: 0, mtime: u64::MAX, content }
    }

    /// Bytes of a regular file, 0 for anything else.
    pub fn len(&self) -> u64 {
        match &self.content {
            Content::File(bytes) => bytes.len() as u64,
            _ => 0,
        }
    }

    /// True if it has no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A path as the tree keeps it: no `./`, no slashes at the ends, under `/usr` where Debian has merged it.
fn normal(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_matches('/');
    if MERGED.iter().any(|prefix| path.starts_with(prefix)) { format!("usr/{path}") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_appear_and_merged_directories_move() {
        let mut tree = Tree::with_merged_usr();
        tree.file("./lib/x/y", b"1", 0o644);
        assert!(matches!(tree.get("usr/lib/x").map(|node| &node.content), Some(Content::Directory)));
        assert_eq!(tree.read("/usr/lib/x/y").as_deref(), Some(&b"1"[..]));
        assert_eq!(tree.read("lib/x/y").as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn links_are_followed_and_loops_end() {
        let mut tree = Tree::default();
        tree.file("a/b/file", b"2", 0o600);
        tree.symlink("c", "/a");
        tree.symlink("a/up", "../c/b");
        tree.symlink("loop", "loop");
        assert_eq!(tree.resolve("c/up/file").as_deref(), Some("a/b/file"));
        assert_eq!(tree.resolve("loop"), None);
        assert_eq!(tree.resolve("a/none"), None);
    }

    #[test]
    fn removal_takes_what_is_below_and_no_neighbour() {
        let mut tree = Tree::default();
        tree.file("a/b/c", b"", 0o644);
        tree.file("a/b-c", b"", 0o644);
        tree.remove("a/b");
        assert!(tree.get("a/b/c").is_none());
        assert!(tree.get("a/b-c").is_some());
        assert_eq!(tree.below("a").count(), 1);
    }
}
