//! The life of one server process, the same for every kind of server.
//!
//! - The state file names the last process started.
//! - Ports never change while the data is kept, with one exception: another process took one while the server
//!   was down, and the server is *started*. [`Server::restart`] never changes them.
//! - A start that fails leaves no process behind.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

use crate::cache::{make_dir, remove_dir};
use crate::ports;
use crate::process::{Life, POLL, ProcessId, spawn_daemon, tail_of};
use crate::say;
use crate::state::{self, State};

const LOG_LINES: usize = 30;
const STOP_DEADLINE: Duration = Duration::from_mins(1);
pub(crate) const KILL_DEADLINE: Duration = Duration::from_secs(20);

/// What differs between the kinds of servers.
pub(crate) trait Recipe: Send + Sync {
    /// Name for messages.
    fn name(&self) -> &'static str;
    /// How many ports it needs; the first is the one clients use.
    fn ports(&self) -> usize;
    /// Arguments beyond the built-in ones. If they change, a running server is restarted.
    fn extra_args(&self) -> &[String] {
        &[]
    }
    /// Prepares data and configuration. Called before every start.
    fn prepare(&self, dir: &Path, ports: &[u16]) -> Result<()>;
    /// The server's command.
    fn command(&self, dir: &Path, ports: &[u16]) -> Result<Command>;
    /// Asks the server in its own protocol whether it is ready.
    fn probe(&self, dir: &Path, ports: &[u16]) -> Result<()>;
    /// Removes what the server keeps outside its folder. Called while it is down.
    fn clean(&self, _dir: &Path) {}
    /// How long it may take until it is ready.
    fn deadline(&self) -> Duration;
}

/// The condition of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It answers.
    Ready,
    /// Its process lives, but does not answer (yet).
    Silent,
    /// Its process is paused.
    Paused,
    /// There is no process.
    Down,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Silent => "silent",
            Self::Paused => "paused",
            Self::Down => "down",
        })
    }
}

/// One server: a process, its folder and its ports.
///
/// All methods take `&self` and may be called from any thread. While one thread starts, stops or restarts the
/// server, the others wait.
pub struct Server {
    recipe: Box<dyn Recipe>,
    dir: PathBuf,
    inner: Mutex<Inner>,
    /// Removed on drop, after the process is killed.
    ephemeral: Option<PathBuf>,
}

