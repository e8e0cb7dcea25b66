//! `bench gateway`: the time that the gateway adds to the stores' own, phase by phase.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::{Value as Json, json};
use tandem_devstack::Endpoints;
use tokio::process::{Child, Command};

use tandem_compare::process::{beside, binary, output};

#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// Seconds of each measurement: the highest rate and each load of each side, for each operation and phase
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Seconds of load before anything is measured, so that the servers' JVMs compile the hot code
    #[arg(long, default_value_t = 120.0)]
    warm_up: f64,
    /// Rows of the table
    #[arg(long, default_value_t = 10_000)]
    rows: u32,
    /// Connections of the clients, and to MySQL, on each side
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Let MySQL's commits wait for its disk. A disk's times vary and are part of the store's own time, so
    /// they are left out otherwise, on both sides
    #[arg(long)]
    disk: bool,
    /// Write the figures to this file as well
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The measured phases, each with the number of stages from the one before.
const PHASES: [(&str, u32); 4] = [("prepare", 0), ("dual-write", 1), ("canary", 3), ("read-switch", 1)];
/// How long a process may take to be ready, and the log to be applied.
const READY_TIMEOUT: Duration = Duration::from_mins(2);
/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);

pub(crate) fn gateway(args: &GatewayArgs) -> Result<ExitCode> {
    tandem_compare::runtime()?.block_on(run(args))
}

