//! Resolves paths to the module that defines the item.

use std::collections::BTreeSet;

use crate::source::{Crate, Module};

/// The target of a path inside its crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) module: usize,
    /// `None` if the path names the module itself.
    pub(crate) item: Option<String>,
}

/// The imports that are being resolved, so that circular re-exports end.
type Seen<'c> = BTreeSet<(usize, &'c str)>;

impl Crate {
    /// Resolves `path`, as written in module `from`, through modules, imports and re-exports. `None` if it
    /// leads out of the crate, or to a local name of a function.
    pub(crate) fn resolve<'c>(&'c self, from: usize, path: &'c [String]) -> Option<Target> {
        self.follow(from, path, &Seen::new())
    }

    fn follow<'c>(&'c self, from: usize, path: &'c [String], seen: &Seen<'c>) -> Option<Target> {
        let (first, mut rest) = path.split_first()?;
        let mut target = match first.as_str() {
            "crate" => Target { module: 0, item: None },
            "self" => Target { module: from, item: None },
            "super" => Target { module: self.modules[from].parent?, item: None },
            name => self.lookup(from, name, seen)?,
        };
        while let (None, Some((name, after))) = (&target.item, rest.split_first()) {
            rest = after;
            target = if name == "super" {
                Target { module: self.modules[target.module].parent?, item: None }
            } else {
                // No visible definition: a macro defines the name.
                let made = Target { module: target.module, item: Some(name.clone()) };
                self.lookup(target.module, name, seen).unwrap_or(made)
            };
        }
        Some(target)
    }

    /// Resolves `name` in a module.
    fn lookup<'c>(&'c self, module: usize, name: &'c str, seen: &Seen<'c>) -> Option<Target> {
        let mut seen = seen.clone();
        if !seen.insert((module, name)) {
            return None;
        }
        let this: &Module = &self.modules[module];
        if let Some(child) = this.children.get(name) {
            return Some(Target { module: *child, item: None });
        }
        if this.definitions.contains(name) {
            return Some(Target { module, item: Some(name.to_owned()) });
        }
        let mut named = this.imports.iter().filter(|i| i.name.as_deref() == Some(name));
        if let Some(found) = named.find_map(|i| self.follow(module, &i.path, &seen)) {
            return Some(found);
        }
        let globs = this.imports.iter().filter(|i| i.name.is_none());
        globs
            .filter_map(|i| self.follow(module, &i.path, &seen))
            .filter(|whole| whole.item.is_none())
            .find_map(|whole| self.lookup(whole.module, name, &seen))
    }

    /// `path` from the name of an external crate on, even if an import of the module shortened it; `None` if
    /// the path stays inside the crate.
    pub(crate) fn outside(&self, module: usize, path: &[String]) -> Option<Vec<String>> {
        if self.resolve(module, path).is_some() {
            return None;
        }
        let mut full = path.to_vec();
        let mut used = BTreeSet::new();
        while let Some(import) = self.modules[module]
            .imports
            .iter()
            .find(|i| i.name.is_some() && i.name.as_ref() == full.first() && used.insert(i.path.clone()))
        {
            full.splice(..1, import.path.iter().cloned());
        }
        Some(full)
    }
}

#[cfg(test)]
mod tests {
    use crate::source::made_up::sources;

    fn path(text: &str) -> Vec<String> {
        text.split("::").map(str::to_owned).collect()
    }

    #[test]
    fn paths_are_followed_through_reexports_renames_and_globs() {
        let tree = sources(&[
            ("src/lib.rs", "mod a; mod b; pub use b::{Deep as Renamed, inner::*};"),
            ("src/a.rs", "pub struct Own; use super::Renamed;"),
            ("src/b/mod.rs", "mod inner; pub(crate) use inner::Deep; pub struct Upper;"),
            ("src/b/inner.rs", "pub struct Deep; pub struct Other; made!(Hidden);"),
        ]);
        let found = |from: &str, name: &str| {
            let from = tree.modules.iter().position(|m| m.path.join("::") == from).unwrap();
            let target = tree.resolve(from, &path(name))?;
            Some((tree.modules[target.module].path.join("::"), target.item))
        };
        let item = |module: &str, name: &str| Some((module.to_owned(), Some(name.to_owned())));
        for (from, name, expected) in [
            ("a", "crate::Renamed", item("b::inner", "Deep")),
            ("a", "Renamed::new", item("b::inner", "Deep")),
            ("a", "crate::Other", item("b::inner", "Other")),
            ("a", "crate::b::inner::Hidden", item("b::inner", "Hidden")),
            ("a", "self::Own", item("a", "Own")),
            ("b::inner", "super::super::a::Own", item("a", "Own")),
            ("b::inner", "super::Upper", item("b", "Upper")),
            ("b::inner", "super", Some(("b".to_owned(), None))),
            ("", "a::Own", item("a", "Own")),
            ("a", "std::time::Instant", None),
            ("a", "local", None),
        ] {
            assert_eq!(found(from, name), expected, "{name} in {from}");
        }
    }

    #[test]
    fn circular_reexports_end() {
        let tree = sources(&[
            ("src/lib.rs", "mod a; mod b;"),
            ("src/a.rs", "pub use crate::b::X;"),
            ("src/b.rs", "pub use crate::a::X;"),
        ]);
        assert!(tree.resolve(0, &path("a::X")).is_some());
    }

    #[test]
    fn external_names_are_expanded() {
        let tree = sources(&[
            ("src/lib.rs", "mod time_of; use std::time; use time::Instant as Now;"),
            ("src/time_of.rs", ""),
        ]);
        let outside = |name: &str| tree.outside(0, &path(name)).map(|p| p.join("::"));
        assert_eq!(outside("Now::now").as_deref(), Some("std::time::Instant::now"));
        assert_eq!(outside("tokio::spawn").as_deref(), Some("tokio::spawn"));
        assert_eq!(outside("time_of::day"), None);
    }
}
