//! Import circles between the modules of a crate.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::source::{Crate, Module};

/// Which modules each module needs, by index, with the items that it needs from them.
type Edges = BTreeMap<usize, BTreeMap<usize, BTreeSet<String>>>;

/// No two files need each other, directly or through others. So each can be read, tested and moved without
/// the other, and a reader knows which to read first.
///
/// A module needs the module that defines the item it names, wherever it imports the name from. Declaring a
/// child (`mod x;`) and re-exporting its items (`pub use x::Item`) does not count. Naming a child's item in
/// code does, and so does a child that names an item of its parent. An inline module belongs to its file.
/// Method calls are not followed: a type's methods are where the type is.
pub(crate) fn import_circles(sources: &Crate) -> Vec<String> {
    let edges = edges(sources);
    groups(&edges).iter().map(|group| describe(sources, &edges, group)).collect()
}

fn edges(sources: &Crate) -> Edges {
    let mut edges = Edges::new();
    for (index, module) in sources.modules.iter().enumerate() {
        let mut needs = |path: &[String], is_reexport: bool| {
            let Some(target) = sources.resolve(index, path) else { return };
            let needed = &sources.modules[target.module];
            let is_own = is_reexport && needed.path.starts_with(&module.path);
            if needed.holder != module.holder && !is_own {
                let item = target.item.unwrap_or_else(|| name(needed));
                edges.entry(module.holder).or_default().entry(needed.holder).or_default().insert(item);
            }
        };
        for import in &module.imports {
            needs(&import.path, import.is_reexport);
        }
        for mention in &module.mentions {
            // A single name that is no module is a variable, or the `crate` of a `pub(crate)` in a macro.
            let is_module = || sources.resolve(index, mention).is_some_and(|t| t.item.is_none());
            if mention.len() > 1 || !is_module() {
                needs(mention, false);
            }
        }
    }
    edges
}

/// The groups of modules that all reach each other.
fn groups(edges: &Edges) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for &start in edges.keys() {
        if groups.iter().flatten().any(|&m| m == start) || way_back(edges, start).is_none() {
            continue;
        }
        let is_mutual =
            |m: usize| m == start || (way(edges, start, m).is_some() && way(edges, m, start).is_some());
        groups.push(edges.keys().copied().filter(|&m| is_mutual(m)).collect());
    }
    groups
}

/// The shortest path from a module back to itself.
fn way_back(edges: &Edges, start: usize) -> Option<Vec<usize>> {
    way(edges, start, start)
}

/// The shortest path with at least one edge.
fn way(edges: &Edges, start: usize, end: usize) -> Option<Vec<usize>> {
    let mut seen = BTreeSet::new();
    let mut next = VecDeque::from([vec![start]]);
    while let Some(way) = next.pop_front() {
        for &to in way.last().and_then(|last| edges.get(last)).into_iter().flat_map(BTreeMap::keys) {
            let longer: Vec<usize> = way.iter().copied().chain([to]).collect();
            if to == end {
                return Some(longer);
            }
            if seen.insert(to) {
                next.push_back(longer);
            }
        }
    }
    None
}

/// The shortest circle of a group, file by file, and the other members of the group.
fn describe(sources: &Crate, edges: &Edges, group: &[usize]) -> String {
    let ways = group.iter().filter_map(|&m| way_back(edges, m));
    let circle = ways.min_by_key(Vec::len).unwrap_or_default();
    let mut lines = vec!["import circle:".to_owned()];
    for step in circle.windows(2) {
        let [from, to] = [step[0], step[1]].map(|m| &sources.modules[m]);
        let items: Vec<&str> = edges[&step[0]][&step[1]].iter().map(String::as_str).collect();
        let (file, items) = (from.file.display(), items.join(", "));
        lines.push(format!("  {} ({file}) needs {} for {items}", name(from), name(to)));
    }
    let others: Vec<String> =
        group.iter().filter(|m| !circle.contains(m)).map(|&m| name(&sources.modules[m])).collect();
    if !others.is_empty() {
        lines.push(format!("  in circles with these: {}", others.join(", ")));
    }
    lines.join("\n")
}

