//! Checks licences, sources and bans of all dependencies against `deny.toml`.
//!
//! `cargo deny check` checks the same and advisories too, but takes minutes to build. This test needs only
//! the manifests that cargo already has.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::BTreeSet;

use cargo_metadata::{Metadata, MetadataCommand, Package};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");

/// `deny.toml`.
fn rules() -> toml::Table {
    let rules: toml::Table = std::fs::read_to_string(format!("{ROOT}/deny.toml")).unwrap().parse().unwrap();
    for (section, key) in [("bans", "wildcards"), ("sources", "unknown-registry"), ("sources", "unknown-git")]
    {
        assert_eq!(rules[section][key].as_str(), Some("deny"), "[{section}] {key}");
    }
    rules
}

fn texts(list: &toml::Value) -> BTreeSet<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// The workspace and its dependencies on this platform.
fn metadata(platform: &str) -> Metadata {
    MetadataCommand::new()
        .manifest_path(format!("{ROOT}/Cargo.toml"))
        .other_options(["--locked", "--filter-platform", platform].map(str::to_owned))
        .exec()
        .unwrap()
}

/// The packages that are built for this platform.
fn resolved(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    let used: BTreeSet<_> = metadata.resolve.as_ref().unwrap().nodes.iter().map(|node| &node.id).collect();
    metadata.packages.iter().filter(move |package| used.contains(&package.id))
}

#[test]
fn dependencies_keep_the_rules() {
    let rules = rules();
    let allowed = texts(&rules["licenses"]["allow"]);
    let mut broken = BTreeSet::new();
    for platform in texts(&rules["graph"]["targets"]) {
        let metadata = metadata(platform);
        for package in resolved(&metadata) {
            let named = format!("{} {}", package.name, package.version);
            match package.license.as_deref() {
                Some(licence) if permitted(licence, &allowed) => {}
                other => drop(broken.insert(format!("{named}: licence {other:?} is not allowed"))),
            }
            match &package.source {
                Some(source) if !source.is_crates_io() => {
                    broken.insert(format!("{named}: comes from {source}"));
                }
                None if !metadata.workspace_members.contains(&package.id) => {
                    broken.insert(format!("{named}: comes from a folder outside of the workspace"));
                }
                _ => {}
            }
            let wildcards =
                package.dependencies.iter().filter(|d| d.req.to_string() == "*" && d.path.is_none());
            broken.extend(wildcards.map(|d| format!("{named}: takes any version of {}", d.name)));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Whether these licences satisfy an SPDX expression.
fn permitted(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    // Old manifests write `/` for OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest, allowed) == Some(true) && rest.is_empty()
}

fn next<'a>(rest: &mut &[&'a str]) -> Option<&'a str> {
    let (first, others) = rest.split_first()?;
    *rest = others;
    Some(first)
}

fn any_of(rest: &mut &[&str], allowed: &BTreeSet<&str>) -> Option<bool> {
    let mut met = all_of(rest, allowed)?;
    while rest.first() == Some(&"OR") {
        next(rest);
        met |= all_of(rest, allowed)?;
    }
    Some(met)
}

fn all_of(rest: &mut &[&str], allowed: &BTreeSet<&str>) -> Option<bool> {
    let mut met = one(rest, allowed)?;
    while rest.first() == Some(&"AND") {
        next(rest);
        met &= one(rest, allowed)?;
    }
    Some(met)
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<&str>) -> Option<bool> {
    let first = next(rest)?;
    if first == "(" {
        let met = any_of(rest, allowed)?;
        return (next(rest)? == ")").then_some(met);
    }
    if rest.first() == Some(&"WITH") {
        next(rest);
        let exception = next(rest)?;
        return Some(allowed.contains(format!("{first} WITH {exception}").as_str()));
    }
    Some(allowed.contains(first))
}

#[test]
fn licence_expressions() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"].into();
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "Apache-2.0 AND ISC",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        "(MIT OR GPL-3.0) AND ISC",
    ] {
        assert!(permitted(good, &allowed), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "MIT WITH other-exception", "(MIT", "MIT ISC", "MIT OR", ""] {
        assert!(!permitted(bad, &allowed), "{bad}");
    }
}
