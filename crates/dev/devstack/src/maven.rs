//! Fetches jars and archives with Maven's dependency plugin and the machine's own Maven settings (mirror,
//! proxy).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::with_lock;
use crate::process::run;
use crate::{say, tools};

/// A Maven artifact: group, name and version.
pub(crate) type Artifact = (&'static str, &'static str, &'static str);

/// Puts the artifacts and all their dependencies into `dir/libs`.
pub(crate) fn fetch_jars(dir: &Path, what: &str, artifacts: &[Artifact]) -> Result<()> {
    fs::write(dir.join("pom.xml"), pom(artifacts)).context("write a pom.xml")?;
    let goal = ["dependency:copy-dependencies", "-DoutputDirectory=libs", "-DincludeScope=runtime"];
    fetch(dir, what, &goal)?;
    let jars = fs::read_dir(dir.join("libs")).context("list the fetched jars")?.count();
    say(&format!("fetched {what}: {jars} jars"));
    Ok(())
}

/// Unpacks an artifact that is an archive of this type and classifier into `dir`.
pub(crate) fn fetch_archive(
    dir: &Path,
    what: &str,
    (group, name, version): Artifact,
    kind: &str,
    classifier: &str,
) -> Result<()> {
    let artifact = format!("-Dartifact={group}:{name}:{version}:{kind}:{classifier}");
    fetch(dir, what, &["dependency:unpack", &artifact, &format!("-DoutputDirectory={}", dir.display())])
}

/// Runs a goal in `dir`.
fn fetch(dir: &Path, what: &str, goal: &[&str]) -> Result<()> {
    const ATTEMPTS: u32 = 3;
    tools::java17()?; // before Maven, whose package would install a Java of its own choice
    tools::maven()?;
    // Two Mavens at the same time may corrupt each other's downloads in the local repository.
    let lock = dir.with_file_name(".maven.lock");
    with_lock(&lock, "using Maven", || {
        say(&format!("fetching {what} with Maven ..."));
        let mut attempt = 1;
        loop {
            match run(Command::new("mvn").args(["-q", "-B"]).args(goal).current_dir(dir)) {
                Ok(_) => return Ok(()),
                Err(e) if attempt < ATTEMPTS => {
                    say(&format!("Maven failed, trying again: {}", e.root_cause()));
                    attempt += 1;
                }
                Err(e) => {
                    return Err(e).context(
                        "Maven cannot fetch it: check the network and the mirror or proxy in \
                         ~/.m2/settings.xml",
                    );
                }
            }
        }
    })
}

fn pom(artifacts: &[Artifact]) -> String {
    let dependencies: Vec<String> = artifacts
        .iter()
        .map(|(group, name, version)| {
            format!(
                "<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>\
                 <version>{version}</version></dependency>"
            )
        })
        .collect();
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>tandem</groupId>\
         <artifactId>devstack</artifactId><version>1</version>\n\
         <dependencies>\n{}\n</dependencies></project>\n",
        dependencies.join("\n")
    )
}
