//! The demo from beginning to end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mysql_async::Conn;
use tandem_devstack::Endpoints;

use tandem_compare::process::{self, Tandem};
use tandem_compare::stores::config::Config;
use tandem_compare::stores::schema;
use tandem_compare::stores::{compare, thousands};

use crate::args::DemoArgs;
use crate::clients::{Clients, Entity, checker, table as clients_table};
use crate::corrupt::{Quiet, corrupt};
use crate::dump::{self, DumpTraffic};
use crate::names::{Names, nodes};
use crate::processes::{Fleet, Watch};
use crate::report::{Kill, Report};
use crate::rollout::{Rollout, reads_by_cassandra, stays};
use crate::sample::{self, SampleTraffic, Size};
use crate::traffic::{Traffic, Workload};
use crate::ui::Ui;

/// Target tables in which rows are corrupted.
const CORRUPTED_TABLES: usize = 3;
/// Rows a second of traffic under `--stay`.
const STAY_RATE: u64 = 20;

/// `cargo xtask demo`.
pub(crate) fn command(args: &DemoArgs) -> Result<ExitCode> {
    let ui = Ui::new();
    let runtime = tandem_compare::runtime()?;
    let programs = Programs {
        tandem: process::binary(args.bin.as_deref())?,
        checker: process::beside("tandem-checker")?,
    };
    ui.phase("starting MySQL, Kafka and Cassandra");
    let servers = Endpoints::from_env_or_up("demo").context("starting the servers")?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = Demo::run(args, &ui, &servers, programs) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        }
    });
    let outcome = match outcome {
        Ok(end) => runtime.block_on(finish(args, &ui, &servers, end)),
        Err(error) => Err(error),
    };
    drop(runtime);
    let teardown = stop_servers(args, &ui, servers, matches!(outcome, Ok(true)));
    let good = outcome?;
    teardown?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The programs that the demo runs.
struct Programs {
    tandem: std::path::PathBuf,
    checker: std::path::PathBuf,
}

/// The parts of the demo that still run when the report is made.
struct End<'a> {
    report: Report,
    watch: Watch<'a>,
    fleet: Fleet,
    database: String,
    workload: Workload,
    _lock: Conn,
}

/// Prints the report, keeps running with `--stay`, and stops Tandem. Returns whether both stores are equal
/// and the checker found nothing.
async fn finish(args: &DemoArgs, ui: &Ui, servers: &Endpoints, mut end: End<'_>) -> Result<bool> {
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&end.report.to_json()).context("write the report as JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    end.report.print();
    if args.stay {
        let traffic = Traffic::start(&servers.mysql_url, &end.database, end.workload, STAY_RATE);
        ui.phase("staying: traffic goes on; Ctrl-C ends it");
        // The address of a server that the demo did not start may contain a password.
        for (name, value) in servers.env().into_iter().filter(|_| servers.stack.is_some()) {
            ui.note(&format!("{name}={value}"));
        }
        ui.note(&format!("http://127.0.0.1:{}/metrics", end.watch.port));
        for port in end.fleet.ports() {
            ui.note(&format!("a gateway: http://127.0.0.1:{port}/openapi.json"));
        }
        ui.note(&format!("configuration and log: {}", end.report.folder.display()));
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => break,
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    end.watch.tandem.check()?;
                    end.fleet.check()?;
                    traffic.check()?;
                }
            }
        }
        traffic.stop().await?;
    }
    end.fleet.terminate().await.context("stopping the gateways and the controller")?;
    end.watch.tandem.terminate().await.context("stopping tandem")?;
    Ok(end.report.comparison.equal() && end.report.verdict.clean())
}

/// Stops the servers that the demo started. After a failure their data stays on the disk.
fn stop_servers(args: &DemoArgs, ui: &Ui, servers: Endpoints, success: bool) -> Result<()> {
    let Some(stack) = servers.stack else { return Ok(()) };
    let name = stack.name().to_owned();
    if args.keep_data {
        ui.note(&format!("the servers keep running; to stop them: cargo xtask down --name {name} --remove"));
        return Ok(());
    }
    ui.phase("stopping the servers");
    if success {
        stack.remove()
    } else {
        stack.down()?;
        ui.note(&format!("their data stays in {}", stack.dir().display()));
        Ok(())
    }
}

/// The demo's state while it runs.
struct Demo<'a> {
    args: &'a DemoArgs,
    ui: &'a Ui,
    servers: &'a Endpoints,
    programs: Programs,
    names: Names,
    phases: Vec<(&'static str, Duration)>,
    phase_begun: Instant,
}