fn name(module: &Module) -> String {
    if module.path.is_empty() { "crate".to_owned() } else { module.path.join("::") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::made_up::sources;

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: &[&str]) {
        assert_eq!(import_circles(&sources(files)), expected);
    }

    #[test]
    fn a_circle_of_two_is_found() {
        check(
            &[
                ("src/lib.rs", "mod a; mod b;"),
                ("src/a.rs", "use crate::b::B; pub struct A(B);"),
                ("src/b.rs", "pub struct B; fn f() -> super::a::A { todo!() }"),
            ],
            &["import circle:\n  a (src/a.rs) needs b for B\n  b (src/b.rs) needs a for A"],
        );
    }

    #[test]
    fn a_circle_of_three_through_reexports_is_found() {
        check(
            &[
                ("src/lib.rs", "mod a; mod b; mod c; mod d; pub use b::B; pub use c::Deep as C;"),
                ("src/a.rs", "pub struct A; fn f(b: crate::B) {}"),
                ("src/b.rs", "use crate::C; pub struct B(C);"),
                ("src/c/mod.rs", "mod deep; pub(crate) use deep::Deep;"),
                ("src/c/deep.rs", "use crate::a::A; pub struct Deep(A);"),
                ("src/d.rs", "use crate::{a::A, B, C};"),
            ],
            &["import circle:\n  a (src/a.rs) needs b for B\n  b (src/b.rs) needs c::deep for Deep\n  \
                c::deep (src/c/deep.rs) needs a for A"],
        );
    }

    #[test]
    fn the_shortest_circle_of_a_group_is_shown_with_the_others() {
        check(
            &[
                ("src/lib.rs", "mod a; mod b; mod c;"),
                ("src/a.rs", "use crate::b; pub fn f() { b::g() }"),
                ("src/b.rs", "pub fn g() { crate::c::h() }"),
                ("src/c.rs", "pub fn h() { crate::a::f(); crate::b::g() }"),
            ],
            &["import circle:\n  b (src/b.rs) needs c for h\n  c (src/c.rs) needs b for g\n  \
                in circles with these: a"],
        );
    }

    #[test]
    fn a_parent_and_its_child_are_a_circle_only_where_both_name_items() {
        let child = ("src/a/child.rs", "use super::A; pub struct Child(A);");
        let root = ("src/lib.rs", "mod a;");
        check(&[root, ("src/a.rs", "mod child; pub use child::Child; pub struct A;"), child], &[]);
        for parent in [
            "mod child; pub struct A; fn f(c: child::Child) {}",
            "mod child; use child::Child; pub struct A;",
            "mod child; pub use child::Child; pub struct A; fn f(c: Child) {}",
        ] {
            let expected = "import circle:\n  a (src/a.rs) needs a::child for Child\n  \
                a::child (src/a/child.rs) needs a for A";
            check(&[root, ("src/a.rs", parent), child], &[expected]);
        }
    }

    #[test]
    fn names_inside_macros_and_functions_count() {
        for b in [
            "fn f() { assert!(x.y == 1, \"{}\", crate::a::A::new()); }",
            "fn f() { use super::a::A; }",
            "fn f() { select! { _ = g(crate::a::A) => {} } }",
            "impl From<crate::a::A> for u8 {}",
            "macro_rules! m { () => { $crate::a::A } }",
        ] {
            let tree = sources(&[
                ("src/lib.rs", "mod a; mod b;"),
                ("src/a.rs", "use crate::b; pub struct A; fn f() { b::f() }"),
                ("src/b.rs", b),
            ]);
            assert_eq!(import_circles(&tree).len(), 1, "{b}");
        }
    }

    #[test]
    fn tests_and_names_that_are_no_paths_do_not_count() {
        check(
            &[
                ("src/lib.rs", "mod a; mod b; fn f() { let b = 1; g(b) } pub struct Root;"),
                ("src/a.rs", "use crate::b::B; pub struct A(B); pub fn a() {}"),
                (
                    "src/b.rs",
                    "pub struct B(crate::Root); pub(in crate::a) struct C; struct D<'a>(&'a u8);
                    #[cfg(test)] use crate::a::A;
                    #[cfg(test)] mod tests { use crate::a::A; }
                    impl B { #[cfg(test)] fn f() -> crate::a::A { todo!() } }
                    fn g() { let a = 1; let b = a + a; json!({ \"a\": a, b: x.a }); m!(pub(crate) struct E); }",
                ),
            ],
            &[],
        );
    }

    #[test]
    fn a_module_in_braces_belongs_to_its_file() {
        check(
            &[
                ("src/lib.rs", "mod a; mod sealed { pub trait Sealed {} }"),
                (
                    "src/a.rs",
                    "mod inner { use super::A; pub struct I(A); } pub struct A; fn f(i: inner::I) {}",
                ),
            ],
            &[],
        );
    }
}
