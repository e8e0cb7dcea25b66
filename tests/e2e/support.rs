//! A migration of one test's own: a database, a keyspace, a prefix, a folder with a `tandem.toml`,
//! and the `tandem` binary as a real process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use serde_json::Value as Json;
use tandem_kafka::KafkaConfig;
use tandem_model::GtidSet;

/// Where the servers are.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) mysql_url: String,
    pub(crate) brokers: String,
    pub(crate) nodes: String,
}

impl Servers {
    /// `None` (and the test is skipped) without servers or without a binary.
    pub(crate) fn from_env() -> Option<Self> {
        let get = |name: &str| {
            let value = std::env::var(name).ok();
            if value.is_none() {
                eprintln!("skipped: {name} is not set");
            }
            value
        };
        get("TANDEM_BIN")?;
        Some(Self {
            mysql_url: get("TANDEM_MYSQL_URL")?,
            brokers: get("TANDEM_KAFKA_BROKERS")?,
            nodes: get("TANDEM_CASSANDRA_NODES")?,
        })
    }
}

/// One test's migration.
pub(crate) struct Migration {
    pub(crate) servers: Servers,
    pub(crate) database: String,
    pub(crate) keyspace: String,
    pub(crate) prefix: String,
    pub(crate) mysql: mysql_async::Conn,
    pub(crate) folder: tempfile::TempDir,
}

impl Migration {
    /// Creates the database and fills it by `statements`, which run in it.
    pub(crate) async fn new(servers: Servers, test: &str, statements: &[&str]) -> anyhow::Result<Self> {
        let id = rand::random::<u32>();
        let database = format!("{test}_{id:08x}");
        let mut mysql = mysql_async::Conn::from_url(&servers.mysql_url).await?;
        mysql.query_drop(format!("CREATE DATABASE {database}")).await?;
        mysql.query_drop(format!("USE {database}")).await?;
        for statement in statements {
            mysql.query_drop(*statement).await?;
        }
        let keyspace = format!("e2e_{test}_{id:08x}");
        let prefix = format!("e2e-{test}-{id:08x}");
        Ok(Self { servers, database, keyspace, prefix, mysql, folder: tempfile::tempdir()? })
    }

    /// Writes `tandem.toml`: the servers, then `mapping`, in which `{db}` is the database. Anything in
    /// `extra` comes first.
    pub(crate) fn configure(&self, extra: &str, mapping: &str) -> anyhow::Result<()> {
        let nodes: Vec<String> = self.servers.nodes.split(',').map(|n| format!("{n:?}")).collect();
        let text = format!(
            "{extra}\n[mysql]\nurl = {:?}\n[kafka]\nbrokers = {:?}\nprefix = {:?}\npartitions = 3\n[cassandra]\nnodes = \
             [{}]\nkeyspace = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n{}",
            self.servers.mysql_url,
            self.servers.brokers,
            self.prefix,
            nodes.join(", "),
            self.keyspace,
            mapping.replace("{db}", &self.database)
        );
        Ok(std::fs::write(self.config(), text)?)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("tandem.toml")
    }

    pub(crate) fn kafka(&self) -> KafkaConfig {
        KafkaConfig::new(&self.servers.brokers, &self.prefix)
    }

