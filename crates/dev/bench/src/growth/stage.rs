//! The servers, and one migration on them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::Statement;
use serde_json::Value as Json;
use tandem_compare::captures::Layout;
use tandem_compare::process::{Tandem, output};
use tandem_devstack::{Cassandra, CassandraOptions, Kafka, Mysql, MysqlOptions};
use tempfile::TempDir;
use tokio::process::Command;

use super::args::GrowthArgs;
use crate::usage::cpu_us;

/// Cassandra's heap. The tables of the largest migration need more than the default of the development server.
const HEAP: &str = "4g";

/// Rows of each table.
pub(super) const ROWS: u32 = 200;

/// How long a command, or the copy of every row, may take.
const TIMEOUT: Duration = Duration::from_mins(15);

/// How long the idle migration is watched.
const IDLE: Duration = Duration::from_secs(15);

/// The UUID of the further GTID runs.
const OTHER_SERVER: &str = "11111111-2222-3333-4444-555555555555";

/// MySQL, Kafka and Cassandra for all migrations of a run.
pub(super) struct Servers {
    pub(super) mysql: Mysql,
    pub(super) kafka: Kafka,
    pub(super) cassandra: Cassandra,
}

impl Servers {
    pub(super) fn start() -> Result<Self> {
        // The disk's times vary and are not Tandem's.
        let extra_args = ["--sync-binlog=0", "--innodb-flush-log-at-trx-commit=0", "--table-open-cache=4000"];
        Ok(Self {
            mysql: Mysql::ephemeral(&MysqlOptions { extra_args: extra_args.map(str::to_owned).to_vec() })?,
            kafka: Kafka::ephemeral()?,
            cassandra: Cassandra::ephemeral_with(&CassandraOptions { heap: HEAP.to_owned() })?,
        })
    }
}

/// The CPU time used so far, or within an interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    pub(super) tandem_us: f64,
    pub(super) broker_us: f64,
    pub(super) seconds: f64,
}

impl Cpu {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            tandem_us: self.tandem_us - before.tandem_us,
            broker_us: self.broker_us - before.broker_us,
            seconds: self.seconds - before.seconds,
        }
    }
}

/// A migration, with a database, a keyspace and a prefix of its own.
pub(super) struct Stage<'a> {
    pub(super) servers: &'a Servers,
    /// The names of database, keyspace and prefix.
    pub(super) name: String,
    pub(super) tables: u32,
    pub(super) schema_create: Duration,
    tandem: Tandem,
    begun: Instant,
    _folder: TempDir,
}

impl<'a> Stage<'a> {
    /// Makes the tables, in MySQL and in Cassandra.
    pub(super) async fn new(
        args: &GrowthArgs,
        servers: &'a Servers,
        binary: &Path,
        tables: u32,
        gtid_runs: u32,
    ) -> Result<Self> {
        let name = format!("growth_{tables}_{gtid_runs}");
        let mut conn = Conn::from_url(servers.mysql.url()).await.context("connect to MySQL")?;
        fill(&mut conn, &name, tables).await?;
        add_gtid_runs(&mut conn, gtid_runs).await?;
        let folder = tempfile::tempdir().context("make a temporary folder")?;
        let config = folder.path().join("tandem.toml");
        init(binary, &config, servers, &name).await?;
        adapt(&config, args)?;
        let tandem = Tandem::new(binary.to_owned(), config, folder.path().join("tandem.log"));
        let begun = Instant::now();
        tandem.cli(&["schema", "create"], TIMEOUT).await?;
        let schema_create = begun.elapsed();
        Ok(Self { servers, name, tables, schema_create, tandem, begun, _folder: folder })
    }

