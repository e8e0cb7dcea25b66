//! `mutants --generated`: the changes that `cargo-mutants` makes to the pure crates, in addition to the
//! patches that break a rule on purpose.
//!
//! Each change must make a test of its own crate fail. A change that no test notices is listed in
//! `tests/mutants/survivors.txt` with the reason, by file and change, without the line:
//!
//! ```text
//! # equal cells: either may be kept
//! crates/core/mapping/src/fold.rs: replace < with <= in merge
//! ```
//!
//! A survivor that is not listed is an error. So is a listed one that a test now notices, or that does not
//! exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::build::cargo;

/// The accepted survivors, from the workspace's root.
const LISTED: &str = "tests/mutants/survivors.txt";

/// The mutated packages: name, folder, and the files that decide without I/O. No files means all of them.
const PURE: &[(&str, &str, &[&str])] = &[
    ("tandem-model", "crates/core/model", &[]),
    ("tandem-wire", "crates/core/wire", &[]),
    ("tandem-mapping", "crates/core/mapping", &[]),
    ("tandem-protocol", "crates/core/protocol", &[]),
    ("tandem-verify", "crates/roles/verify", &["crates/roles/verify/src/pending.rs"]),
    ("tandem-controller", "crates/roles/controller", &["crates/roles/controller/src/measure/window.rs"]),
];

/// The least time in seconds after which a test run counts as hanging. Without mutants all take less than 20.
const TIMEOUT_SECONDS: &str = "120";

/// The cases of each property test. More cases find no further mutants, and cost time with each mutant.
const CASES: &str = "60";

/// Mutates the chosen packages, or all pure ones. `only` restricts it to the changes that match the
/// expression.
pub(super) fn run(root: &Path, packages: &[String], only: Option<&str>, jobs: u8) -> Result<ExitCode> {
    let chosen: Vec<_> =
        PURE.iter().filter(|(p, ..)| packages.is_empty() || packages.iter().any(|n| names(n, p))).collect();
    if let Some(unknown) = packages.iter().find(|n| !PURE.iter().any(|(p, ..)| names(n, p))) {
        let known: Vec<&str> = PURE.iter().map(|(p, ..)| *p).collect();
        bail!("{unknown} is not a package that is mutated; those are {}", known.join(", "));
    }
    let listed = fs::read_to_string(root.join(LISTED)).with_context(|| format!("read {LISTED}"))?;
    let listed = read_list(&listed)?;
    let mut problems = Vec::new();
    for (package, folder, files) in chosen {
        let outcome = mutate(root, package, files, only, jobs)?;
        println!("{package}: {} noticed, {} survived", outcome.noticed.len(), outcome.survived.len());
        problems.extend(judge(&outcome, &listed, folder, files, only.is_none()));
    }
    if problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for problem in &problems {
        println!("{problem}");
    }
    Ok(ExitCode::FAILURE)
}

/// Whether `given` names the package, with or without the common prefix.
fn names(given: &str, package: &str) -> bool {
    package == given || package.strip_prefix("tandem-") == Some(given)
}

/// The result of a package's mutants, each as `file: change`.
#[derive(Debug, Default)]
struct Outcome {
    noticed: BTreeSet<String>,
    survived: BTreeSet<String>,
}

