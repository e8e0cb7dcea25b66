//! The `tandem` binary as a process: started, stopped, killed, and queried with its command line.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

const TAIL_LINES: usize = 25;
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Finds the `tandem` binary: the given one, the one that `TANDEM_BIN` names, or the one beside this program.
///
/// # Errors
/// If there is no such file.
pub fn binary(given: Option<&Path>) -> Result<PathBuf> {
    let named = std::env::var_os("TANDEM_BIN").filter(|v| !v.is_empty()).map(PathBuf::from);
    let Some(path) = given.map(Path::to_path_buf).or(named) else { return beside("tandem") };
    if !path.is_file() {
        bail!("{} is no file: --bin and TANDEM_BIN name the tandem binary", path.display());
    }
    std::path::absolute(&path).with_context(|| format!("resolve {}", path.display()))
}

/// Finds a program beside this one, where cargo puts everything of one build.
///
/// # Errors
/// If there is no such file.
pub fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe().context("find this program")?.with_file_name(name);
    if !path.is_file() {
        bail!("{} is missing: start this by `cargo xtask`, which builds it", path.display());
    }
    Ok(path)
}

/// `tandem run` and the other subcommands, with one configuration.
#[derive(Debug)]
pub struct Tandem {
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// The long-running subcommand with its own arguments.
    role: Vec<String>,
    child: Option<Child>,
}

impl Tandem {
    /// `tandem run`, with every role in the configuration.
    pub fn new(binary: PathBuf, config: PathBuf, log: PathBuf) -> Self {
        Self { binary, config, log, role: vec!["run".to_owned()], child: None }
    }

    /// Another role alone, with its metrics at the configured address.
    #[must_use]
    pub fn only(mut self, role: &str) -> Self {
        self.role = vec![role.to_owned()];
        self
    }

    /// Another role alone, with its metrics on this port.
    #[must_use]
    pub fn role(mut self, role: &str, metrics: u16) -> Self {
        self.role = vec![role.to_owned(), "--listen".to_owned(), format!("127.0.0.1:{metrics}")];
        self
    }

    /// A command that runs the binary, still without arguments.
    pub fn command(&self) -> Command {
        Command::new(&self.binary)
    }

    /// Starts it. Its output goes to the log.
    ///
    /// # Errors
    /// If the log cannot be opened, or the binary cannot be run.
    pub fn start(&mut self) -> Result<()> {
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
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Checks that it still runs.
    ///
    /// # Errors
    /// If it ended by itself. The error has the end of the log.
    pub fn check(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if let Some(status) = child.try_wait().context("look after tandem")? {
            self.child = None;
            bail!("tandem ended by itself ({status}). {}", self.tail());
        }
        Ok(())
    }

    /// Kills it with SIGKILL and returns once it is gone.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub async fn kill9(&mut self) -> Result<()> {
        self.check()?;
        if let Some(mut child) = self.child.take() {
            child.kill().await.context("kill tandem")?;
        }
        Ok(())
    }

    /// Stops it with SIGTERM, or with SIGKILL if it has not stopped in time.
    ///
    /// # Errors
    /// If it had to be killed.
    pub async fn terminate(&mut self) -> Result<()> {
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

    /// Runs another subcommand to its end and returns its stdout.
    ///
    /// # Errors
    /// If it fails, or does not end within `deadline`.
    pub async fn cli(&self, arguments: &[&str], deadline: Duration) -> Result<String> {
        let mut command = self.command();
        command.args(arguments).arg("--config").arg(&self.config);
        output(command, &format!("tandem {}", arguments.join(" ")), deadline).await
    }

    /// The end of the log, with its path.
    pub fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        format!("The end of its log, {}:\n{}", self.log.display(), last.join("\n"))
    }
}

/// Runs a command to its end and returns its stdout.
///
/// # Errors
/// If it fails, or does not end within `deadline`. The error has the end of its stderr.
pub async fn output(mut command: Command, name: &str, deadline: Duration) -> Result<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
