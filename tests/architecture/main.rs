//! The rules of the tree: allowed dependencies, the owners of drivers, and the names that core may use.
//!
//! Each rule is a function from data to violations. The tests of this file apply the rules to the workspace.
//! The tests beside each rule show that it can fail.

mod circles;
mod commands;
mod drivers;
mod layers;
mod names;
mod packages;
mod purity;
mod source;

use packages::Workspace;

/// Fails with all violations, one per line.
fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn packages_are_named_after_their_folders() {
    assert_none(&layers::names(&Workspace::load().packages));
}

#[test]
fn dependencies_follow_the_folders() {
    assert_none(&layers::directions(&Workspace::load().packages));
}

#[test]
fn each_driver_has_one_owner() {
    assert_none(&drivers::owners(&Workspace::load().packages));
}

#[test]
fn core_depends_on_nothing_that_does_io() {
    assert_none(&drivers::core_dependencies(&Workspace::load().packages));
}

#[test]
fn xtask_compiles_without_a_driver() {
    assert_none(&drivers::reached_by("tandem-xtask", &Workspace::load().packages));
}

#[test]
fn core_names_no_io_clock_randomness_or_environment() {
    let workspace = Workspace::load();
    let mut violations = Vec::new();
    for package in workspace.packages.iter().filter(|p| p.folder.starts_with("crates/core/")) {
        for root in package.roots.iter().filter(|r| r.is_library) {
            violations.extend(purity::impure_names(&workspace.parse(&root.file)));
        }
    }
    assert_none(&violations);
}

#[test]
fn only_the_binary_names_its_commands() {
    let workspace = Workspace::load();
    let is_library = |folder: &str| commands::LIBRARIES.iter().any(|library| folder.starts_with(library));
    let mut violations = Vec::new();
    for package in workspace.packages.iter().filter(|p| is_library(&p.folder)) {
        for root in package.roots.iter().filter(|r| r.is_library) {
            let modules = workspace.parse(&root.file).modules;
            // A module inside another file is read with that file.
            for (_, module) in modules.iter().enumerate().filter(|(index, module)| module.holder == *index) {
                let text = workspace.read(&module.file);
                violations.extend(commands::named_commands(&module.file.display().to_string(), &text));
            }
        }
    }
    assert_none(&violations);
}

#[test]
fn no_import_circles() {
    let workspace = Workspace::load();
    let mut violations = Vec::new();
    for root in workspace.packages.iter().flat_map(|p| &p.roots) {
        violations.extend(circles::import_circles(&workspace.parse(&root.file)));
    }
    assert_none(&violations);
}
