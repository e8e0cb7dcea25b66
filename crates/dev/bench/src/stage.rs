//! A migration of one table, with roles as processes, phase by phase.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::Value as Json;
use tandem_compare::process::output;
use tandem_devstack::Endpoints;
use tokio::process::{Child, Command};

/// How long a process may take to be ready, and the log to be applied.
const READY_TIMEOUT: Duration = Duration::from_mins(2);
/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);

/// A migration for the bench, with a database, a keyspace and a prefix of its own.
pub(crate) struct Stage {
    pub(crate) binary: PathBuf,
    folder: PathBuf,
    pub(crate) servers: Endpoints,
    /// The name of the database, the keyspace and the topics' prefix.
    pub(crate) name: String,
    /// The gateway's address.
    pub(crate) gateway: String,
    control: String,
    connections: usize,
}

impl Stage {
    /// A table with so many rows, and gateways with so many connections to MySQL.
    pub(crate) async fn new(binary: PathBuf, rows: u32, connections: usize, folder: &Path) -> Result<Self> {
        let servers = tokio::task::spawn_blocking(|| Endpoints::from_env_or_up("bench")).await??;
        let name = format!("bench_{:08x}", rand::random::<u32>());
        let [gateway, control] = [free_address()?, free_address()?];
        let stage = Self { binary, folder: folder.to_owned(), servers, name, gateway, control, connections };
        stage.fill(rows).await?;
        stage.configure("", 1.0)?;
        stage.tandem(&["schema", "create"], COMMAND_TIMEOUT).await?;
        Ok(stage)
    }

    async fn fill(&self, rows: u32) -> Result<()> {
        let mut conn = Conn::from_url(&self.servers.mysql_url).await.context("connect to MySQL")?;
        for sql in [
            format!("CREATE DATABASE {}", self.name),
            format!("USE {}", self.name),
            "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer INT NOT NULL, note VARCHAR(100), \
             amount DECIMAL(12,2) NOT NULL, placed DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3))"
                .to_owned(),
            "SET SESSION cte_max_recursion_depth = 1000000000".to_owned(),
            format!(
                "INSERT INTO orders (id, customer, note, amount) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL \
                 SELECT i + 1 FROM n WHERE i < {rows}) SELECT i, i % 100, 'Please pay within 30 days.', 12.50 FROM n"
            ),
        ] {
            conn.query_drop(&sql).await.with_context(|| sql.clone())?;
        }
        Ok(())
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("tandem.toml")
    }

    /// Writes the configuration. `gateway` holds further settings of the gateway; `validate` is the share of Cassandra's
    /// reads that are compared.
    pub(crate) fn configure(&self, gateway: &str, validate: f64) -> Result<()> {
        Ok(std::fs::write(self.config(), self.configuration(gateway, validate))?)
    }

    /// The configuration. It removes every gate, because the bench itself decides when to advance.
    fn configuration(&self, gateway: &str, validate: f64) -> String {
        let nodes: Vec<&str> = self.servers.cassandra_nodes.split(',').collect();
        let open = "capture_runs = ''\napply_keeps_up = ''\ngateways_follow = ''\ndual_writes_succeed = ''\n\
                    no_mismatch_is_open = ''\nevery_row_is_copied = ''\nfull_scan_is_clean = ''\ncanary_is_read = ''\n\
                    canary_agrees = ''\ncassandra_serves = ''\napply_has_begun = ''\nreads_move = ''\n";
        let gates: String = ["prepare", "dual-write", "backfill", "verify", "canary"]
            .map(|phase| format!("[controller.gates.{phase}]\n{open}"))
            .concat();
        format!(
            "[mysql]\nurl = {:?}\n[kafka]\nbrokers = {:?}\nprefix = {:?}\n[cassandra]\nnodes = {nodes:?}\nkeyspace = \
             {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[gateway]\nlisten = {:?}\nconnections = {}\n\
             cassandra_read_ms = 5000\n{gateway}\n[controller]\nlisten = {:?}\nvalidate = {validate:?}\ncanary_percents = [100]\n\
             soak_seconds = {{ dual-write = 0, verify = 0, canary = 0 }}\n{gates}[[table]]\nsource = \"{}.orders\"\nentity = \"order\"\n[[table.target]]\ntable = \"orders\"\n\
             partition_key = [\"id\"]\n",
            self.servers.mysql_url,
            self.servers.kafka_brokers,
            self.name,
            self.name,
            self.gateway,
            self.connections,
            self.control,
            self.name,
        )
    }