struct Inner {
    state: State,
    /// Present if this process started it, and so has to reap it.
    child: Option<Child>,
    /// How that child ended.
    exit: Option<ExitStatus>,
    /// The offset in the log where the last start begins.
    log_from: u64,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name()).field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Server {
    /// The server in `dir`, by its state file; `None` if there is none.
    pub(crate) fn attach(recipe: Box<dyn Recipe>, dir: &Path) -> Result<Option<Self>> {
        Ok(State::load(dir)?.map(|state| Self::new(recipe, dir, state)))
    }

    fn new(recipe: Box<dyn Recipe>, dir: &Path, state: State) -> Self {
        let inner = Mutex::new(Inner { state, child: None, exit: None, log_from: 0 });
        Self { recipe, dir: dir.to_owned(), inner, ephemeral: None }
    }

    /// Starts the server in `dir`, or finds it running there with the same arguments.
    pub(crate) fn start(recipe: Box<dyn Recipe>, dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir).with_context(|| format!("resolve {}", dir.display()))?;
        make_dir(&dir)?;
        let state = State::load(&dir)?.unwrap_or_default();
        let server = Self::new(recipe, &dir, state);
        server.start_or_reuse()?;
        Ok(server)
    }

    /// From now on, a drop kills the process and removes `dir`.
    pub(crate) fn make_ephemeral(&mut self, dir: PathBuf) {
        self.ephemeral = Some(dir);
    }

    fn start_or_reuse(&self) -> Result<()> {
        const ATTEMPTS: u32 = 5;
        let mut inner = self.lock();
        if inner.life() != Life::Gone {
            if inner.state.extra_args == self.recipe.extra_args() {
                inner.signal(Signal::SIGCONT)?;
                return self.wait_ready(&mut inner);
            }
            self.stop_locked(&mut inner)?;
        }
        let mut attempt = 1;
        loop {
            let ports = &inner.state.ports;
            if ports.len() != self.recipe.ports() || !ports.iter().all(|&p| ports::is_free(p)) {
                inner.state.ports = ports::find_free(self.recipe.ports())?;
            }
            match self.launch(&mut inner) {
                Ok(()) => return Ok(()),
                Err(e) if attempt < ATTEMPTS && !inner.state.ports.iter().all(|&p| ports::is_free(p)) => {
                    say(&format!("{}: a port was taken meanwhile, trying others", self.name()));
                    attempt += 1;
                    drop(e);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Starts the process on the ports in the state and waits until it answers.
    fn launch(&self, inner: &mut Inner) -> Result<()> {
        let log = self.log_path();
        inner.log_from = fs::metadata(&log).map_or(0, |m| m.len());
        inner.state.extra_args = self.recipe.extra_args().to_vec();
        self.recipe.prepare(&self.dir, &inner.state.ports)?;
        let command = self.recipe.command(&self.dir, &inner.state.ports)?;
        let (child, process) = spawn_daemon(command, &log)?;
        inner.child = Some(child);
        inner.exit = None;
        inner.state.process = Some(process);
        inner.state.started_at = state::now();
        let up = inner.state.save(&self.dir).and_then(|()| self.wait_ready(inner));
        if up.is_err() {
            self.kill_locked(inner)?; // leave no half-started server behind
        }
        up
    }

    fn wait_ready(&self, inner: &mut Inner) -> Result<()> {
        let end = Instant::now() + self.recipe.deadline();
        while !self.came_up(inner, end)? {
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether it is ready. An error if it never will be, or if `end` has passed.
    fn came_up(&self, inner: &mut Inner, end: Instant) -> Result<bool> {
        if inner.life() == Life::Gone {
            let how = inner.exit.map_or_else(String::new, |status| format!(" ({status})"));
            return Err(self.with_log(inner, &format!("{} is not running{how}", self.name())));
        }
        match self.probe(inner) {
            Ok(()) => Ok(true),
            Err(_) if Instant::now() < end => Ok(false),
            Err(why) => {
                let within = self.recipe.deadline().as_secs();
                let what = format!("{} did not answer within {within} s: {why:#}", self.name());
                Err(self.with_log(inner, &what))
            }
        }
    }

    /// Whether the server answers, and is the process that was started.
    fn probe(&self, inner: &Inner) -> Result<()> {
        let port = inner.client_port();
        let ours = inner.state.process.is_some_and(|p| ports::listens(p.pid, port));
        if !ours {
            bail!("it does not listen on port {port}");
        }
        self.recipe.probe(&self.dir, &inner.state.ports)
    }

    fn with_log(&self, inner: &Inner, what: &str) -> anyhow::Error {
        let tail = tail_of(&self.log_path(), inner.log_from, LOG_LINES);
        anyhow!("{what}\n--- end of {}:\n{tail}\n---", self.log_path().display())
    }

    fn stop_locked(&self, inner: &mut Inner) -> Result<()> {
        if let Some(process) = inner.state.process {
            process.signal(Signal::SIGTERM)?;
            process.signal(Signal::SIGCONT)?; // a paused process would not see it
            if !process.wait_gone(STOP_DEADLINE) {
                let within = STOP_DEADLINE.as_secs();
                say(&format!("{} did not stop within {within} s: killing it", self.name()));
            }
        }
        self.kill_locked(inner)
    }

    fn kill_locked(&self, inner: &mut Inner) -> Result<()> {
        if let Some(process) = inner.state.process {
            process.signal(Signal::SIGKILL)?;
            if !process.wait_gone(KILL_DEADLINE) {
                bail!("{}: process {} does not die even by SIGKILL", self.name(), process.pid);
            }
        }
        inner.reap();
        self.recipe.clean(&self.dir);
        Ok(())
    }

    /// The state as it is on disk now. Another process may have restarted the server.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(Some(state)) = State::load(&self.dir) {
            inner.state = state;
        }
        inner
    }

    /// Name for messages: "MySQL", "Kafka", "Cassandra", "Debezium" or "Apicurio".
    pub fn name(&self) -> &'static str {
        self.recipe.name()
    }

    /// The folder of its data, configuration, state and log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file of its output.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// The last `n` lines of its log.
    pub fn log_tail(&self, n: usize) -> String {
        tail_of(&self.log_path(), 0, n)
    }

    /// The port clients use, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.lock().client_port()
    }

    /// All its ports. MySQL has one. Kafka: clients, controller. Cassandra: CQL, storage, JMX. Debezium:
    /// REST. Apicurio: REST, management, and TLS if it has a certificate.
    pub fn ports(&self) -> Vec<u16> {
        self.lock().state.ports.clone()
    }

    /// Its process id, if it is alive.
    pub fn pid(&self) -> Option<u32> {
        self.lock().state.process.filter(|p| p.is_alive()).map(|p| p.pid)
    }

    /// How long its process has been running, if it is alive.
    pub fn uptime(&self) -> Option<Duration> {
        let inner = self.lock();
        inner.state.process.filter(|p| p.is_alive())?;
        Some(Duration::from_secs(state::now().saturating_sub(inner.state.started_at)))
    }

    /// Whether it answers its own protocol now.
    pub fn is_ready(&self) -> bool {
        self.condition() == Condition::Ready
    }

    /// The condition it is in now.
    pub fn condition(&self) -> Condition {
        let mut inner = self.lock();
        if inner.life() == Life::Running && self.probe(&inner).is_ok() {
            return Condition::Ready;
        }
        match inner.life() {
            Life::Gone => Condition::Down,
            Life::Stopped => Condition::Paused,
            Life::Running => Condition::Silent,
        }
    }

    /// Waits until it answers, at most as long as a start may take. Other threads may pause, resume or kill
    /// it meanwhile.
    ///
    /// # Errors
    /// If its process ends, or it does not answer in time.
    pub fn wait_until_ready(&self) -> Result<()> {
        let end = Instant::now() + self.recipe.deadline();
        while !self.came_up(&mut self.lock(), end)? {
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Stops it: SIGTERM, and SIGKILL if it still runs after a minute.
    ///
    /// # Errors
    /// If the process survives SIGKILL, or may not be signalled.
    pub fn stop(&self) -> Result<()> {
        self.stop_locked(&mut self.lock())
    }

    /// Kills it with SIGKILL and returns once it is gone. The data is as the crash left it.
    ///
    /// # Errors
    /// As for [`Self::stop`].
    pub fn kill(&self) -> Result<()> {
        self.kill_locked(&mut self.lock())
    }

    /// Starts it again on the same ports and data, and returns once it answers. A running server is stopped
    /// first. Use [`Server::kill`] before for a crash.
    ///
    /// # Errors
    /// If another process has taken one of its ports, or the server does not answer in time.
    pub fn restart(&self) -> Result<()> {
        let mut inner = self.lock();
        self.stop_locked(&mut inner)?;
        if let Some(port) = inner.state.ports.iter().find(|&&p| !ports::is_free(p)) {
            bail!("{} cannot restart: port {port} was taken by another process meanwhile", self.name());
        }
        self.launch(&mut inner)
    }

    /// Freezes its process with SIGSTOP: connections stay open, but nothing answers.
    ///
    /// # Errors
    /// If it is not running, or does not stop.
    pub fn pause(&self) -> Result<()> {
        let mut inner = self.lock();
        if inner.life() == Life::Gone {
            bail!("{} is not running: there is nothing to pause", self.name());
        }
        inner.signal(Signal::SIGSTOP)?;
        let end = Instant::now() + KILL_DEADLINE;
        while inner.life() != Life::Stopped {
            if Instant::now() >= end {
                bail!("{} does not stop on SIGSTOP", self.name());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Resumes a paused process.
    ///
    /// # Errors
    /// If the process may not be signalled.
    pub fn resume(&self) -> Result<()> {
        self.lock().signal(Signal::SIGCONT)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(dir) = self.ephemeral.take() {
            let gone = self.kill().and_then(|()| remove_dir(&dir));
            if let Err(e) = gone {
                say(&format!("cannot clean up {}: {e:#}", dir.display()));
            }
        }
    }
}

impl Inner {
    fn client_port(&self) -> u16 {
        self.state.ports.first().copied().unwrap_or_default()
    }

    fn life(&mut self) -> Life {
        let life = self.state.process.map_or(Life::Gone, ProcessId::life);
        if life == Life::Gone {
            self.reap();
        }
        life
    }

    /// Takes the exit status of a child that is gone, so that no zombie stays.
    fn reap(&mut self) {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if ended.is_some() {
            self.exit = ended;
            self.child = None;
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.state.process.map_or(Ok(()), |p| p.signal(signal))
    }
}
