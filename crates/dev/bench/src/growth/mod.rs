//! `bench growth`: what a migration costs as the number of its tables grows.
//!
//! The load is the same for every number of tables: transactions of four updates, each of a random row of a random
//! table. Latency is that of probes beside the load: from a COMMIT until Cassandra returns the new value.

mod args;
mod load;
mod stage;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value as Json, json};

pub(crate) use self::args::GrowthArgs;
use self::load::Load;
use self::stage::{Servers, Stage};
use crate::usage::rss_mb;

/// The longest p99 at which a rate counts as held.
const HELD: Duration = Duration::from_secs(1);

/// Seconds of load before anything is measured, for the servers' JVMs and connections.
const WARM_UP: Duration = Duration::from_secs(10);

/// The first rate of the search, in transactions a second, and how often the interval is halved at the end.
const SEARCH: (u32, u32) = (200, 2);

pub(crate) fn growth(args: &GrowthArgs) -> Result<ExitCode> {
    tandem_compare::runtime()?.block_on(run(args))
}

async fn run(args: &GrowthArgs) -> Result<ExitCode> {
    let binary = tandem_compare::process::binary(args.bin.as_deref())?;
    let servers = Servers::start()?;
    let points =
        args.tables.iter().map(|tables| (*tables, 0)).chain(args.gtid_runs.iter().map(|runs| (10, *runs)));
    let mut figures = Vec::new();
    for (tables, gtid_runs) in points {
        eprintln!("{tables} tables, {gtid_runs} further GTID runs");
        let measured = measure(args, &servers, &binary, tables, gtid_runs).await?;
        eprintln!("{measured}");
        figures.push(measured);
    }
    print(&figures);
    if let Some(path) = &args.json {
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let report = json!({ "cpus": cpus, "layout": format!("{:?}", args.layout), "partitions": args.partitions,
                             "transactions_per_s": args.rate, "growth": figures });
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    args: &GrowthArgs,
    servers: &Servers,
    binary: &Path,
    tables: u32,
    gtid_runs: u32,
) -> Result<Json> {
    let mut stage = Stage::new(args, servers, binary, tables, gtid_runs).await?;
    let ready_s = stage.start().await?;
    let load = Load::connect(&stage).await?;
    load.run(args.rate, WARM_UP).await?;
    let idle = stage.idle().await?;
    if args.soak_minutes > 0 {
        load.run(args.rate, Duration::from_mins(args.soak_minutes)).await?;
    }
    let before = stage.cpu()?;
    let fixed = load.run(args.rate, Duration::from_secs(args.seconds)).await?;
    let used = stage.cpu()?.since(before);
    let (rows, rss) = (fixed.rows as f64, rss_mb(stage.pid()?)?);
    let status_s = stage.status().await?.as_secs_f64();
    let highest = if args.step_seconds == 0 { None } else { Some(search(args, &load).await?) };
    stage.end().await?;
    let round = |value: f64| (value * 100.0).round() / 100.0;
    Ok(json!({
        "tables": tables,
        "gtid_runs": gtid_runs,
        "rows_per_s": round(rows / fixed.seconds),
        "cpu_us_per_row": round(used.tandem_us / rows),
        "broker_cpu_us_per_row": round(used.broker_us / rows),
        "idle_cpu_percent": round(idle.tandem_us / idle.seconds / 1e4),
        "broker_idle_cpu_percent": round(idle.broker_us / idle.seconds / 1e4),
        "p50_ms": round(fixed.percentile(50)),
        "p99_ms": round(fixed.percentile(99)),
        "probes": fixed.visible_ms.len(),
        "rss_mb": round(rss),
        "status_s": round(status_s),
        "schema_create_s": round(stage.schema_create.as_secs_f64()),
        "ready_s": round(ready_s.as_secs_f64()),
        "highest_rows_per_s": highest.map(|rate| rate * 4),
    }))
}

/// Finds the highest rate of transactions that is held: with every transaction on time and p99 within [`HELD`].
async fn search(args: &GrowthArgs, load: &Load) -> Result<u32> {
    let (mut held, mut failed) = (args.rate, SEARCH.0);
    let took = Duration::from_secs(args.step_seconds);
    let limit_ms = HELD.as_secs_f64() * 1e3;
    loop {
        let figures = load.run(failed, took).await?;
        eprintln!(
            "  {failed} transactions/s: p99 {:.0} ms{}",
            figures.percentile(99),
            if figures.on_time { "" } else { ", late" }
        );
        if !figures.on_time || figures.percentile(99) > limit_ms {
            break;
        }
        (held, failed) = (failed, failed * 2);
    }
    for _ in 0..SEARCH.1 {
        let middle = u32::midpoint(held, failed);
        let figures = load.run(middle, took).await?;
        eprintln!(
            "  {middle} transactions/s: p99 {:.0} ms{}",
            figures.percentile(99),
            if figures.on_time { "" } else { ", late" }
        );
        if figures.on_time && figures.percentile(99) <= limit_ms { held = middle } else { failed = middle }
    }
    Ok(held)
}

fn print(figures: &[Json]) {
    let columns = [
        ("tables", "tables"),
        ("gtid_runs", "GTID runs"),
        ("rows_per_s", "rows/s"),
        ("cpu_us_per_row", "CPU µs/row"),
        ("broker_cpu_us_per_row", "broker"),
        ("idle_cpu_percent", "idle %"),
        ("broker_idle_cpu_percent", "broker"),
        ("p50_ms", "p50 ms"),
        ("p99_ms", "p99 ms"),
        ("rss_mb", "RSS MiB"),
        ("status_s", "status s"),
        ("schema_create_s", "create s"),
        ("ready_s", "ready s"),
        ("highest_rows_per_s", "most rows/s"),
    ];
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(columns.map(|(_, name)| name));
    for line in figures {
        table.add_row(columns.map(|(key, _)| line[key].to_string()));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}