/// The filled database.
struct Source {
    workload: Workload,
    quiet: Quiet,
    /// The entity that the gateways' clients use.
    entity: Entity,
    rows: u64,
}

impl<'a> Demo<'a> {
    async fn run(
        args: &'a DemoArgs,
        ui: &'a Ui,
        servers: &'a Endpoints,
        programs: Programs,
    ) -> Result<End<'a>> {
        let names = Names::new(args.database.as_deref())?;
        let begun = Instant::now();
        let mut demo = Self { args, ui, servers, programs, names, phases: Vec::new(), phase_begun: begun };
        demo.ui.note(&format!("configuration and log: {}", demo.names.folder.display()));
        let lock = demo.names.claim(servers, |text| ui.note(text)).await.context("preparing the servers")?;
        demo.phase(
            "data",
            if args.sql.is_some() { "loading the SQL dump" } else { "creating the sample database" },
        );
        let source = demo.fill().await.context("filling MySQL")?;
        demo.ui.note(&format!("{} rows in database {}", thousands(source.rows), demo.names.database));
        let tandem = Tandem::new(demo.programs.tandem.clone(), demo.names.config(), demo.names.log());
        demo.phase("mapping", "mapping: tandem.toml, checks, target tables");
        demo.map(&tandem).await.context("making the mapping")?;
        let config = Config::load(&demo.names.config())?;
        let watch = Watch::new(ui, tandem, demo.names.port);
        demo.migrate(source, config, watch, lock).await
    }

    fn phase(&mut self, name: &'static str, title: &str) {
        self.close_phase();
        self.phases.push((name, Duration::ZERO));
        self.ui.phase(title);
    }

    fn close_phase(&mut self) {
        if let Some((_, took)) = self.phases.last_mut() {
            *took = self.phase_begun.elapsed();
        }
        self.phase_begun = Instant::now();
    }

    /// Fills MySQL with the sample or the dump.
    async fn fill(&self) -> Result<Source> {
        let mut conn = schema::mysql(&self.servers.mysql_url).await?;
        let database = &self.names.database;
        let source = if let Some(path) = &self.args.sql {
            let size = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?.len();
            let bar = self.ui.bar(size);
            let statements = dump::load(&mut conn, path, database, |at, of| bar.set(at, of, "bytes")).await?;
            drop(bar);
            self.ui.note(&format!("{} statements run", thousands(statements)));
            let (traffic, reserved) = DumpTraffic::prepare(&mut conn, database).await?;
            // The clients use this table. The traffic does not.
            clients_table::create(&mut conn, database).await?;
            let rows = schema::count_rows(&mut conn, database).await?;
            let entity = clients_table::entity();
            Source { workload: Workload::Dump(traffic), quiet: Quiet::Rows(reserved), entity, rows }
        } else {
            let size = Size::of(self.args.rows);
            let about = size.accounts + size.invoices * 4 + size.payments;
            let bar = self.ui.bar(about);
            let rows = sample::create(&mut conn, database, size, |n, table| bar.set(n, about, table)).await?;
            let workload = Workload::Sample(SampleTraffic::new(size));
            Source { workload, quiet: Quiet::Multiples, entity: sample::entity(), rows }
        };
        let _ = conn.disconnect().await;
        Ok(source)
    }

    /// Writes `tandem.toml`, checks it, and creates the target tables.
    async fn map(&self, tandem: &Tandem) -> Result<()> {
        let minute = Duration::from_mins(1);
        let path = self.names.config();
        let text = if self.args.sql.is_some() {
            self.init(tandem).await?;
            let written =
                std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            self.names.set_listen(&written)?
        } else {
            let mapping = sample::MAPPING.replace("{db}", &self.names.database);
            format!("{}{mapping}", self.names.head(self.servers)?)
        };
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        tandem.cli(&["schema", "create"], minute).await?;
        tandem.cli(&["check"], minute).await?;
        Ok(())
    }

    /// Runs `tandem init`: a target of the same shape for every table.
    async fn init(&self, tandem: &Tandem) -> Result<()> {
        let (nodes, out) = (nodes(self.servers).join(","), self.names.config());
        let mut command = tandem.command();
        command
            .args(["init", "--mysql-url", &self.servers.mysql_url])
            .args(["--kafka-brokers", &self.servers.kafka_brokers])
            .args(["--cassandra-nodes", &nodes])
            .args(["--database", &self.names.database])
            .args(["--keyspace", &self.names.keyspace])
            .args(["--prefix", &self.names.prefix])
            .arg("--out")
            .arg(out);
        process::output(command, "tandem init", Duration::from_mins(1)).await?;
        Ok(())
    }

    /// The migration, from the start of the traffic to the report.
    async fn migrate(
        mut self,
        source: Source,
        config: Config,
        mut watch: Watch<'a>,
        lock: Conn,
    ) -> Result<End<'a>> {
        let Source { workload, quiet, entity, rows } = source;
        let (args, ui) = (self.args, self.ui);
        let traffic = Traffic::start(&self.servers.mysql_url, &self.names.database, workload, args.rate);
        self.phase("gateways", "two gateways, a controller, and clients that use only the gateways");
        let mut fleet =
            Fleet::start(&self.programs.tandem, &self.names).await.context("starting the gateways")?;
        let clients = Clients::start(entity, fleet.ports(), &self.names.folder).await?;
        self.phase("backfill", "backfill, while the traffic goes on");
        let mut kill = None;
        if args.no_kill {
            watch.start().await.context("starting tandem")?;
        } else {
            let (pid, at) =
                watch.start_and_kill(rows, &traffic).await.context("the backfill, before the kill")?;
            let (done, all) = (thousands(at.0), thousands(at.1));
            ui.phase(&format!("kill -9 of process {pid}, at {done} of {all} rows backfilled"));
            let ready_after = watch.start().await.context("starting tandem again")?;
            ui.note(&format!("ready again after {:.1} s", ready_after.as_secs_f64()));
            kill = Some(Kill { pid, at, ready_after });
        }
        watch.until_backfilled(rows, args.rate.max(100), &traffic).await?;
        let steady_from = watch.present().clone();
        let mut rollout = Rollout {
            ui,
            fleet: &mut fleet,
            clients: &clients,
            traffic: &traffic,
            watch: &mut watch,
            config: &config,
            rows,
            killed: Vec::new(),
        };
        rollout.until_phase(&["verify"]).await?;

        self.phase("verification", "changing rows out-of-band in Cassandra, and verifying everything");
        let corruptions = corrupt(&config, &quiet, CORRUPTED_TABLES).await.context("corrupting rows")?;
        if corruptions.is_empty() {
            ui.note("no row could be reserved for a corruption: the tables are too small");
        }
        for corruption in &corruptions {
            ui.note(&format!("{}: {}", corruption.table, corruption.what));
        }
        let verified = rollout.watch.verify(rows).await?;
        let verified: serde_json::Value = serde_json::from_str(&verified)
            .context("`tandem verify --json` printed something else than JSON")?;
        ui.note(&format!(
            "verified: {} rows checked, {} mismatches",
            verified["checked"], verified["mismatches"]
        ));
        let wanted = corruptions.len() as u64;
        let mismatches = rollout.watch.until_repaired(wanted, &traffic).await?;
        if mismatches.found > wanted {
            ui.note(&format!("{} mismatches found, but {wanted} were made", mismatches.found));
        }
        rollout.until_clean().await?;
        self.phase("canary", "waiting for the canary");
        rollout.canary().await?;
        self.phase("read-switch", "waiting for the read switch");
        rollout.read_switch().await?;
        let killed = std::mem::take(&mut rollout.killed);

        self.phase("drain", "stopping the traffic, waiting until everything is applied");
        let entity = clients.entity().clone();
        let (seen, journals) = clients.stop().await?;
        let (counts, workload) = traffic.stop().await?;
        ui.note(&format!("the traffic changed {} rows", thousands(counts.rows)));
        let mut conn = schema::mysql(&self.servers.mysql_url).await?;
        watch.until_drained(rows + counts.rows, &mut conn).await?;

        self.phase("comparison", "comparing both stores");
        let bar = ui.bar(0);
        let comparison =
            compare(&config, |table| bar.message(table)).await.context("comparing both stores")?;
        drop(bar);
        self.phase("judgement", "checking the clients' journals");
        let (program, folder) = (&self.programs.checker, &self.names.folder);
        let verdict =
            checker::check(program, folder, &self.names.database, &config, &entity, &journals).await?;
        let phases = stays(&fleet.begun, &fleet.history().await?);
        watch.look().await?;
        self.close_phase();
        let report = Report {
            comparison,
            metrics: watch.metrics(),
            steady: watch.present().clone().since(&steady_from),
            traffic: counts,
            corruptions,
            mismatches,
            kill,
            killed,
            reads_by_cassandra: reads_by_cassandra(&phases, &seen),
            phases,
            seen,
            verdict,
            seconds: self.phases,
            folder: self.names.folder.clone(),
        };
        if report.traffic.rows == 0 && args.rate > 0 {
            bail!("the traffic changed no row: the demo would prove nothing");
        }
        Ok(End { report, watch, fleet, database: self.names.database, workload, _lock: lock })
    }
}
