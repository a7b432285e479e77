//! The modules of a crate: which file each is in, which names it has, and which it uses.

use super::tree::Tree;
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use std::collections::{BTreeMap, BTreeSet};
use syn::{Attribute, Ident, Item, ItemUse, Meta, UseTree, Visibility};

/// A module. The first is the crate's root.
#[derive(Debug, Default)]
pub struct Module {
    /// Its file, from the repository's root.
    pub file: String,
    /// The module that it is in.
    pub parent: usize,
    /// Modules in it.
    pub children: BTreeMap<String, usize>,
    /// What it defines.
    pub items: BTreeSet<String>,
    /// What it imports.
    pub imports: Vec<Import>,
    /// Paths of two names or more that it uses.
    pub paths: Vec<Named>,
    /// All names in it.
    pub names: BTreeSet<String>,
}

/// A path and the line where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its names.
    pub path: Vec<String>,
    /// Its line.
    pub line: usize,
}

/// One name of a `use`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// What is imported.
    pub from: Named,
    /// Under which name; none for everything in it.
    pub name: Option<String>,
    /// Whether others see it here.
    pub public: bool,
}

/// The modules of the crate whose root this file is. What is there for tests alone is left out: a test may use
/// whoever uses what it tests.
pub fn of(tree: &Tree, root: &str) -> Vec<Module> {
    let mut this = Reader { tree, modules: vec![] };
    let directory = root.rsplit_once('/').map_or("", |(directory, _)| directory);
    this.file(root, directory, 0);
    this.modules
}

struct Reader<'t> {
    tree: &'t Tree,
    modules: Vec<Module>,
}

impl Reader<'_> {
    /// Reads a module's file; its modules' files are in `directory`.
    fn file(&mut self, file: &str, directory: &str, parent: usize) -> usize {
        let text = self.tree.get(file).unwrap_or_default();
        // Where this is no Rust, the compiler says so better.
        let items = syn::parse_file(text).map(|parsed| parsed.items).unwrap_or_default();
        self.module(file, directory, parent, items)
    }

    fn module(&mut self, file: &str, directory: &str, parent: usize, items: Vec<Item>) -> usize {
        let index = self.modules.len();
        self.modules.push(Module { file: file.to_owned(), parent, ..Module::default() });
        for item in items.into_iter().filter(|item| !attributes(item).iter().any(for_tests)) {
            match item {
                Item::Mod(item) => {
                    let name = item.ident.to_string();
                    let inside = format!("{directory}/{name}");
                    let child = match item.content {
                        Some((_, items)) => self.module(file, &inside, index, items),
                        None => {
                            let given = item.attrs.iter().find_map(given_path);
                            let (own, below) = (format!("{directory}/{name}.rs"), format!("{inside}/mod.rs"));
                            match given {
                                Some(path) => {
                                    let path = super::paths::joined(file, &path);
                                    let within = path.rsplit_once('/').map_or("", |(within, _)| within);
                                    self.file(&path, within, index)
                                }
                                None if self.tree.get(&own).is_some() => self.file(&own, &inside, index),
                                None => self.file(&below, &inside, index),
                            }
                        }
                    };
                    self.modules[index].children.insert(name, child);
                }
                Item::Use(item) => self.modules[index].import(&item),
                other => self.modules[index].item(&other),
            }
        }
        index
    }
}

impl Module {
    fn import(&mut self, item: &ItemUse) {
        // `use ::a` is another crate.
        if item.leading_colon.is_none() {
            let public = !matches!(item.vis, Visibility::Inherited);
            self.branch(&item.tree, vec![], public);
        }
    }

    fn branch(&mut self, tree: &UseTree, mut path: Vec<String>, public: bool) {
        let mut add = |mut path: Vec<String>, last: Option<(String, String)>, line: usize| {
            let name = last.map(|(from, name)| {
                // `a::{self}` is a.
                if from != "self" {
                    path.push(from);
                }
                if name == "self" { path.last().cloned().unwrap_or_default() } else { name }
            });
            self.imports.push(Import { from: Named { path, line }, name, public });
        };
        match tree {
            UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                self.branch(&tree.tree, path, public);
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.branch(tree, path.clone(), public));
            }
            UseTree::Name(name) => {
                let text = name.ident.to_string();
                add(path, Some((text.clone(), text)), name.ident.span().start().line);
            }
            UseTree::Rename(name) => {
                let to = name.rename.to_string();
                add(path, Some((name.ident.to_string(), to)), name.ident.span().start().line);
            }
            UseTree::Glob(glob) => add(path, None, glob.star_token.spans[0].start().line),
        }
    }

    fn item(&mut self, item: &Item) {
        self.items.extend(defined(item).map(ToString::to_string));
        self.tokens(item.to_token_stream());
    }

    /// Paths and imports in tokens, those in macros' arguments too.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let colons = |at: usize| {
            let is =
                |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == ':');
            is(tokens.get(at)) && is(tokens.get(at + 1))
        };
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(ident) if ident == "use" => {
                    let ends = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ';');
                    let end = tokens[at..].iter().position(ends).map_or(tokens.len(), |more| at + more + 1);
                    let before = self.imports.len();
                    if let Ok(item) = syn::parse2(tokens[at..end].iter().cloned().collect()) {
                        self.import(&item);
                    }
                    // `use super::*` in a macro is of a module that the macro makes.
                    let kept =
                        self.imports.split_off(before).into_iter().filter(|import| import.name.is_some());
                    self.imports.extend(kept);
                    at = end;
                }
                // `pub(in …)` imports nothing.
                TokenTree::Ident(ident)
                    if ident == "pub" && matches!(tokens.get(at + 1), Some(TokenTree::Group(_))) =>
                {
                    at += 2;
                }
                TokenTree::Ident(ident) => {
                    let mut path = vec![ident.to_string()];
                    let line = ident.span().start().line;
                    let outside = at >= 2 && colons(at - 2);
                    while let Some(TokenTree::Ident(next)) = tokens.get(at + 3).filter(|_| colons(at + 1)) {
                        path.push(next.to_string());
                        at += 3;
                    }
                    at += 1;
                    self.names.extend(path.first().cloned());
                    if path.len() > 1 && !outside {
                        self.paths.push(Named { path, line });
                    }
                }
                TokenTree::Group(group) => {
                    self.tokens(group.stream());
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }
}

/// The name that an item defines.
fn defined(item: &Item) -> Option<&Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Macro(item) => item.ident.as_ref(),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`, `#[cfg(all(test, …))]`.
fn for_tests(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    let text = list.tokens.to_string();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    list.path.is_ident("cfg") && words.contains(&"test") && !words.contains(&"not") && !words.contains(&"any")
}

fn given_path(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(meta) = &attribute.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) = &meta.value else { return None };
    meta.path.is_ident("path").then(|| path.value())
}
