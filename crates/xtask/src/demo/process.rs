//! The `tandem` binary: built, run as a real process, killed, and asked by its command line.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value as Json;
use tokio::process::{Child, Command};

const TAIL_LINES: usize = 25;
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Finds the binary: given, named by `TANDEM_BIN`, or built now.
pub(crate) async fn binary(given: Option<&Path>) -> Result<PathBuf> {
    let named = std::env::var_os("TANDEM_BIN").filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = given.map(Path::to_path_buf).or(named) {
        if !path.is_file() {
            bail!("{} is no file: --bin and TANDEM_BIN name the tandem binary", path.display());
        }
        return std::path::absolute(&path).with_context(|| format!("resolve {}", path.display()));
    }
    build(&["--release", "-p", "tandem", "--bin", "tandem"]).await
}

/// Builds the checker.
pub(crate) async fn checker() -> Result<PathBuf> {
    build(&["-p", "tandem-tests", "--bin", "tandem-checker"]).await
}

/// Builds an executable and says where cargo put it.
async fn build(arguments: &[&str]) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .arg("build")
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(super::root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .context("run cargo build")?;
    if !built.status.success() {
        bail!("`cargo build {}` failed ({})", arguments.join(" "), built.status);
    }
    // Cargo says where it put the executable; the target folder may be anywhere.
    let messages = String::from_utf8_lossy(&built.stdout);
    let executable = messages.lines().rev().find_map(|line| {
        let message: Json = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    });
    executable.context("cargo built it, but named no executable")
}

/// `tandem run` and the other subcommands, with one configuration.
#[derive(Debug)]
pub(crate) struct Tandem {
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// The subcommand that runs for long, with its own arguments.
    role: Vec<String>,
    child: Option<Child>,
}

impl Tandem {
    /// `tandem run`, with every role that the configuration speaks of.
    pub(crate) fn new(binary: PathBuf, config: PathBuf, log: PathBuf) -> Self {
        Self { binary, config, log, role: vec!["run".to_owned()], child: None }
    }

    /// Another role alone, with its metrics where the configuration says.
    pub(crate) fn only(mut self, role: &str) -> Self {
        self.role = vec![role.to_owned()];
        self
    }

    /// Another role alone, with its metrics on this port.
    pub(crate) fn role(mut self, role: &str, metrics: u16) -> Self {
        self.role = vec![role.to_owned(), "--listen".to_owned(), format!("127.0.0.1:{metrics}")];
        self
    }

    /// The binary, to be run with any arguments.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.binary)
    }

    /// Starts it; its output goes to the log.
    pub(crate) fn start(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let mut command = self.command();
        command
            .args(&self.role)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("open the log twice")?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("run {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// An error with the end of the log if it ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if let Some(status) = child.try_wait().context("look after tandem")? {
            self.child = None;
            bail!("tandem ended by itself ({status}). {}", self.tail());
        }
        Ok(())
    }

    /// SIGKILL; returns when it is gone.
    pub(crate) async fn kill9(&mut self) -> Result<()> {
        self.check()?;
        if let Some(mut child) = self.child.take() {
            child.kill().await.context("kill tandem")?;
        }
        Ok(())
    }

    /// SIGTERM, and SIGKILL if that does not end it in time; an error if it had to be killed.
    pub(crate) async fn terminate(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id() {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).context("stop tandem")?;
        }
        if let Ok(status) = tokio::time::timeout(STOP_DEADLINE, child.wait()).await {
            status.context("wait for tandem's end")?;
            return Ok(());
        }
        child.kill().await.context("kill tandem")?;
        bail!(
            "tandem did not stop within {} s of SIGTERM and was killed. {}",
            STOP_DEADLINE.as_secs(),
            self.tail()
        )
    }

    /// Runs another subcommand to its end within `deadline` and returns what it printed on stdout.
    pub(crate) async fn cli(&self, arguments: &[&str], deadline: Duration) -> Result<String> {
        let mut command = self.command();
        command.args(arguments).arg("--config").arg(&self.config);
        output(command, &format!("tandem {}", arguments.join(" ")), deadline).await
    }

    /// `tandem status --json`.
    pub(crate) async fn status(&self) -> Result<Status> {
        let text = self.cli(&["status", "--json"], Duration::from_secs(20)).await?;
        serde_json::from_str(&text).context("`tandem status --json` printed something else than a status")
    }

    /// The end of the log, with where it is.
    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        format!("The end of its log, {}:\n{}", self.log.display(), last.join("\n"))
    }
}

