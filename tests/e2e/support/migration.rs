//! A migration for one test: a database, a keyspace, a prefix, a folder with a `tandem.toml`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use serde_json::Value as Json;
use tandem_kafka::KafkaConfig;
use tandem_model::{GtidSet, TableName};
use tandem_mysql::MysqlConfig;
use tandem_wire::log::Topics;

use super::{
    Finished, MINUTE, Probe, Running, Servers, TANDEM_BIN, connect, eventually, executed, finish,
    random_server_id, required, unique_id,
};

/// The time between two commands that ask for the status. Each is a process with connections of its own.
const BETWEEN_COMMANDS: Duration = Duration::from_millis(100);

/// One test's migration.
pub(crate) struct Migration {
    pub(crate) servers: Servers,
    pub(crate) database: String,
    pub(crate) keyspace: String,
    pub(crate) prefix: String,
    pub(crate) mysql: mysql_async::Conn,
    pub(crate) folder: tempfile::TempDir,
    /// The tables with topics of their own.
    pub(crate) own_topics: Arc<BTreeSet<TableName>>,
}

impl Migration {
    /// Creates the database and runs `statements` in it.
    pub(crate) async fn new(servers: Servers, test: &str, statements: &[&str]) -> anyhow::Result<Self> {
        let id = unique_id();
        let database = format!("{test}_{id}");
        let mut mysql = mysql_async::Conn::from_url(&servers.mysql_url).await?;
        mysql.query_drop(format!("CREATE DATABASE {database}")).await?;
        mysql.query_drop(format!("USE {database}")).await?;
        for statement in statements {
            mysql.query_drop(*statement).await?;
        }
        let keyspace = format!("e2e_{test}_{id}");
        let prefix = format!("e2e-{test}-{id}");
        let (folder, own_topics) = (tempfile::tempdir()?, Arc::default());
        Ok(Self { servers, database, keyspace, prefix, mysql, folder, own_topics })
    }

    /// Writes `tandem.toml`: `extra`, then the servers, then `mapping`, in which `{db}` stands for the
    /// database.
    pub(crate) fn configure(&self, extra: &str, mapping: &str) -> anyhow::Result<()> {
        let text = format!(
            "{extra}\n[mysql]\nurl = {:?}\n[kafka]\nbrokers = {:?}\nprefix = {:?}\npartitions = 3\n[cassandra]\nnodes = \
             {:?}\nkeyspace = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n{}",
            self.servers.mysql_url,
            self.servers.brokers,
            self.prefix,
            self.servers.nodes,
            self.keyspace,
            mapping.replace("{db}", &self.database)
        );
        Ok(std::fs::write(self.config(), text)?)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("tandem.toml")
    }

    /// The path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in the folder, for example a secret.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Writes `<name>.toml`: `section`, then the contents of `tandem.toml` after `edit`.
    pub(crate) fn configure_as(
        &self,
        name: &str,
        section: &str,
        edit: impl Fn(String) -> String,
    ) -> anyhow::Result<PathBuf> {
        let common = edit(std::fs::read_to_string(self.config())?);
        self.write(&format!("{name}.toml"), format!("{section}{common}"))
    }

    pub(crate) fn kafka(&self) -> KafkaConfig {
        let own_topics = Arc::clone(&self.own_topics);
        KafkaConfig { own_topics, ..KafkaConfig::new(&self.servers.brokers, &self.prefix) }
    }

    pub(crate) fn mysql_config(&self) -> MysqlConfig {
        MysqlConfig::new(&self.servers.mysql_url, random_server_id())
    }

    pub(crate) fn topics(&self) -> Topics {
        self.kafka().topics()
    }

    pub(crate) fn table(&self, name: &str) -> TableName {
        TableName::new(&self.database, name)
    }

