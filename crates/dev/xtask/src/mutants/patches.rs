//! `mutants`: breaks one rule of the product at a time and requires that a named test notices.
//!
//! A mutant is a patch in `tests/mutants`. Its head names the rule that it breaks and the test that must
//! fail:
//!
//! ```text
//! # rule: each row change has a version of its own
//! # cargo: test --package tandem-protocol --lib
//! # fails: assemble::assembler::tests::who_resumes_from_any_watermark_goes_on_as_if_nothing_had_happened
//! ```
//!
//! Patches are applied to a scratch copy, never to the working tree. A patch that no longer applies or
//! compiles is an error, because it no longer breaks its rule.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tandem_devstack::{Endpoints, Package, Stack, remove_instance};

use super::args::{self, MutantsArgs};
use crate::build::{build, cargo};
use crate::test_cmd::END_TO_END;

/// The folder of the patches, from the workspace's root.
const FOLDER: &str = "tests/mutants";
/// The servers' instance.
const INSTANCE: &str = "mutants";

/// One patch.
#[derive(Debug, PartialEq, Eq)]
struct Mutant {
    file: PathBuf,
    rule: String,
    /// The arguments of `cargo`.
    cargo: Vec<String>,
    /// The test that must fail.
    fails: String,
    /// Whether that test needs servers.
    servers: bool,
}

/// Applies the chosen patches one after the other and runs the test of each.
pub(super) fn run(root: &Path, args: &MutantsArgs) -> Result<ExitCode> {
    let mut all = read_all(&root.join(FOLDER))?;
    if let Some(only) = &args.only {
        all.retain(|m| m.name().contains(only.as_str()));
    }
    if args.without_servers {
        all.retain(|m| !m.servers);
    }
    if all.is_empty() {
        bail!("no mutant in {FOLDER} is chosen");
    }
    let servers = if all.iter().any(|m| m.servers) { Some(Servers::start()?) } else { None };
    let outcome = run_all(root, &all, servers.as_ref());
    if let Some(stack) = servers.and_then(|s| s.endpoints.stack) {
        stack.remove()?;
    }
    let survivors = outcome?;
    if survivors.is_empty() {
        println!("every mutant was killed: {}", all.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("survived: {}", survivors.join(", "));
    Ok(ExitCode::FAILURE)
}

/// What the end-to-end tests need besides the mutant.
struct Servers {
    endpoints: Endpoints,
    /// The program that compares both stores. It shares no code with the product, so it is never a mutant.
    compare: PathBuf,
}

impl Servers {
    fn start() -> Result<Self> {
        let given = Endpoints::from_env()?;
        let packages: &[Package] =
            if given.is_some() { &[] } else { &[Package::Mysql, Package::Kafka, Package::Cassandra] };
        let built = build(&["--workspace", "--bin", "tandem-compare"], packages)?;
        let compare = built.named("tandem-compare")?;
        let endpoints = if let Some(given) = given {
            given
        } else {
            remove_instance(INSTANCE)?;
            Endpoints::of(Stack::up(INSTANCE)?)
        };
        Ok(Self { endpoints, compare })
    }
}

/// Runs all of them. Returns the names of those that no test noticed.
fn run_all(root: &Path, all: &[Mutant], servers: Option<&Servers>) -> Result<Vec<String>> {
    let folder = args::folder(root);
    let copy = folder.join("src");
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| format!("empty {}", copy.display()))?;
    }
    copy_tree(root, &copy)?;
    let scratch = Scratch { root: &copy, target: folder.join("target"), servers };
    let mut proven = HashSet::new();
    let mut survivors = Vec::new();
    for mutant in all {
        // A test that fails without the mutant proves nothing.
        if proven.insert((&mutant.cargo, &mutant.fails)) && scratch.test(mutant)? != Outcome::Passed {
            bail!("{}: its test does not pass without it: {}", mutant.name(), mutant.fails);
        }
        scratch.patch(&mutant.file, false)?;
        let began = Instant::now();
        let outcome = scratch.test(mutant)?;
        scratch.patch(&mutant.file, true)?;
        let seconds = began.elapsed().as_secs();
        match outcome {
            Outcome::Failed => {
                println!("killed    {} by {} ({seconds} s): {}", mutant.name(), mutant.fails, mutant.rule);
            }
            Outcome::Passed => {
                println!("SURVIVED  {} ({seconds} s): {}", mutant.name(), mutant.rule);
                survivors.push(mutant.name());
            }
            Outcome::NotRun(why) => bail!("{}: its test was not run: {why}", mutant.name()),
        }
    }
    Ok(survivors)
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    NotRun(String),
}

