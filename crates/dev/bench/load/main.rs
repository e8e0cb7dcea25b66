//! Load on either side: requests to the gateway, or the same statements directly to the stores. `cargo xtask
//! bench gateway` sets everything up and runs this program for each phase.
//!
//! For each operation it first measures the gateway's highest rate, with one client on each connection. Once
//! the writes of that are applied, it sends requests at a fixed rate to the gateway and to the stores in
//! turn. It does not wait for earlier responses. A request's time counts from when it was due.
//!
//! There are two rates: half of the highest, and the one at which the machine's cores are half busy with
//! everything on them. A request costs more CPU if threads sleep in between, so the first rate keeps the
//! cores more than half busy.

mod args;
mod clients;
mod load;

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use args::Args;
use clap::Parser as _;
use clients::{Client, Http, Op, Statements, Stored, Stores};
use load::{Busy, greatest, paced};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use scylla::client::session_builder::SessionBuilder;
use serde_json::json;
use tokio::task::LocalSet;

/// Turns of each side at each rate, so that other work of the machine affects both sides.
const TURNS: u32 = 4;

/// Waits until everything that MySQL has committed is applied. Otherwise the application of earlier writes
/// would slow down the side that is measured first.
async fn applied(args: &Args) -> Result<()> {
    let began = Instant::now();
    let mut conn = Conn::from_url(&args.mysql).await.context("connect to MySQL")?;
    let end: Option<Row> = conn.query_first("SHOW BINARY LOG STATUS").await?;
    let end = end.and_then(|row| Some((row.get::<String, _>(0)?, row.get::<u64, _>(1)?)));
    let (file, position) = end.context("MySQL does not say where its binlog ends")?;
    loop {
        let mut status = tokio::process::Command::new(&args.tandem);
        let done = status.args(["status", "--json", "--config"]).arg(&args.config).output().await?;
        ensure!(done.status.success(), "tandem status: {}", String::from_utf8_lossy(&done.stderr));
        let status: serde_json::Value = serde_json::from_slice(&done.stdout)?;
        let source = &status["source"];
        let captured =
            (source["file"].as_str().unwrap_or_default(), source["position"].as_u64().unwrap_or(0));
        if status["lag"]["records"] == 0 && captured >= (file.as_str(), position) {
            return Ok(());
        }
        ensure!(
            began.elapsed() < Duration::from_mins(2),
            "the log is not applied within two minutes: {status}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The time in milliseconds that this percentage of the requests does not exceed.
fn percentile(sorted: &[u64], percent: f64) -> f64 {
    let place = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(place.saturating_sub(1)).map_or(f64::NAN, |us| *us as f64 / 1000.0)
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(Args::parse()))
}

async fn run(args: Args) -> Result<()> {
    let nodes = args.nodes.split(',');
    let session = SessionBuilder::new().known_nodes(nodes).use_keyspace(&args.keyspace, true).build().await;
    let session = Arc::new(session.context("connect to Cassandra")?);
    let get = "SELECT customer, note, amount, placed, WRITETIME(customer), WRITETIME(note), WRITETIME(amount), \
               WRITETIME(placed) FROM orders WHERE id = ?";
    let put =
        "INSERT INTO orders (id, customer, note, amount, placed) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?";
    let cassandra = Statements { get: session.prepare(get).await?, put: session.prepare(put).await? };
    let cassandra = Arc::new(cassandra);
    let (mut gateway, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..args.connections {
        gateway.push(Client::Gateway(Http::connect(&args.gateway).await?));
        let stored = Stored::connect(&args, Arc::clone(&session), Arc::clone(&cassandra)).await?;
        direct.push(Client::Stores(Box::new(stored)));
    }
    let whole = Duration::from_secs_f64(args.seconds);
    let (rows, mut sides) = (args.rows, Sides { gateway, direct });
    let warm_up = Duration::from_secs_f64(args.warm_up / 4.0);
    for op in [Op::Put, Op::Get] {
        for side in [&mut sides.direct, &mut sides.gateway] {
            greatest(side, op, Stores::BOTH, rows, warm_up).await?;
        }
    }
    for op in [Op::Get, Op::Put] {
        let stores = op.stores(&args.phase);
        for side in [&mut sides.direct, &mut sides.gateway] {
            // Warms up: prepares statements, lets tasks grow.
            greatest(side, op, stores, rows, whole / 4).await?;
        }
        let mut most = [0.0; 2];
        for (side, most) in [&mut sides.gateway, &mut sides.direct].into_iter().zip(&mut most) {
            applied(&args).await?;
            *most = greatest(side, op, stores, rows, whole).await?;
        }
        let [most, direct_most] = most;
        let mut half_busy = most / 4.0;
        for _ in 0..2 {
            applied(&args).await?;
            half_busy = sides.half_busy(op, stores, rows, half_busy, whole / 4).await?.min(most / 2.0);
        }
        for (load, rate) in [("half of the rate", most / 2.0), ("half busy", half_busy)] {
            applied(&args).await?;
            let mut figures = json!({
                "phase": args.phase,
                "operation": if op == Op::Get { "get" } else { "put" },
                "requests_per_second": most.round(),
                "direct_requests_per_second": direct_most.round(),
                "load": load,
                "at_requests_per_second": rate.round(),
            });
            sides.measure(op, stores, rows, rate, whole, &mut figures).await?;
            writeln!(std::io::stdout(), "{figures}")?;
        }
    }
    Ok(())
}

/// The clients of both sides.
struct Sides {
    gateway: Vec<Client>,
    direct: Vec<Client>,
}

impl Sides {
    /// The rate of requests to the gateway at which the machine is half busy, extrapolated from a lower rate.
    /// The cores are partly busy even without requests.
    async fn half_busy(
        &mut self,
        op: Op,
        stores: Stores,
        rows: i64,
        rate: f64,
        took: Duration,
    ) -> Result<f64> {
        let before = Busy::now()?;
        tokio::time::sleep(took).await;
        let idle = before.since()?;
        let before = Busy::now()?;
        paced(&mut self.gateway, op, stores, rows, rate, took).await?;
        Ok((rate * (0.5 - idle) / (before.since()? - idle).max(0.01)).max(1.0))
    }

    /// The times of each side at a rate, and how busy it kept the machine.
    async fn measure(
        &mut self,
        op: Op,
        stores: Stores,
        rows: i64,
        rate: f64,
        whole: Duration,
        figures: &mut serde_json::Value,
    ) -> Result<()> {
        let (mut through, mut straight) = ((Vec::new(), 0.0), (Vec::new(), 0.0));
        for _ in 0..TURNS {
            for (side, (times, busy)) in
                [(&mut self.gateway, &mut through), (&mut self.direct, &mut straight)]
            {
                let before = Busy::now()?;
                times.extend(paced(side, op, stores, rows, rate, whole / TURNS).await?);
                *busy += before.since()? / f64::from(TURNS);
            }
        }
        for (name, (times, busy)) in [("gateway", &mut through), ("direct", &mut straight)] {
            times.sort_unstable();
            figures[format!("{name}_busy_percent")] = (*busy * 100.0).round().into();
            figures[format!("{name}_p50_ms")] = percentile(times, 50.0).into();
            figures[format!("{name}_p99_ms")] = percentile(times, 99.0).into();
        }
        for percent in ["p50", "p99"] {
            let of = |name: &str| figures[format!("{name}_{percent}_ms")].as_f64().unwrap_or(f64::NAN);
            let added = ((of("gateway") - of("direct")) * 1000.0).round() / 1000.0;
            figures[format!("added_{percent}_ms")] = added.into();
        }
        Ok(())
    }
}
