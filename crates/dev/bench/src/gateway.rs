//! `bench gateway`: the time that the gateway adds to the stores' own, phase by phase.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::{Value as Json, json};
use tandem_compare::process::{beside, binary, output};
use tokio::process::Command;

use crate::stage::Stage;

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
pub(crate) fn gateway(args: &GatewayArgs) -> Result<ExitCode> {
    tandem_compare::runtime()?.block_on(run(args))
}

async fn run(args: &GatewayArgs) -> Result<ExitCode> {
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    let stage = Stage::new(binary(None)?, args.rows, args.connections, folder.path()).await?;
    let url = &stage.servers.mysql_url;
    let before = if args.disk { None } else { Some(durability(url, Durability::NONE).await?) };
    let figures = phases(&stage, args).await;
    if let Some(before) = before {
        durability(url, before).await?;
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

/// Sets the durability. Returns the previous one.
async fn durability(mysql_url: &str, Durability(binlog, log): Durability) -> Result<Durability> {
    let mut conn = Conn::from_url(mysql_url).await.context("connect to MySQL")?;
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
async fn phases(stage: &Stage, args: &GatewayArgs) -> Result<Vec<Json>> {
    let _running = stage.start().await?;
    let mut figures = Vec::new();
    for (phase, steps) in PHASES {
        let _controller = stage.walk_to(phase, steps).await?;
        eprintln!("measuring in {phase}");
        figures.extend(measure(stage, args, phase).await?);
    }
    Ok(figures)
}

async fn measure(stage: &Stage, args: &GatewayArgs, phase: &str) -> Result<Vec<Json>> {
    let mut load = Command::new(beside("tandem-bench-load")?);
    for (name, value) in [
        ("gateway", &stage.gateway),
        ("mysql", &stage.servers.mysql_url),
        ("database", &stage.name),
        ("nodes", &stage.servers.cassandra_nodes),
        ("keyspace", &stage.name),
        ("phase", &phase.to_owned()),
        ("rows", &args.rows.to_string()),
        ("connections", &args.connections.to_string()),
        ("warm-up", &if phase == PHASES[0].0 { args.warm_up } else { 0.0 }.to_string()),
        ("seconds", &args.seconds.to_string()),
        ("tandem", &stage.binary.display().to_string()),
        ("config", &stage.config().display().to_string()),
    ] {
        load.arg(format!("--{name}")).arg(value);
    }
    let done = output(load, "tandem-bench-load", Duration::from_mins(30)).await?;
    done.lines().map(|line| serde_json::from_str(line).context("read the figures")).collect()
}