/// The copy of the workspace to which mutants are applied.
struct Scratch<'a> {
    root: &'a Path,
    target: PathBuf,
    servers: Option<&'a Servers>,
}

impl Scratch<'_> {
    /// Applies a patch, or reverts it.
    fn patch(&self, file: &Path, back: bool) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let changed: Vec<PathBuf> =
            text.lines().filter_map(|l| l.strip_prefix("+++ b/")).map(|l| self.root.join(l)).collect();
        let contents = || changed.iter().map(fs::read).collect::<Result<Vec<_>, _>>();
        let before = contents().with_context(|| format!("{} no longer applies", file.display()))?;
        let mut git = Command::new("git");
        git.arg("apply").current_dir(self.root);
        if back {
            git.arg("--reverse");
        }
        // Outside of any repository: inside one, `git apply` skips paths outside of the current folder.
        git.env_remove("GIT_DIR").env("GIT_CEILING_DIRECTORIES", self.root.parent().unwrap_or(self.root));
        let done = git.arg(file).output().context("run git apply")?;
        if !done.status.success() {
            bail!("{} no longer applies: {}", file.display(), String::from_utf8_lossy(&done.stderr).trim());
        }
        if changed.is_empty() || contents()? == before {
            bail!("{} changed nothing", file.display());
        }
        Ok(())
    }

    fn test(&self, mutant: &Mutant) -> Result<Outcome> {
        let mut cargo = cargo();
        cargo.args(&mutant.cargo);
        if mutant.servers {
            cargo.args(END_TO_END);
        }
        cargo
            .args(["--", "--exact", &mutant.fails])
            .current_dir(self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null());
        if let Some(servers) = self.servers {
            cargo.envs(servers.endpoints.env()).env("TANDEM_BIN", self.target.join("debug/tandem"));
            cargo.env("TANDEM_COMPARE_BIN", &servers.compare);
        }
        if mutant.servers {
            self.build()?;
        }
        let done = cargo.output().context("run cargo test")?;
        let text =
            String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        Ok(outcome(&text, &mutant.fails))
    }

    /// Builds the binary that end-to-end tests run.
    fn build(&self) -> Result<()> {
        let built = cargo()
            .args(["build", "--quiet", "--package", "tandem"])
            .current_dir(self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .status()
            .context("run cargo build")?;
        if !built.success() {
            bail!("the mutant does not compile");
        }
        Ok(())
    }
}

/// The outcome of a test, from cargo's output.
fn outcome(text: &str, test: &str) -> Outcome {
    let failed = text.contains(&format!("test {test} ... FAILED"));
    // The output of a panic may come between the test's name and the verdict.
    let passed = text.contains(&format!("test {test} ... ok")) || text.contains("1 passed; 0 failed");
    if failed || text.contains("0 passed; 1 failed") {
        Outcome::Failed
    } else if passed {
        Outcome::Passed
    } else {
        let errors: Vec<&str> = text.lines().filter(|l| l.starts_with("error")).take(3).collect();
        Outcome::NotRun(if errors.is_empty() { "there is no such test".into() } else { errors.join("; ") })
    }
}

