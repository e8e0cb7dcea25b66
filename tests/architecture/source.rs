//! The modules of a crate, from its sources: the names that each defines, imports and mentions.
//!
//! Code that only tests compile (`#[cfg(test)]`) is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, UseTree};

/// The modules of one crate. The first is its root.
pub(crate) struct Crate {
    pub(crate) modules: Vec<Module>,
}

/// One module.
pub(crate) struct Module {
    /// Without `crate`: empty for the root.
    pub(crate) path: Vec<String>,
    pub(crate) file: PathBuf,
    /// The module whose file contains this one: itself, except for `mod x { … }`.
    pub(crate) holder: usize,
    pub(crate) parent: Option<usize>,
    pub(crate) children: BTreeMap<String, usize>,
    /// The names of its items.
    pub(crate) definitions: BTreeSet<String>,
    pub(crate) imports: Vec<Import>,
    /// The paths in its code and in the macro calls of its code. A call of a macro by one name ends with `!`.
    pub(crate) mentions: BTreeSet<Vec<String>>,
}

/// One name of a `use`.
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    /// `None` for `path::*`.
    pub(crate) name: Option<String>,
    /// Whether it has a visibility, so that other modules may import it from here.
    pub(crate) is_reexport: bool,
}

type Read<'r> = &'r dyn Fn(&Path) -> Option<String>;

impl Crate {
    /// Parses the crate whose root is `file`. `read` returns a file's text, or `None` if there is no such
    /// file.
    ///
    /// # Panics
    ///
    /// If a module has no file, or a file is no valid Rust.
    pub(crate) fn parse(file: &Path, read: Read<'_>) -> Self {
        let mut reader = Reader { read, modules: Vec::new(), current: 0 };
        let folder = file.parent().unwrap_or(Path::new(""));
        let items = reader.items(file).unwrap_or_else(|| panic!("{} does not exist", file.display()));
        reader.module(Vec::new(), file.to_path_buf(), (None, None), folder, &items);
        Self { modules: reader.modules }
    }
}

/// Fills the modules while it visits the syntax tree. Each finding belongs to the current module.
struct Reader<'r> {
    read: Read<'r>,
    modules: Vec<Module>,
    current: usize,
}

impl Reader<'_> {
    fn items(&self, file: &Path) -> Option<Vec<Item>> {
        let text = (self.read)(file)?;
        Some(syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display())).items)
    }

    /// Adds a module and its children. `folder` contains the files of the children.
    fn module(
        &mut self,
        path: Vec<String>,
        file: PathBuf,
        (parent, holder): (Option<usize>, Option<usize>),
        folder: &Path,
        items: &[Item],
    ) -> usize {
        let this = self.modules.len();
        self.modules.push(Module {
            path,
            file,
            holder: holder.unwrap_or(this),
            parent,
            children: BTreeMap::new(),
            definitions: BTreeSet::new(),
            imports: Vec::new(),
            mentions: BTreeSet::new(),
        });
        let outer = std::mem::replace(&mut self.current, this);
        for item in items.iter().filter(|item| !only_in_tests(attributes(item))) {
            if let Item::Mod(child) = item {
                self.child(child, folder);
                continue;
            }
            self.modules[this].definitions.extend(defined(item));
            self.visit_item(item);
        }
        self.current = outer;
        this
    }

    fn child(&mut self, item: &syn::ItemMod, folder: &Path) {
        let parent = self.current;
        let name = item.ident.to_string();
        let path = [self.modules[parent].path.as_slice(), std::slice::from_ref(&name)].concat();
        let below = folder.join(&name);
        let child = if let Some((_, items)) = &item.content {
            let (file, holder) = (self.modules[parent].file.clone(), self.modules[parent].holder);
            self.module(path, file, (Some(parent), Some(holder)), &below, items)
        } else {
            let files = [folder.join(format!("{name}.rs")), below.join("mod.rs")];
            let (file, items) = files
                .into_iter()
                .find_map(|file| self.items(&file).map(|items| (file, items)))
                .unwrap_or_else(|| panic!("{}: no file of mod {name}", self.modules[parent].file.display()));
            self.module(path, file, (Some(parent), None), &below, &items)
        };
        self.modules[parent].children.insert(name, child);
    }

    fn import(&mut self, tree: &UseTree, path: &mut Vec<String>, is_reexport: bool) {
        let (last, name) = match tree {
            UseTree::Path(step) => {
                path.push(step.ident.to_string());
                self.import(&step.tree, path, is_reexport);
                path.pop();
                return;
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, path, is_reexport));
                return;
            }
            UseTree::Glob(_) => (None, None),
            UseTree::Name(name) => (Some(name.ident.to_string()), Some(name.ident.to_string())),
            UseTree::Rename(rename) => (Some(rename.ident.to_string()), Some(rename.rename.to_string())),
        };
        // `use a::{self}` imports `a`.
        let last = last.filter(|last| last != "self" || path.is_empty());
        let name = name.map(|name| if name == "self" { path.last().cloned().unwrap_or(name) } else { name });
        let path = path.iter().cloned().chain(last).collect();
        self.modules[self.current].imports.push(Import { path, name, is_reexport });
    }

    fn mention(&mut self, path: Vec<String>) {
        if !path.is_empty() {
            self.modules[self.current].mentions.insert(path);
        }
    }

    /// Finds the paths in a macro's arguments, which have no syntax tree.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut colons, mut dots, mut is_lifetime) = (Vec::new(), 0, 0, false);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.mention(take(&mut path));
                    }
                    // Not after a dot (a field or a method), nor after a `::` without a name before it.
                    let starts = colons != 2 && dots != 1 && !is_lifetime;
                    if starts || !path.is_empty() {
                        path.push(ident.to_string());
                    }
                    (colons, dots, is_lifetime) = (0, 0, false);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.mention(take(&mut path));
                    let punct = if let TokenTree::Punct(punct) = &other { punct.as_char() } else { ' ' };
                    (colons, is_lifetime) = (0, punct == '\'');
                    dots = if punct == '.' { dots + 1 } else { 0 };
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.mention(path);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !only_in_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            _ => return visit::visit_impl_item(self, item),
        };
        if !only_in_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    /// Includes a `use` inside a function. Its names count as the module's.
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            let is_reexport = !matches!(item.vis, syn::Visibility::Inherited);
            self.import(&item.tree, &mut Vec::new(), is_reexport);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.mention(path.segments.iter().map(|s| s.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        match call.path.get_ident() {
            Some(name) => self.mention(vec![format!("{name}!")]),
            None => self.visit_path(&call.path),
        }
        self.tokens(call.tokens.clone());
    }

    /// Attributes name crates and macro helpers, not modules.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    /// The path of `pub(in path)` is a visibility, not a use.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}

fn only_in_tests(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|a| a.path().is_ident("cfg") && a.parse_args::<syn::Path>().is_ok_and(|p| p.is_ident("test")))
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
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The name that an item defines in its module.
fn defined(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

#[cfg(test)]
pub(crate) mod made_up {
    //! Example sources for the tests of the rules.

    use super::{Crate, Path};

    /// A crate from `(file, text)` pairs. The first is its root.
    pub(crate) fn sources(files: &[(&str, &str)]) -> Crate {
        let read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
        };
        Crate::parse(Path::new(files[0].0), &read)
    }
}