fn mutate(root: &Path, package: &str, files: &[&str], only: Option<&str>, jobs: u8) -> Result<Outcome> {
    let folder = super::args::folder(root).join(package);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let mut cargo = cargo();
    cargo
        .args(["mutants", "--package", package, "--minimum-test-timeout", TIMEOUT_SECONDS])
        .args(["--cap-lints", "true", "--colors", "never", "--jobs", &jobs.to_string(), "--output"])
        .arg(&folder)
        // Each mutant builds a crate. Without debug information and optimisation, and with few cases per
        // property test, this is faster.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .args(["--cargo-arg", &format!("--config=profile.dev.package.{package}.opt-level=0")])
        .env("PROPTEST_CASES", CASES)
        .env_remove("CARGO_TARGET_DIR")
        .env("RUST_BACKTRACE", "0")
        .current_dir(root);
    for file in files {
        cargo.args(["--file", file]);
    }
    if let Some(only) = only {
        cargo.args(["--re", only]);
    }
    let status = cargo.args(["--", "--locked"]).status().context("run cargo mutants")?;
    let results = folder.join("mutants.out");
    // 2: some survived; 3: some timed out, which counts as noticed. Any other status means that nothing was
    // measured: the command is missing, or tests fail without any change.
    if !matches!(status.code(), Some(0 | 2 | 3)) {
        bail!("cargo mutants did not run ({status}): `cargo install cargo-mutants --locked`, or see above");
    }
    let read = |name: &str| {
        let path = results.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let mut outcome = Outcome::default();
    for name in ["caught.txt", "timeout.txt", "unviable.txt"] {
        outcome.noticed.extend(read(name)?.lines().map(without_place));
    }
    outcome.survived.extend(read("missed.txt")?.lines().map(without_place));
    Ok(outcome)
}

/// `file:line:column: change` without the line and the column, which change often.
fn without_place(line: &str) -> String {
    let mut parts = line.splitn(4, ':');
    match (parts.next(), parts.nth(2)) {
        (Some(file), Some(change)) => format!("{file}:{change}"),
        _ => line.to_owned(),
    }
}

/// The problems of an outcome, given the listed survivors.
fn judge(
    outcome: &Outcome,
    listed: &BTreeSet<String>,
    folder: &str,
    files: &[&str],
    whole: bool,
) -> Vec<String> {
    let mut problems: Vec<String> =
        outcome.survived.difference(listed).map(|m| format!("SURVIVED  {m}")).collect();
    let folder = format!("{folder}/");
    let here = |m: &&String| {
        m.starts_with(&folder) && (files.is_empty() || files.iter().any(|f| m.starts_with(&format!("{f}:"))))
    };
    if whole {
        let stale = listed.iter().filter(here).filter(|m| !outcome.survived.contains(*m));
        problems.extend(stale.map(|m| format!("listed in {LISTED} and no survivor: {m}")));
    }
    problems
}

/// The listed survivors. Each needs a comment with the reason above it.
fn read_list(text: &str) -> Result<BTreeSet<String>> {
    let mut reason = false;
    let mut listed = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() {
            reason = false;
        } else if line.starts_with('#') {
            reason = true;
        } else if !reason {
            bail!("{LISTED}: no reason is given above `{line}`");
        } else if !listed.insert(line.to_owned()) {
            bail!("{LISTED}: `{line}` is there twice");
        }
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_out() {
        let line = "crates/a/src/b.rs:12:5: replace a::b -> c with d";
        assert_eq!(without_place(line), "crates/a/src/b.rs: replace a::b -> c with d");
    }

    #[test]
    fn a_survivor_needs_a_reason() {
        assert!(read_list("a: b\n").is_err());
        assert!(read_list("# why\na: b\n\nc: d\n").is_err());
        assert!(read_list("# why\na: b\na: b\n").is_err());
        assert_eq!(read_list("# why\na: b\nc: d\n").unwrap().len(), 2);
    }

    #[test]
    fn unlisted_survivors_and_stale_listings_are_reported() {
        let outcome =
            Outcome { noticed: BTreeSet::new(), survived: ["crates/x/src/a.rs: new".into()].into() };
        let listed: BTreeSet<String> =
            ["crates/x/src/a.rs: old".to_owned(), "crates/y/src/a.rs: other".to_owned()].into();
        assert_eq!(judge(&outcome, &listed, "crates/x", &[], true).len(), 2);
        assert_eq!(judge(&outcome, &listed, "crates/x", &[], false).len(), 1);
        assert_eq!(judge(&outcome, &listed, "crates/x", &["crates/x/src/b.rs"], true).len(), 1);
    }

    #[test]
    fn the_list_of_this_project_is_well_formed_and_names_files_that_exist() {
        let root = crate::build::root();
        let listed = read_list(&fs::read_to_string(root.join(LISTED)).unwrap()).unwrap();
        for mutant in &listed {
            let (file, _) = mutant.split_once(": ").unwrap();
            assert!(root.join(file).is_file(), "{file} of {LISTED} does not exist");
        }
        for (package, folder, files) in PURE {
            assert!(root.join(folder).join("Cargo.toml").is_file(), "{package} is not in {folder}");
            for file in *files {
                assert!(root.join(file).is_file(), "{file} of {package} does not exist");
            }
        }
    }
}