/// Copies the files that git tracks, as they are in the working tree.
fn copy_tree(root: &Path, to: &Path) -> Result<()> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output()
        .context("run git ls-files")?;
    if !listed.status.success() {
        bail!("`git ls-files` failed: the mutants need the workspace's repository");
    }
    for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|n| !n.is_empty()) {
        let (from, to) = (root.join(name), to.join(name));
        if !from.is_file() {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
    }
    Ok(())
}

fn read_all(folder: &Path) -> Result<Vec<Mutant>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("read {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "patch"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            parse(file, &text)
        })
        .collect()
}

fn parse(file: PathBuf, text: &str) -> Result<Mutant> {
    let head = |key: &str| {
        let mark = format!("# {key}: ");
        text.lines().find_map(|l| l.strip_prefix(&mark)).map(|l| l.trim().to_owned())
    };
    let need = |key: &str| head(key).with_context(|| format!("{} does not say `# {key}: …`", file.display()));
    let (rule, cargo, fails) = (need("rule")?, need("cargo")?, need("fails")?);
    let cargo: Vec<String> = cargo.split_whitespace().map(str::to_owned).collect();
    let servers = head("servers").is_some_and(|s| s == "yes");
    Ok(Mutant { file, rule, cargo, fails, servers })
}

impl Mutant {
    fn name(&self) -> String {
        self.file.file_stem().map_or(String::new(), |n| n.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_names_its_rule_and_its_test() {
        let all = read_all(&crate::build::root().join(FOLDER)).unwrap();
        assert!(all.len() > 10, "only {} mutants", all.len());
        let rules: HashSet<&str> = all.iter().map(|m| m.rule.as_str()).collect();
        assert_eq!(rules.len(), all.len(), "two mutants break one rule");
    }

    /// Without this test, only the next run of the mutants would show that a refactoring broke a patch.
    #[test]
    fn every_patch_applies_and_names_a_test_that_exists() {
        let root = crate::build::root();
        let mut sources = String::new();
        for folder in ["crates", "tests"] {
            for entry in walk(&root.join(folder)) {
                sources += &fs::read_to_string(entry).unwrap();
            }
        }
        for mutant in read_all(&root.join(FOLDER)).unwrap() {
            let check = Command::new("git")
                .args(["apply", "--check"])
                .arg(&mutant.file)
                .current_dir(root)
                .output()
                .unwrap();
            assert!(check.status.success(), "{}: {}", mutant.name(), String::from_utf8_lossy(&check.stderr));
            let test = mutant.fails.rsplit("::").next().unwrap_or_default();
            assert!(
                sources.contains(&format!("fn {test}(")),
                "{}: there is no test {}",
                mutant.name(),
                mutant.fails
            );
        }
    }

    /// The Rust sources in a folder.
    fn walk(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(walk(&path));
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
        found
    }

    #[test]
    fn a_head_is_read() {
        let text = "# rule: r s\n# cargo: test --lib\n# fails: a::b\n# servers: yes\n--- a/x\n";
        let mutant = parse("m.patch".into(), text).unwrap();
        assert_eq!((mutant.rule.as_str(), mutant.fails.as_str(), mutant.servers), ("r s", "a::b", true));
        assert_eq!(mutant.cargo, ["test", "--lib"]);
        assert!(parse("m.patch".into(), "# rule: r\n").is_err());
    }

    #[test]
    fn outcomes() {
        assert_eq!(outcome("test a::b ... FAILED\n", "a::b"), Outcome::Failed);
        assert_eq!(outcome("test a::b ... ok\n1 passed; 0 failed", "a::b"), Outcome::Passed);
        assert_eq!(outcome("0 passed; 0 failed", "a::b"), Outcome::NotRun("there is no such test".into()));
        let broken = outcome("error[E0308]: mismatched types\n", "a::b");
        assert_eq!(broken, Outcome::NotRun("error[E0308]: mismatched types".into()));
    }
}