    pub(crate) async fn tandem(&self, arguments: &[&str], deadline: Duration) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--config").arg(self.config());
        output(command, &format!("tandem {}", arguments.join(" ")), deadline).await
    }

    /// Starts a role. It is killed when it is dropped.
    pub(crate) fn role(&self, role: &str) -> Result<Child> {
        let log = std::fs::File::create(self.folder.join(format!("{role}.log")))?;
        let mut command = Command::new(&self.binary);
        command.arg(role).arg("--config").arg(self.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        command.spawn().with_context(|| format!("run tandem {role}"))
    }

    /// Starts capture, apply and a gateway again, once they have ended.
    pub(crate) async fn restart(&self) -> Result<[Child; 3]> {
        let running = [self.role("capture")?, self.role("apply")?, self.role("gateway")?];
        self.ready(&self.gateway).await?;
        self.applied().await?;
        Ok(running)
    }

    /// Starts capture, apply and a gateway, and copies every row.
    pub(crate) async fn start(&self) -> Result<[Child; 3]> {
        let running = [self.role("capture")?, self.role("apply")?, self.role("gateway")?];
        self.ready(&self.gateway).await?;
        self.tandem(&["backfill"], READY_TIMEOUT).await?;
        self.applied().await?;
        Ok(running)
    }

    /// Waits until the log is applied to its end.
    pub(crate) async fn applied(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let status: Json =
                serde_json::from_str(&self.tandem(&["status", "--json"], COMMAND_TIMEOUT).await?)?;
            if status["lag"]["records"] == 0 && status["tables"][0]["backfill"]["done"] == true {
                return Ok(());
            }
            if began.elapsed() > READY_TIMEOUT {
                bail!("the rows are not applied within {} s: {status}", READY_TIMEOUT.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the process at this address is ready.
    pub(crate) async fn ready(&self, address: &str) -> Result<()> {
        let began = Instant::now();
        while ask(&format!("http://{address}/readyz")).await.is_err() {
            if began.elapsed() > READY_TIMEOUT {
                bail!("the process on {address} was not ready within {} s", READY_TIMEOUT.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Takes the gateway to the phase with a controller. In the canary every read is compared, after the read
    /// switch none is.
    pub(crate) async fn walk_to(&self, phase: &str, steps: u32) -> Result<Option<Child>> {
        if steps == 0 {
            return Ok(None);
        }
        let text = std::fs::read_to_string(self.config())?;
        let validate = if phase == "read-switch" { "validate = 0.0" } else { "validate = 1.0" };
        let text = text.replace("validate = 1.0", validate).replace("validate = 0.0", validate);
        std::fs::write(self.config(), text)?;
        let controller = self.role("controller")?;
        self.ready(&self.control).await?;
        let began = Instant::now();
        let mut done = 0;
        while done < steps {
            match self.tandem(&["phase", "advance", "--reason", "bench"], COMMAND_TIMEOUT).await {
                Ok(_) => done += 1,
                // The controller is not active yet, or has no measurements yet.
                Err(error) if began.elapsed() > READY_TIMEOUT => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        while !self.acts_in(phase).await? {
            if began.elapsed() > READY_TIMEOUT {
                bail!("the gateway does not act in {phase} within {} s", READY_TIMEOUT.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.applied().await?;
        Ok(Some(controller))
    }

    /// Whether the controller is in this phase and the gateway acts on its newest record.
    async fn acts_in(&self, phase: &str) -> Result<bool> {
        let status = self.tandem(&["phase", "status", "--json"], COMMAND_TIMEOUT).await?;
        let status: Json = serde_json::from_str(&status)?;
        let acted_on = ask(&format!("http://{}/openapi.json", self.gateway)).await?;
        Ok(status["phase"] == phase && acted_on.parse().ok() == status["generation"].as_u64())
    }

    pub(crate) async fn end(&self) -> Result<()> {
        let mut conn = Conn::from_url(&self.servers.mysql_url).await.context("connect to MySQL")?;
        conn.query_drop(format!("DROP DATABASE {}", self.name)).await?;
        let nodes = self.servers.cassandra_nodes.split(',');
        let session =
            scylla::client::session_builder::SessionBuilder::new().known_nodes(nodes).build().await?;
        session.query_unpaged(format!("DROP KEYSPACE IF EXISTS \"{}\"", self.name), ()).await?;
        Ok(())
    }
}

/// An address of this machine that is currently free.
fn free_address() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// The generation in the response, which must be a success.
async fn ask(url: &str) -> Result<String> {
    let url = url.to_owned();
    tokio::task::spawn_blocking(move || {
        let answer = ureq::get(&url).call()?;
        let generation = answer.headers().get("tandem-generation");
        Ok(generation.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned())
    })
    .await?
}
