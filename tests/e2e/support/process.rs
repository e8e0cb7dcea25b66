//! The `tandem` binary and other programs, as real processes.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::{MINUTE, Probe, eventually};

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end, within a minute.
pub(crate) async fn finish(command: Command) -> anyhow::Result<Finished> {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let Output { status, stdout, stderr } = tokio::time::timeout(MINUTE, command.output()).await??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Finished { success: status.success(), stdout: text(stdout), stderr: text(stderr) })
}

/// A process under test, killed on drop.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a command whose log goes to a file.
    pub(crate) fn of(mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let child = command.stdout(Stdio::null()).stderr(file).spawn()?;
        Ok(Self { child, log })
    }

    /// Sends a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        anyhow::ensure!(Command::new("kill").args([&format!("-{name}"), &pid]).status()?.success());
        Ok(())
    }

    /// Returns an error with the end of its log if it has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("tandem ended by itself ({status}): {}", self.tail()),
        }
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.check()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it with SIGTERM and waits for its end, which must be a success.
    pub(crate) async fn terminate(mut self) -> anyhow::Result<()> {
        self.signal("TERM")?;
        let status = eventually("the process to end after SIGTERM", Duration::from_secs(30), async || {
            Ok(Probe::some(self.child.try_wait()?, self.tail()))
        })
        .await?;
        anyhow::ensure!(status.success(), "tandem ended with {status}: {}", self.tail());
        Ok(())
    }

    /// Waits until it has ended by itself, and returns its log.
    pub(crate) async fn until_ended(&mut self) -> anyhow::Result<String> {
        eventually("the process to end by itself", MINUTE, async || {
            Ok(Probe::some(self.child.try_wait()?, self.tail()))
        })
        .await?;
        Ok(self.log())
    }

    /// Waits until roles of it have ended and are to be started again, for more than the `before`th time. Returns its log.
    pub(crate) async fn until_role_down(&mut self, before: usize) -> anyhow::Result<String> {
        self.until_logged("ended, and is started again", before).await?;
        Ok(self.log())
    }

    /// Waits until this text is in its log more than `before` times. Returns how long that took.
    pub(crate) async fn until_logged(&mut self, text: &str, before: usize) -> anyhow::Result<Duration> {
        let began = Instant::now();
        eventually(&format!("the log to say {text:?}"), MINUTE, async || {
            let logged = self.logged(text) > before;
            if !logged {
                self.check()?;
            }
            Ok(Probe::when(logged, self.tail()))
        })
        .await?;
        Ok(began.elapsed())
    }

    /// How many times this text is in its log.
    pub(crate) fn logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// The peak of its resident memory so far, in MiB.
    pub(crate) fn peak_rss_mb(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        Ok(peak.ok_or_else(|| anyhow::anyhow!("no VmHWM"))?.trim().parse::<u64>()? / 1024)
    }

    /// The CPU time that it has used so far, in user and in kernel mode.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name of the command, in parentheses, may contain spaces. The times are the 14th and the 15th field.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks: Vec<u64> = fields.skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
        // Linux counts in hundredths of a second.
        Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of the log.
    pub(crate) fn tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The ports of its metrics, and those of all other processes with the same log file.
    pub(crate) fn metrics_ports(&self) -> Vec<u16> {
        let log = self.log();
        let serving = log.lines().filter(|line| line.contains("serving /metrics"));
        serving.filter_map(|line| line.rsplit_once(':')?.1.trim().parse().ok()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
