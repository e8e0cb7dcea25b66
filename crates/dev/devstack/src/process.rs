//! Processes by id and start time, signals, and commands with a deadline.
//!
//! A signal is sent only after the start time was compared. A process that was given the id of a dead one is
//! left alone.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// The pause between two polls.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// A process: its id and the moment it started, in clock ticks since boot. Unique until the machine restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process id.
    pub pid: u32,
    /// Its start time in clock ticks since boot, as in `/proc/<pid>/stat`.
    pub start_ticks: u64,
}

/// The state of a process, from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    Stopped,
    Gone,
}

impl ProcessId {
    /// The identity of the process that has this id now, if there is one.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_ticks: read_stat(pid)?.start_ticks })
    }

    /// The calling process.
    pub fn current() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether it still exists (a zombie does not).
    pub fn is_alive(self) -> bool {
        self.life() != Life::Gone
    }

    pub(crate) fn life(self) -> Life {
        match read_stat(self.pid) {
            Some(stat) if stat.start_ticks == self.start_ticks => match stat.state {
                // While other threads run, the process holds its ports and files.
                'Z' | 'X' if stat.threads <= 1 => Life::Gone,
                'T' => Life::Stopped,
                _ => Life::Running,
            },
            _ => Life::Gone,
        }
    }

    /// Sends a signal; a process that is gone is not an error.
    pub(crate) fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid as i32), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(e) => bail!("cannot send {signal} to process {}: {e}", self.pid),
        }
    }

    /// Waits until it is gone; false if it is still there at the deadline.
    pub(crate) fn wait_gone(self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        while self.is_alive() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// The fields of `/proc/<pid>/stat` that this module uses.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    threads: u32,
    start_ticks: u64,
}

fn read_stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(stat: &str) -> Option<Stat> {
    // The command's name is in parentheses and may itself contain parentheses.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        threads: fields.get(17)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// Starts a server in a process group of its own, so that a Ctrl-C in the terminal does not reach it. It has
/// no stdin. Both outputs are appended to `log`.
pub(crate) fn spawn_daemon(mut command: Command, log: &Path) -> Result<(Child, ProcessId)> {
    let out = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open log {}", log.display()))?;
    let err = out.try_clone().context("duplicate the log's handle")?;
    command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    let child = command.spawn().with_context(|| format!("run {}", command.get_program().display()))?;
    let id = ProcessId::of(child.id())
        .with_context(|| format!("process {} vanished; is /proc mounted?", child.id()))?;
    Ok((child, id))
}

/// Runs a command to its end and returns stdout. An error has the end of its output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{program}`"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!("`{program}` failed ({}):\n{}", output.status, last_lines(&format!("{stdout}{stderr}"), 30))
}

/// Like [`run`], but kills the command at the deadline. Only for short outputs.
pub(crate) fn run_within(command: &mut Command, deadline: Duration) -> Result<String> {
    let program = command.get_program().display().to_string();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{program}`"))?;
    let end = Instant::now() + deadline;
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for a command")? {
            break status;
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            bail!("no answer within {} s", deadline.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let (mut stdout, mut stderr) = (String::new(), String::new());
    if let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) {
        out.read_to_string(&mut stdout).context("read a command's output")?;
        err.read_to_string(&mut stderr).context("read a command's output")?;
    }
    if !status.success() {
        bail!("{}", last_lines(&stderr, 5));
    }
    Ok(stdout)
}

/// The last `n` lines of a text.
pub(crate) fn last_lines(text: &str, n: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(n)..].join("\n")
}

/// The last `n` lines of a file from byte `from` on; empty if it cannot be read.
pub(crate) fn tail_of(path: &Path, from: u64, n: usize) -> String {
    const AT_MOST: u64 = 256 * 1024;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let start = from.max(file.metadata()?.len().saturating_sub(AT_MOST));
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    last_lines(&String::from_utf8_lossy(&read().unwrap_or_default()), n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_parentheses_in_the_name() {
        let stat = "42 (a) b (c)) T 1 42 42 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 5 0 987654 1 2 3";
        assert_eq!(parse_stat(stat), Some(Stat { state: 'T', threads: 5, start_ticks: 987_654 }));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = ProcessId::current().unwrap();
        assert!(me.is_alive());
        let earlier = ProcessId { start_ticks: me.start_ticks - 1, ..me };
        assert!(!earlier.is_alive());
        earlier.signal(Signal::SIGKILL).unwrap(); // must not hit this very process
    }

    #[test]
    fn a_zombie_is_gone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        id.signal(Signal::SIGKILL).unwrap();
        assert!(id.wait_gone(Duration::from_secs(5)));
        child.wait().unwrap();
    }

    #[test]
    fn a_command_without_an_answer_is_killed() {
        let start = Instant::now();
        assert!(run_within(Command::new("sleep").arg("60"), Duration::from_millis(100)).is_err());
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn tails() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("", 2), "");
    }
}
