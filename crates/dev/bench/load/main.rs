//! Load on one side or the other: requests to the gateway, or the same statements sent to the stores.
//! `cargo xtask bench gateway` sets everything up and runs this for each phase.
//!
//! For each operation: how many requests a second the gateway does at most, with a client on each
//! connection; then, when all that this wrote is applied, requests at a rate, whether or not those before
//! them are answered, to the gateway and to the stores in turn. A request's time counts from when it was
//! due. The rates: half of the greatest, and that at which the machine's cores are half busy with all there is
//! (a request costs more where threads sleep in between, so the first is more than half of what they can do).

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

/// Turns of each side at half load, so that what else the machine does meets both.
const TURNS: u32 = 4;

/// Waits until all that MySQL has committed is applied: what works through the writes of before would meet
/// the side that is measured first.
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

/// The time that so many percent do not exceed, in milliseconds.
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
            // Statements are prepared, tasks have grown.
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

/// The clients of the gateway, and those of the stores.
struct Sides {
    gateway: Vec<Client>,
    direct: Vec<Client>,
}

impl Sides {
    /// The rate of requests to the gateway at which the machine is half busy, judged by another rate: the
    /// cores are busy with something even without any request.
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

    /// Each side's times at a rate, and how busy it kept the machine.
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