async fn run(args: &GatewayArgs) -> Result<ExitCode> {
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    let stage = Stage::new(args, folder.path()).await?;
    let before = if args.disk { None } else { Some(stage.durability(Durability::NONE).await?) };
    let figures = stage.phases(args).await;
    if let Some(before) = before {
        stage.durability(before).await?;
    }
    let figures = figures?;
    stage.end().await?;
    print(&figures);
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&json!({ "disk": args.disk, "gateway": figures }))?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(figures: &[Json]) {
    let columns = [
        ("phase", "phase"),
        ("operation", ""),
        ("requests_per_second", "most/s"),
        ("direct_requests_per_second", "direct most/s"),
        ("load", "load"),
        ("at_requests_per_second", "at /s"),
        ("gateway_busy_percent", "busy %"),
        ("direct_busy_percent", "direct"),
        ("gateway_p50_ms", "p50 ms"),
        ("direct_p50_ms", "direct"),
        ("added_p50_ms", "added"),
        ("gateway_p99_ms", "p99 ms"),
        ("direct_p99_ms", "direct"),
        ("added_p99_ms", "added"),
    ];
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(columns.map(|(_, name)| name));
    for line in figures {
        table.add_row(columns.map(|(key, _)| match &line[key] {
            Json::String(text) => text.clone(),
            number => number.to_string(),
        }));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

/// When MySQL writes commits to its disk: `sync_binlog` and `innodb_flush_log_at_trx_commit`.
#[derive(Debug, Clone, Copy)]
struct Durability(u32, u32);

impl Durability {
    /// No waiting for the disk. With 2 for the second value, commits would wait until InnoDB's log is
    /// written, though not synced. Some of these waits end only at their limit of 100 ms, and delay all other
    /// commits.
    const NONE: Self = Self(0, 0);
}

/// A migration for the bench, with a database, a keyspace and a prefix of its own.
struct Stage {
    binary: PathBuf,
    folder: PathBuf,
    servers: Endpoints,
    name: String,
    gateway: String,
    control: String,
}

impl Stage {
    async fn new(args: &GatewayArgs, folder: &Path) -> Result<Self> {
        let binary = binary(None)?;
        let servers = tokio::task::spawn_blocking(|| Endpoints::from_env_or_up("bench")).await??;
        let name = format!("bench_{:08x}", rand::random::<u32>());
        let [gateway, control] = [free_address()?, free_address()?];
        let stage = Self { binary, folder: folder.to_owned(), servers, name, gateway, control };
        stage.fill(args.rows).await?;
        std::fs::write(stage.config(), stage.configuration(args.connections, 1.0))?;
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

    /// Sets the durability. Returns the previous one.
    async fn durability(&self, Durability(binlog, log): Durability) -> Result<Durability> {
        let mut conn = Conn::from_url(&self.servers.mysql_url).await.context("connect to MySQL")?;
        let asked = "SELECT @@GLOBAL.sync_binlog, @@GLOBAL.innodb_flush_log_at_trx_commit";
        let before: Option<(u32, u32)> = conn.query_first(asked).await?;
        let (binlog_before, log_before) = before.context("MySQL does not say when it syncs")?;
        conn.query_drop(format!(
            "SET GLOBAL sync_binlog = {binlog}, GLOBAL innodb_flush_log_at_trx_commit = {log}"
        ))
        .await?;
        Ok(Durability(binlog_before, log_before))
    }

    /// The figures of every phase.
    async fn phases(&self, args: &GatewayArgs) -> Result<Vec<Json>> {
        let _running = self.start().await?;
        let mut figures = Vec::new();
        for (phase, steps) in PHASES {
            let _controller = self.walk_to(phase, steps).await?;
            eprintln!("measuring in {phase}");
            figures.extend(self.measure(args, phase).await?);
        }
        Ok(figures)
    }

    fn config(&self) -> PathBuf {
        self.folder.join("tandem.toml")
    }

    /// The configuration. It removes every gate, because the bench itself decides when to advance.
    fn configuration(&self, connections: usize, validate: f64) -> String {
        let nodes: Vec<&str> = self.servers.cassandra_nodes.split(',').collect();
        let open = "capture_runs = ''\napply_keeps_up = ''\ngateways_follow = ''\ndual_writes_succeed = ''\n\
                    no_mismatch_is_open = ''\nevery_row_is_copied = ''\nfull_scan_is_clean = ''\ncanary_is_read = ''\n\
                    canary_agrees = ''\ncassandra_serves = ''\napply_has_begun = ''\n";
        let gates: String = ["prepare", "dual-write", "backfill", "verify", "canary"]
            .map(|phase| format!("[controller.gates.{phase}]\n{open}"))
            .concat();
        format!(
            "[mysql]\nurl = {:?}\n[kafka]\nbrokers = {:?}\nprefix = {:?}\n[cassandra]\nnodes = {nodes:?}\nkeyspace = \
             {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[gateway]\nlisten = {:?}\nconnections = {connections}\n\
             cassandra_read_ms = 5000\n[controller]\nlisten = {:?}\nvalidate = {validate:?}\ncanary_percents = [100]\n\
             soak_seconds = {{ dual-write = 0, verify = 0, canary = 0 }}\n{gates}[[table]]\nsource = \"{}.orders\"\nentity = \"order\"\n[[table.target]]\ntable = \"orders\"\n\
             partition_key = [\"id\"]\n",
            self.servers.mysql_url,
            self.servers.kafka_brokers,
            self.name,
            self.name,
            self.gateway,
            self.control,
            self.name,
        )
    }

    async fn tandem(&self, arguments: &[&str], deadline: Duration) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--config").arg(self.config());
        output(command, &format!("tandem {}", arguments.join(" ")), deadline).await
    }

    /// Starts a role. It is killed when it is dropped.
    fn role(&self, role: &str) -> Result<Child> {
        let log = std::fs::File::create(self.folder.join(format!("{role}.log")))?;
        let mut command = Command::new(&self.binary);
        command.arg(role).arg("--config").arg(self.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        command.spawn().with_context(|| format!("run tandem {role}"))
    }

    /// Starts capture, apply and a gateway, and copies every row.
    async fn start(&self) -> Result<[Child; 3]> {
        let running = [self.role("capture")?, self.role("apply")?, self.role("gateway")?];
        self.ready(&self.gateway).await?;
        self.tandem(&["backfill"], READY_TIMEOUT).await?;
        self.applied().await?;
        Ok(running)
    }

    /// Waits until the log is applied to its end.
    async fn applied(&self) -> Result<()> {
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
    async fn ready(&self, address: &str) -> Result<()> {
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
    async fn walk_to(&self, phase: &str, steps: u32) -> Result<Option<Child>> {
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

    async fn measure(&self, args: &GatewayArgs, phase: &str) -> Result<Vec<Json>> {
        let mut load = Command::new(beside("tandem-bench-load")?);
        for (name, value) in [
            ("gateway", &self.gateway),
            ("mysql", &self.servers.mysql_url),
            ("database", &self.name),
            ("nodes", &self.servers.cassandra_nodes),
            ("keyspace", &self.name),
            ("phase", &phase.to_owned()),
            ("rows", &args.rows.to_string()),
            ("connections", &args.connections.to_string()),
            ("warm-up", &if phase == PHASES[0].0 { args.warm_up } else { 0.0 }.to_string()),
            ("seconds", &args.seconds.to_string()),
            ("tandem", &self.binary.display().to_string()),
            ("config", &self.config().display().to_string()),
        ] {
            load.arg(format!("--{name}")).arg(value);
        }
        let done = output(load, "tandem-bench-load", Duration::from_mins(30)).await?;
        done.lines().map(|line| serde_json::from_str(line).context("read the figures")).collect()
    }

    async fn end(&self) -> Result<()> {
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
