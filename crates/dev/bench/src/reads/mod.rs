//! `bench reads`: how many reads Cassandra answers of clients that read what they have just written.
//!
//! A client owns some rows. Half of its requests write one of them, the other half read one with the token of its newest
//! write. Only the client writes the amounts of its rows, so a read that shows another amount than the last one written is
//! stale. Writers beside them change the rows' notes in MySQL directly.
//!
//! The figures named `before` are those of another program (`--before`), or of this one with `token_wait_ms = 0`.

mod client;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use futures::future::try_join_all;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::{Value as Json, json};
use tandem_compare::process::binary;
use tokio::time::Instant;

use self::client::{Client, Tally};
use crate::stage::Stage;

#[derive(Debug, Args)]
pub(crate) struct ReadsArgs {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds of load before the measurements, so that the servers' JVMs compile the hot code
    #[arg(long, default_value_t = 60)]
    warm_up: u64,
    /// The numbers of clients
    #[arg(long, value_delimiter = ',', default_values_t = [4, 64])]
    clients: Vec<u32>,
    /// The mean pauses between two requests of a client, in milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100])]
    pauses_ms: Vec<u64>,
    /// Updates a second that go to MySQL directly
    #[arg(long, default_value_t = 50)]
    direct: u32,
    /// The tandem program for the figures named `before`. Without it: the same program with token_wait_ms = 0
    #[arg(long)]
    before: Option<PathBuf>,
    /// Write the figures to this file as well
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Rows of each client.
const ROWS_EACH: u32 = 50;

/// The phases on the way to the one that is measured, each with the number of stages from the one before.
const WAY: [(&str, u32); 3] = [("dual-write", 1), ("canary", 3), ("read-switch", 1)];

pub(crate) fn reads(args: &ReadsArgs) -> Result<ExitCode> {
    tandem_compare::runtime()?.block_on(run(args))
}

async fn run(args: &ReadsArgs) -> Result<ExitCode> {
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    let most = args.clients.iter().max().copied().unwrap_or(1);
    let after = binary(None)?;
    let before = args.before.clone().unwrap_or_else(|| after.clone());
    let mut stage = Stage::new(before, most * ROWS_EACH, 32, folder.path()).await?;
    if args.before.is_none() {
        stage.configure("token_wait_ms = 0", 1.0)?;
    }
    let running = stage.start().await?;
    let mut controller = None;
    for (phase, steps) in WAY {
        drop(controller.take());
        controller = stage.walk_to(phase, steps).await?;
    }
    measure(args, &stage, most, 0, Duration::from_secs(args.warm_up)).await?;
    let first = points(args, &stage).await?;
    for mut role in running.into_iter().chain(controller) {
        role.kill().await?;
    }
    stage.binary = after;
    stage.configure("", 0.0)?;
    let _running = stage.restart().await?;
    measure(args, &stage, most, 0, Duration::from_secs(args.seconds)).await?;
    let second = points(args, &stage).await?;
    stage.end().await?;
    let both = |(before, after): (&Json, &Json)| json!({ "clients": before["clients"], "pause_ms": before["pause_ms"], "before": before, "after": after });
    let figures: Vec<Json> = first.iter().zip(&second).map(both).collect();
    print(&figures);
    if let Some(path) = &args.json {
        let other = args.before.is_some();
        let text =
            serde_json::to_string_pretty(&json!({ "before_is_another_program": other, "reads": figures }))?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    let stale: u64 = figures.iter().filter_map(|point| point["after"]["stale"].as_u64()).sum();
    Ok(if stale == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn points(args: &ReadsArgs, stage: &Stage) -> Result<Vec<Json>> {
    let mut figures = Vec::new();
    for clients in &args.clients {
        for pause in &args.pauses_ms {
            let measured = measure(args, stage, *clients, *pause, Duration::from_secs(args.seconds)).await?;
            eprintln!("{measured}");
            figures.push(measured);
        }
    }
    Ok(figures)
}

/// One measurement.
async fn measure(
    args: &ReadsArgs,
    stage: &Stage,
    clients: u32,
    pause_ms: u64,
    length: Duration,
) -> Result<Json> {
    let end = Instant::now() + length;
    let connected = (0..clients).map(|number| Client::connect(&stage.gateway, number, clients, ROWS_EACH));
    let connected = try_join_all(connected).await?;
    let running = connected.into_iter().map(|client| tokio::spawn(client.run(pause_ms, end)));
    let beside = tokio::spawn(direct(
        stage.servers.mysql_url.clone(),
        stage.name.clone(),
        args.direct,
        clients * ROWS_EACH,
        end,
    ));
    let mut all = Tally::default();
    for tally in try_join_all(running).await? {
        all.add(tally?);
    }
    beside.await??;
    ensure!(!all.reads_ms.is_empty(), "no read was made within {} s", length.as_secs());
    Ok(all.figures(clients, pause_ms, length))
}

/// Changes notes in MySQL, past the gateway.
async fn direct(url: String, database: String, rate: u32, rows: u32, end: Instant) -> Result<()> {
    if rate == 0 {
        return Ok(());
    }
    let mut conn = Conn::from_url(&url).await.context("connect to MySQL")?;
    let mut due = tokio::time::interval(Duration::from_secs(1) / rate);
    while Instant::now() < end {
        due.tick().await;
        let (note, id) = (rand::random::<u32>().to_string(), rand::random_range(1..=rows));
        conn.exec_drop(format!("UPDATE `{database}`.orders SET note = ? WHERE id = ?"), (note, id)).await?;
    }
    Ok(())
}

fn print(figures: &[Json]) {
    let columns = [
        ("share", "cassandra_share"),
        ("reads/s", "reads_per_s"),
        ("p50 ms", "p50_ms"),
        ("p99 ms", "p99_ms"),
        ("stale", "stale"),
    ];
    let mut table = Table::new();
    let sides = ["before", "after"];
    let names = columns.iter().flat_map(|(name, _)| sides.map(|side| format!("{name} {side}")));
    let head: Vec<String> = ["clients".to_owned(), "pause ms".to_owned()].into_iter().chain(names).collect();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(head);
    for point in figures {
        let values = columns.iter().flat_map(|(_, key)| sides.map(|side| point[side][*key].to_string()));
        let lead = [point["clients"].to_string(), point["pause_ms"].to_string()];
        table.add_row(lead.into_iter().chain(values));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}