    /// Starts every role, and waits until every row is copied. Returns how long that took.
    pub(super) async fn start(&mut self) -> Result<Duration> {
        self.tandem.start()?;
        let started = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.tandem.check()?;
            let status = self.tandem.cli(&["status", "--json"], TIMEOUT).await?;
            let status: Json = serde_json::from_str(&status).context("read the status")?;
            let holds = |what: &str| status[what]["holds"] == true;
            if holds("caught_up") && holds("copied") && status["lag"]["records"] == 0 {
                return Ok(started.elapsed());
            }
            if started.elapsed() > TIMEOUT {
                bail!("not every row was copied in time: {status}");
            }
        }
    }

    /// What the migration and the broker use without any load.
    pub(super) async fn idle(&self) -> Result<Cpu> {
        let before = self.cpu()?;
        tokio::time::sleep(IDLE).await;
        Ok(self.cpu()?.since(before))
    }

    /// The CPU time used so far.
    pub(super) fn cpu(&self) -> Result<Cpu> {
        let broker = self.servers.kafka.pid().context("Kafka is gone")?;
        Ok(Cpu {
            tandem_us: cpu_us(self.pid()?)? as f64,
            broker_us: cpu_us(broker)? as f64,
            seconds: self.begun.elapsed().as_secs_f64(),
        })
    }

    /// The process id of the roles.
    pub(super) fn pid(&self) -> Result<u32> {
        self.tandem.pid().with_context(|| self.tandem.tail())
    }

    /// Asks for the status. Returns how long the answer took.
    pub(super) async fn status(&self) -> Result<Duration> {
        let begun = Instant::now();
        self.tandem.cli(&["status", "--json"], TIMEOUT).await?;
        Ok(begun.elapsed())
    }

    /// A session with Cassandra, in the migration's keyspace.
    pub(super) async fn cassandra(&self) -> Result<Session> {
        let session = SessionBuilder::new().known_node(self.servers.cassandra.node()).build().await?;
        session.use_keyspace(&self.name, false).await?;
        Ok(session)
    }

    /// Stops the roles and drops the tables.
    pub(super) async fn end(&mut self) -> Result<()> {
        self.tandem.terminate().await?;
        let session = self.cassandra().await?;
        // Cassandra takes a snapshot of each table.
        let mut drop = Statement::new(format!("DROP KEYSPACE {}", self.name));
        drop.set_request_timeout(Some(TIMEOUT));
        session.query_unpaged(drop, ()).await?;
        let mut conn = Conn::from_url(self.servers.mysql.url()).await.context("connect to MySQL")?;
        conn.query_drop(format!("DROP DATABASE {}", self.name)).await?;
        Ok(())
    }
}

async fn fill(conn: &mut Conn, name: &str, tables: u32) -> Result<()> {
    conn.query_drop(format!("CREATE DATABASE {name}; USE {name}")).await?;
    for table in 0..tables {
        let sql = format!(
            "CREATE TABLE t{table} (id INT PRIMARY KEY, k INT NOT NULL, c VARCHAR(120) NOT NULL, pad VARCHAR(60)); \
             INSERT INTO t{table} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
             SELECT i, i, SHA2(i, 256), LEFT(SHA2(-i, 256), 32) FROM n"
        );
        conn.query_drop(&sql).await.with_context(|| sql.clone())?;
    }
    Ok(())
}

/// Makes empty transactions with gaps between their numbers.
async fn add_gtid_runs(conn: &mut Conn, runs: u32) -> Result<()> {
    let executed: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_executed").await?;
    let known = executed.unwrap_or_default().matches(OTHER_SERVER).count();
    let first = if known == 0 { 1 } else { 1 << 40 };
    let numbers: Vec<u64> = (0..u64::from(runs)).map(|n| first + 2 * n).collect();
    for some in numbers.chunks(500) {
        let sql = some.iter().fold(String::new(), |mut sql, n| {
            // Writing to a String cannot fail.
            let _ = write!(sql, "SET GTID_NEXT = '{OTHER_SERVER}:{n}'; BEGIN; COMMIT;");
            sql
        });
        conn.query_drop(sql).await.context("make GTID runs")?;
    }
    conn.query_drop("SET GTID_NEXT = 'AUTOMATIC'").await?;
    Ok(())
}

async fn init(binary: &Path, config: &Path, servers: &Servers, name: &str) -> Result<()> {
    let mut command = Command::new(binary);
    let options: [(&str, &str); 6] = [
        ("--mysql-url", &servers.mysql.url()),
        ("--kafka-brokers", &servers.kafka.brokers()),
        ("--cassandra-nodes", &servers.cassandra.node()),
        ("--database", name),
        ("--prefix", name),
        ("--keyspace", name),
    ];
    command.arg("init").arg("--out").arg(config);
    for (option, value) in options {
        command.args([option, value]);
    }
    output(command, "tandem init", TIMEOUT).await.map(drop)
}

/// Sets what the bench varies, and addresses that are free.
fn adapt(config: &PathBuf, args: &GrowthArgs) -> Result<()> {
    let mut text = std::fs::read_to_string(config).context("read the configuration")?;
    text = text.replacen("[kafka]\n", &format!("[kafka]\npartitions = {}\n", args.partitions), 1);
    if args.layout == Layout::Own {
        text = text.replace("[[table]]\n", "[[table]]\ntopic = \"own\"\n");
    }
    for role in ["http", "gateway", "controller"] {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n[{role}]\nlisten = \"127.0.0.1:0\"\n");
    }
    std::fs::write(config, text).context("write the configuration")
}