    /// A command of the binary with the configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        Self::command_with(&self.config(), arguments)
    }

    /// The same, with another configuration.
    pub(crate) fn command_with(config: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(required(TANDEM_BIN));
        command.args(arguments).arg("--config").arg(config).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, within a minute.
    pub(crate) async fn tandem(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        finish(self.command(arguments)).await
    }

    /// Runs a command that must succeed.
    pub(crate) async fn succeed(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let done = self.tandem(arguments).await?;
        anyhow::ensure!(done.success, "tandem {arguments:?} failed: {}", done.stderr);
        Ok(done.stdout)
    }

    /// Runs a command that prints JSON and must succeed.
    pub(crate) async fn json(&self, arguments: &[&str]) -> anyhow::Result<Json> {
        Ok(serde_json::from_str(&self.succeed(arguments).await?)?)
    }

    /// Starts a long-running command, which logs to `tandem.log`.
    pub(crate) fn start(&self, arguments: &[&str]) -> anyhow::Result<Running> {
        Running::of(self.command(arguments), self.path("tandem.log"))
    }

    /// Starts a long-running command with a log of its own, `<name>.log`.
    pub(crate) fn start_as(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Running> {
        self.start_with(&self.config(), name, arguments)
    }

    /// The same, with another configuration.
    pub(crate) fn start_with(
        &self,
        config: &Path,
        name: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Running> {
        Running::of(Self::command_with(config, arguments), self.path(&format!("{name}.log")))
    }

    pub(crate) async fn status(&self) -> anyhow::Result<Json> {
        self.json(&["status", "--json"]).await
    }

    /// Waits until the status meets the condition. An error if the process ends.
    pub(crate) async fn until(
        &self,
        running: &mut Running,
        event: &str,
        so: impl Fn(&Json) -> bool,
    ) -> anyhow::Result<Json> {
        eventually(event, MINUTE, async || {
            running.check()?;
            let status = self.status().await?;
            if so(&status) {
                return Ok(Probe::Done(status));
            }
            tokio::time::sleep(BETWEEN_COMMANDS).await;
            Ok(Probe::Pending(format!("{status:#}; {}", running.tail())))
        })
        .await
    }

    /// Waits until the log has begun.
    pub(crate) async fn until_first_watermark(&self, capture: &mut Running) -> anyhow::Result<()> {
        self.until(capture, "the first watermark", |status| status["source"].is_object()).await.map(drop)
    }

    /// Waits until everything that MySQL has committed so far is on the log.
    pub(crate) async fn until_captured(&mut self, running: &mut Running) -> anyhow::Result<Json> {
        let executed = self.executed().await?;
        self.until(running, "everything to be captured", |status| captured(status, &executed)).await
    }

    /// Waits until everything that MySQL has committed so far is in Cassandra, backfill included.
    pub(crate) async fn drained(&mut self, running: &mut Running) -> anyhow::Result<Json> {
        let executed = self.executed().await?;
        self.until(running, "everything to be applied", |status| {
            let tables = status["tables"].as_array().map_or(&[][..], Vec::as_slice);
            captured(status, &executed)
                && status["lag"]["records"] == 0
                && tables.iter().all(|t| t["backfill"]["done"] == true)
        })
        .await
    }

    /// The GTIDs that MySQL has executed.
    pub(crate) async fn executed(&mut self) -> anyhow::Result<GtidSet> {
        executed(&mut self.mysql).await
    }

    /// Another session in the database.
    pub(crate) async fn session(&self) -> anyhow::Result<mysql_async::Conn> {
        connect(&self.servers.mysql_url, &self.database).await
    }

    /// A session in the keyspace.
    pub(crate) async fn cassandra(&self) -> anyhow::Result<Session> {
        let session = self.cassandra_without_keyspace().await?;
        session.use_keyspace(&self.keyspace, true).await?;
        Ok(session)
    }

    /// Creates the keyspace, which `tandem schema create` otherwise does. Returns a session in it.
    pub(crate) async fn create_keyspace(&self) -> anyhow::Result<Session> {
        let create = format!(
            "CREATE KEYSPACE \"{}\" WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}",
            self.keyspace
        );
        self.cassandra_without_keyspace().await?.query_unpaged(create, ()).await?;
        self.cassandra().await
    }

    async fn cassandra_without_keyspace(&self) -> anyhow::Result<Session> {
        Ok(SessionBuilder::new().known_nodes(&self.servers.nodes).build().await?)
    }

    pub(crate) async fn drop(mut self) -> anyhow::Result<()> {
        self.mysql.query_drop(format!("DROP DATABASE {}", self.database)).await?;
        let session = self.cassandra_without_keyspace().await?;
        session.query_unpaged(format!("DROP KEYSPACE IF EXISTS \"{}\"", self.keyspace), ()).await?;
        Ok(())
    }
}

/// Whether these transactions are on the log according to a status.
pub(crate) fn captured(status: &Json, executed: &GtidSet) -> bool {
    let captured = status["source"]["gtid_set"].as_str().and_then(|set| set.parse::<GtidSet>().ok());
    captured.is_some_and(|captured| executed.is_subset(&captured))
}
