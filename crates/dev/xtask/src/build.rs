//! One cargo command that builds everything a command needs, while servers are downloaded.
//!
//! Cargo's progress stays on the terminal. A first run takes as long as the longer of the two, not as both.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tandem_devstack::{Package, fetch};

/// The pause between two polls of cargo and the downloads.
const EVERY: Duration = Duration::from_millis(50);

/// The executables of a build.
#[derive(Debug)]
pub(crate) struct Executables(Vec<(String, PathBuf)>);

impl Executables {
    /// The executable of a binary or a bench.
    pub(crate) fn named(&self, name: &str) -> Result<PathBuf> {
        let found = self.0.iter().find(|(of, _)| of == name);
        found
            .map(|(_, path)| path.clone())
            .with_context(|| format!("cargo built {name}, but named no executable"))
    }
}

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.."))
}

/// The cargo that started this program.
pub(crate) fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(root());
    // `cargo run` describes this package in the environment. Some build scripts read that, and would run
    // again whenever the next build is a plain `cargo build`.
    for (name, _) in std::env::vars_os() {
        let described = |text: &str| text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(described) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `cargo build` with these arguments while these servers are downloaded.
///
/// A failed download ends the build, because the programs could not run without the servers.
pub(crate) fn build(arguments: &[&str], packages: &[Package]) -> Result<Executables> {
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| fetch(packages));
        let mut cargo = cargo();
        cargo.arg("build").args(arguments).arg("--message-format=json-render-diagnostics");
        let mut child =
            cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("run cargo build")?;
        let mut stdout = child.stdout.take().context("cargo has no output")?;
        let reading = scope.spawn(move || {
            let mut messages = Vec::new();
            stdout.read_to_end(&mut messages).map(|_| messages)
        });
        let (status, fetching) = wait(&mut child, fetching)?;
        if !status.success() {
            bail!("`cargo build {}` failed ({status})", arguments.join(" "));
        }
        if let Some(fetching) = fetching {
            if !fetching.is_finished() {
                eprintln!("built; waiting for the downloads");
            }
            joined(fetching)?;
        }
        let messages = reading.join().ok().context("the reader of cargo's messages panicked")?;
        Ok(executables(&String::from_utf8_lossy(&messages.context("read cargo's messages")?)))
    })
}

/// Waits for cargo. Returns the downloads if they still run.
fn wait<'scope>(
    child: &mut Child,
    fetching: ScopedJoinHandle<'scope, Result<()>>,
) -> Result<(ExitStatus, Option<ScopedJoinHandle<'scope, Result<()>>>)> {
    let mut fetching = Some(fetching);
    loop {
        if let Some(status) = child.try_wait().context("wait for cargo build")? {
            return Ok((status, fetching));
        }
        if let Some(Err(error)) = fetching.take_if(|f| f.is_finished()).map(joined) {
            let _ = child.kill(); // it may have ended meanwhile
            let _ = child.wait();
            return Err(error);
        }
        std::thread::sleep(EVERY);
    }
}

fn joined(fetching: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    fetching.join().ok().context("a download panicked")?.context("download the servers")
}

/// The executables in cargo's JSON messages, except unit tests.
fn executables(messages: &str) -> Executables {
    let artifact = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        if message["profile"]["test"] == true && message["target"]["kind"][0] != "bench" {
            return None;
        }
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, message["executable"].as_str()?.into()))
    };
    Executables(messages.lines().filter_map(artifact).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}
{"reason":"compiler-artifact","target":{"name":"tandem"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"tandem","kind":["bin"]},"profile":{"test":true},"executable":"/t/tests"}
{"reason":"compiler-artifact","target":{"name":"tandem","kind":["bin"]},"profile":{"test":false},"executable":"/t/tandem"}
{"reason":"compiler-artifact","target":{"name":"decode","kind":["bench"]},"profile":{"test":true},"executable":"/t/decode"}
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(found.named("tandem").unwrap(), PathBuf::from("/t/tandem"));
        assert_eq!(found.named("decode").unwrap(), PathBuf::from("/t/decode"));
        assert!(found.named("none").is_err());
    }
}