    /// A command of the binary, with the configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        Self::command_with(&self.config(), arguments)
    }

    /// The same with another configuration.
    pub(crate) fn command_with(config: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("TANDEM_BIN").expect("from_env has looked"));
        command.args(arguments).arg("--config").arg(config).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, within a minute.
    pub(crate) async fn tandem(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        finish(self.command(arguments)).await
    }

    /// The same, which must succeed.
    pub(crate) async fn succeed(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let done = self.tandem(arguments).await?;
        anyhow::ensure!(done.success, "tandem {arguments:?} failed: {}", done.stderr);
        Ok(done.stdout)
    }

    /// Starts a long-lived command.
    pub(crate) fn start(&self, arguments: &[&str]) -> anyhow::Result<Running> {
        Running::of(self.command(arguments), self.folder.path().join("tandem.log"))
    }

    pub(crate) async fn status(&self) -> anyhow::Result<Json> {
        Ok(serde_json::from_str(&self.succeed(&["status", "--json"]).await?)?)
    }

    /// Polls the status until it is so; ends with an error when the process does, or after a minute.
    pub(crate) async fn until(
        &self,
        running: &mut Running,
        what: &str,
        so: impl Fn(&Json) -> bool,
    ) -> anyhow::Result<Json> {
        let began = Instant::now();
        loop {
            running.check()?;
            let status = self.status().await?;
            if so(&status) {
                return Ok(status);
            }
            anyhow::ensure!(
                began.elapsed() < Duration::from_mins(1),
                "not within a minute: {what}; {status:#}; {}",
                running.tail()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until everything that MySQL has committed by now is in Cassandra, backfill included.
    pub(crate) async fn drained(&mut self, running: &mut Running) -> anyhow::Result<Json> {
        let executed = self.executed().await?;
        self.until(running, "everything to be applied", |status| {
            let captured = status["source"]["gtid_set"].as_str().and_then(|g| g.parse::<GtidSet>().ok());
            let tables = status["tables"].as_array().map_or(&[][..], Vec::as_slice);
            captured.is_some_and(|c| executed.is_subset(&c))
                && status["lag"]["records"] == 0
                && tables.iter().all(|t| t["backfill"]["done"] == true)
        })
        .await
    }

    pub(crate) async fn executed(&mut self) -> anyhow::Result<GtidSet> {
        let text: Option<String> = self.mysql.query_first("SELECT @@GLOBAL.gtid_executed").await?;
        text.unwrap_or_default().parse().map_err(|e| anyhow::anyhow!("gtid_executed: {e}"))
    }

    pub(crate) async fn cassandra(&self) -> anyhow::Result<Session> {
        let session = session(&self.servers).await?;
        session.use_keyspace(&self.keyspace, true).await?;
        Ok(session)
    }

    pub(crate) async fn drop(mut self) -> anyhow::Result<()> {
        self.mysql.query_drop(format!("DROP DATABASE {}", self.database)).await?;
        let session = session(&self.servers).await?;
        session.query_unpaged(format!("DROP KEYSPACE IF EXISTS \"{}\"", self.keyspace), ()).await?;
        Ok(())
    }
}

/// A session without a keyspace.
pub(crate) async fn session(servers: &Servers) -> anyhow::Result<Session> {
    Ok(SessionBuilder::new().known_nodes(servers.nodes.split(',')).build().await?)
}

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
    let Output { status, stdout, stderr } =
        tokio::time::timeout(Duration::from_mins(1), command.output()).await??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Finished { success: status.success(), stdout: text(stdout), stderr: text(stderr) })
}

/// Polls `/readyz` until it says so, within a minute.
pub(crate) async fn ready(address: &str, words: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let url = format!("http://{address}/readyz");
        let said = tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            agent.get(&url).call().and_then(|mut answer| answer.body_mut().read_to_string())
        })
        .await?;
        if said.as_ref().is_ok_and(|text| text.contains(words)) {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < Duration::from_mins(1), "{words:?} is not what it says: {said:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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

    /// An error with the end of its log if it has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("tandem ended by itself ({status}): {}", self.tail()),
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.check()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for its end, which must be a good one.
    pub(crate) async fn terminate(mut self) -> anyhow::Result<()> {
        self.signal("TERM")?;
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::ensure!(status.success(), "tandem ended with {status}: {}", self.tail());
                return Ok(());
            }
            anyhow::ensure!(
                began.elapsed() < Duration::from_secs(30),
                "SIGTERM did not end it: {}",
                self.tail()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The most memory that it has had resident so far, in MiB.
    pub(crate) fn peak_rss_mb(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        Ok(peak.ok_or_else(|| anyhow::anyhow!("no VmHWM"))?.trim().parse::<u64>()? / 1024)
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
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