/// Runs a command to its end and returns its stdout; the error has the end of its stderr.
pub(crate) async fn output(mut command: Command, name: &str, deadline: Duration) -> Result<String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let done = match tokio::time::timeout(deadline, command.output()).await {
        Ok(done) => done.with_context(|| format!("run `{name}`"))?,
        Err(_) => bail!("`{name}` did not end within {} s", deadline.as_secs()),
    };
    let stderr = String::from_utf8_lossy(&done.stderr);
    if !done.status.success() {
        let lines: Vec<&str> = stderr.lines().collect();
        bail!(
            "`{name}` failed ({}):\n{}",
            done.status,
            lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
        );
    }
    String::from_utf8(done.stdout).with_context(|| format!("`{name}` printed something that is not UTF-8"))
}

/// What `tandem status --json` says, as far as the demo looks at it.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) source: Option<Source>,
    pub(crate) tables: Vec<TableStatus>,
    pub(crate) lag: Lag,
    pub(crate) mismatches: Mismatches,
    pub(crate) ready: bool,
}

/// How far MySQL's changes are on the log.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Source {
    pub(crate) gtid_set: String,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct TableStatus {
    pub(crate) name: String,
    pub(crate) lag_records: u64,
    pub(crate) backfill: Backfill,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Backfill {
    pub(crate) rows: u64,
    pub(crate) estimated_rows: u64,
    pub(crate) done: bool,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Lag {
    pub(crate) records: Option<u64>,
    pub(crate) seconds: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Mismatches {
    pub(crate) found: u64,
    pub(crate) resolved: u64,
    pub(crate) unrepairable: u64,
    pub(crate) open: u64,
}

impl Status {
    /// Rows backfilled so far and in all.
    pub(crate) fn backfill(&self) -> (u64, u64) {
        let rows =
            |t: &TableStatus| if t.backfill.done { t.backfill.rows } else { t.backfill.estimated_rows };
        (
            self.tables.iter().map(|t| t.backfill.rows).sum(),
            self.tables.iter().map(|t| rows(t).max(t.backfill.rows)).sum(),
        )
    }

    /// Whether every table is backfilled.
    pub(crate) fn backfilled(&self) -> bool {
        !self.tables.is_empty() && self.tables.iter().all(|t| t.backfill.done)
    }

    /// Records not applied yet; unknown is not zero.
    pub(crate) fn lag(&self) -> Option<u64> {
        let tables: u64 = self.tables.iter().map(|t| t.lag_records).sum();
        self.lag.records.map(|lag| lag.max(tables))
    }

    /// The tables still being backfilled.
    pub(crate) fn unfinished(&self) -> String {
        let names = self.tables.iter().filter(|t| !t.backfill.done).map(|t| t.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let text = r#"{"source": {"gtid": "x"}, "tables": [
            {"name": "a", "topic": "t", "published": 3, "applied": 1, "lag_records": 2,
             "backfill": {"rows": 10, "estimated_rows": 7, "done": false}},
            {"name": "b", "topic": "t", "published": 0, "applied": 0, "lag_records": 0,
             "backfill": {"rows": 5, "estimated_rows": 900, "done": true}}],
            "lag": {"records": 2, "seconds": null}, "mismatches": {"found": 1, "open": 1}, "ready": true}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(status.backfill(), (15, 15));
        assert!(!status.backfilled());
        assert_eq!(status.lag(), Some(2));
        assert_eq!(status.mismatches.open, 1);
        assert_eq!(serde_json::from_str::<Status>("{}").unwrap().lag(), None);
    }

    #[tokio::test]
    async fn a_process_that_ends_by_itself_is_noticed_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut tandem = Tandem::new("/bin/echo".into(), "the-config".into(), log);
        tandem.start().unwrap();
        let error = loop {
            match tandem.check() {
                Ok(()) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.starts_with("tandem ended by itself"), "{error}");
        assert!(error.ends_with("run --config the-config"), "{error}");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_an_error() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let error = output(command, "tandem sleep", Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().starts_with("`tandem sleep` did not end within"));
    }
}
