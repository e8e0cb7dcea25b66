//! Load on one side or the other: requests to the gateway, or the same statements sent to the stores.
//! `cargo xtask bench gateway` sets everything up and runs this for each phase.
//!
//! For each operation: how many requests a second the gateway does at most, with a client on each
//! connection; then, when all that this wrote is applied, requests at half that rate, whether or not those before them are answered, to the
//! gateway and to the stores in turn. A request's time counts from when it was due.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlDecimal, CqlTimestamp};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};

/// Turns of each side at half load, so that what else the machine does meets both.
const TURNS: u32 = 4;

#[derive(Debug, Parser)]
struct Args {
    /// `cargo bench` says that this is one
    #[arg(long = "bench", hide = true)]
    _bench: bool,
    #[arg(long)]
    gateway: String,
    #[arg(long)]
    mysql: String,
    #[arg(long)]
    database: String,
    #[arg(long)]
    nodes: String,
    #[arg(long)]
    keyspace: String,
    #[arg(long)]
    phase: String,
    #[arg(long)]
    rows: i64,
    #[arg(long)]
    connections: usize,
    /// For the greatest rate, and for each side at half load
    #[arg(long)]
    seconds: f64,
    /// The binary of the migration
    #[arg(long)]
    tandem: PathBuf,
    /// Its configuration
    #[arg(long)]
    config: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Get,
    Put,
}

/// Which stores an operation needs in a phase.
#[derive(Debug, Clone, Copy)]
struct Stores {
    mysql: bool,
    cassandra: bool,
}

impl Op {
    fn stores(self, phase: &str) -> Stores {
        match (self, phase) {
            // One read in a hundred is compared in `dual-write`; that one does not wait for Cassandra.
            (Self::Get, "prepare" | "dual-write") | (Self::Put, "prepare") => {
                Stores { mysql: true, cassandra: false }
            }
            (Self::Get, "read-switch") => Stores { mysql: false, cassandra: true },
            _ => Stores { mysql: true, cassandra: true },
        }
    }
}

/// A connection of one client.
enum Client {
    Gateway(Http),
    Stores(Box<Stored>),
}

impl Client {
    async fn run(&mut self, op: Op, stores: Stores, id: i64) -> Result<()> {
        match self {
            Self::Gateway(http) => http.run(op, id).await,
            Self::Stores(stored) => stored.run(op, stores, id).await,
        }
    }
}

struct Http {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

impl Http {
    async fn connect(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).await.context("connect to the gateway")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: host.to_owned(), buffer: Vec::new() })
    }

    async fn run(&mut self, op: Op, id: i64) -> Result<()> {
        let host = &self.host;
        let request = match op {
            Op::Get => format!("GET /v1/order/{id} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Op::Put => {
                let body = json!({ "customer": id % 100, "note": note(), "amount": "12.50" }).to_string();
                let length = body.len();
                format!(
                    "PUT /v1/order/{id} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
                )
            }
        };
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the gateway closed a connection");
            let Some(head) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.buffer[..head])?.to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap_or("0").trim().parse()?;
            if self.buffer.len() < head + 4 + length {
                continue;
            }
            ensure!(text.starts_with("http/1.1 200"), "{text}");
            // A fallback would compare another thing than is named.
            ensure!(!text.contains("tandem-fallback"), "{text}");
            return Ok(());
        }
    }
}

/// A note that differs from the one before.
fn note() -> String {
    format!("Please pay within {:08} days.", rand::random::<u32>() % 100_000_000)
}

struct Stored {
    conn: Conn,
    session: Arc<Session>,
    cassandra: Arc<Statements>,
    mysql: MysqlStatements,
}

struct Statements {
    get: PreparedStatement,
    put: PreparedStatement,
}

struct MysqlStatements {
    get: String,
    lock: String,
    update: String,
}

/// As the gateway asks for the GTID of a write.
const COMMIT: &str = "COMMIT; SET @tandem_before = @tandem_gtid, @tandem_gtid = (SELECT CAST(GTID AS BINARY) FROM \
    performance_schema.events_transactions_history WHERE THREAD_ID = PS_CURRENT_THREAD_ID() AND GTID LIKE \
    '%:%' ORDER BY EVENT_ID DESC LIMIT 1); SELECT IF(@tandem_gtid <=> @tandem_before, NULL, @tandem_gtid)";

impl Stored {
    async fn connect(args: &Args, session: Arc<Session>, cassandra: Arc<Statements>) -> Result<Self> {
        let mut conn = Conn::from_url(&args.mysql).await.context("connect to MySQL")?;
        conn.query_drop("SET SESSION transaction_isolation = 'READ-COMMITTED', time_zone = '+00:00'").await?;
        let select = format!(
            "SELECT `id`, `customer`, `note`, `amount`, `placed` FROM `{}`.`orders` WHERE `id` IN (?)",
            args.database
        );
        let mysql = MysqlStatements {
            lock: format!("{select} FOR UPDATE"),
            get: select,
            update: format!(
                "UPDATE `{}`.`orders` SET `customer` = ?, `note` = ?, `amount` = ?, `placed` = DEFAULT WHERE `id` = ?",
                args.database
            ),
        };
        Ok(Self { conn, session, cassandra, mysql })
    }

    async fn run(&mut self, op: Op, stores: Stores, id: i64) -> Result<()> {
        let Self { conn, session, cassandra, mysql } = self;
        match op {
            Op::Get => {
                let from_mysql = async {
                    if stores.mysql {
                        conn.exec::<Row, _, _>(mysql.get.as_str(), (id,)).await?;
                    }
                    anyhow::Ok(())
                };
                let from_cassandra = async {
                    if stores.cassandra {
                        let found = session.execute_unpaged(&cassandra.get, (id,)).await?;
                        ensure!(found.into_rows_result()?.rows_num() == 1, "row {id} is not in Cassandra");
                    }
                    Ok(())
                };
                tokio::try_join!(from_mysql, from_cassandra)?;
            }
            Op::Put => {
                conn.query_drop("START TRANSACTION").await?;
                conn.exec::<Row, _, _>(mysql.lock.as_str(), (id,)).await?;
                let note = note();
                let values = (id % 100, &note, "12.50", id);
                conn.exec_drop(mysql.update.as_str(), values).await?;
                let image = conn.exec::<Row, _, _>(mysql.lock.as_str(), (id,)).await?;
                ensure!(image.len() == 1 && image[0].as_ref(0) != Some(&Value::NULL), "no row {id}");
                conn.query_drop(COMMIT).await?;
                if stores.cassandra {
                    let total =
                        CqlDecimal::from_signed_be_bytes_slice_and_exponent(&1250i16.to_be_bytes(), 2);
                    // As old as what a watermark would lend.
                    let version = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000 - 1_000_000;
                    let values = (id, (id % 100) as i32, &note, total, CqlTimestamp(0), version as i64);
                    session.execute_unpaged(&cassandra.put, values).await?;
                }
            }
        }
        Ok(())
    }
}

/// Each client does one request after another. Requests a second.
async fn greatest(
    clients: &mut Vec<Client>,
    op: Op,
    stores: Stores,
    rows: i64,
    took: Duration,
) -> Result<f64> {
    let end = Instant::now() + took;
    let tasks = clients.drain(..).map(|mut client| {
        tokio::spawn(async move {
            let mut done = 0u64;
            while Instant::now() < end {
                client.run(op, stores, any(rows)).await?;
                done += 1;
            }
            anyhow::Ok((client, done))
        })
    });
    let mut total = 0;
    for task in tasks.collect::<Vec<_>>() {
        let (client, done) = task.await??;
        clients.push(client);
        total += done;
    }
    Ok(total as f64 / took.as_secs_f64())
}

fn any(rows: i64) -> i64 {
    1 + i64::from(rand::random::<u32>()) % rows
}

/// Requests at a rate; how long each took from when it was due, in microseconds.
async fn paced(
    clients: &mut Vec<Client>,
    op: Op,
    stores: Stores,
    rows: i64,
    rate: f64,
    took: Duration,
) -> Result<Vec<u64>> {
    let (due, dues) = mpsc::unbounded_channel::<Instant>();
    let dues = Arc::new(Mutex::new(dues));
    let tasks: Vec<_> = clients
        .drain(..)
        .map(|mut client| {
            let dues = Arc::clone(&dues);
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let due = dues.lock().await.recv().await;
                    let Some(due) = due else { return anyhow::Ok((client, times)) };
                    client.run(op, stores, any(rows)).await?;
                    times.push(due.elapsed().as_micros() as u64);
                }
            })
        })
        .collect();
    // A thread of its own: the runtime's timers are too coarse.
    let pacer = std::thread::spawn(move || {
        let start = Instant::now();
        for n in 0..(rate * took.as_secs_f64()) as u32 {
            let at = start + Duration::from_secs_f64(f64::from(n) / rate);
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            // From when it was sent off: a pacer that woke up late is neither side's time.
            if due.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    let mut all = Vec::new();
    for task in tasks {
        let (client, times) = task.await??;
        clients.push(client);
        all.extend(times);
    }
    if pacer.join().is_err() {
        bail!("the pacer panicked");
    }
    Ok(all)
}

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

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
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
    for op in [Op::Get, Op::Put] {
        let stores = op.stores(&args.phase);
        for side in [&mut direct, &mut gateway] {
            // Statements are prepared, tasks have grown.
            greatest(side, op, stores, args.rows, whole / 4).await?;
        }
        let most = greatest(&mut gateway, op, stores, args.rows, whole).await?;
        let direct_most = greatest(&mut direct, op, stores, args.rows, whole).await?;
        applied(&args).await?;
        let (mut through, mut straight) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            for (side, times) in [(&mut gateway, &mut through), (&mut direct, &mut straight)] {
                times.extend(paced(side, op, stores, args.rows, most / 2.0, whole / TURNS).await?);
            }
        }
        let mut figures = json!({
            "phase": args.phase,
            "operation": if op == Op::Get { "get" } else { "put" },
            "requests_per_second": most.round(),
            "direct_requests_per_second": direct_most.round(),
            "at_requests_per_second": (most / 2.0).round(),
        });
        for (name, times) in [("gateway", &mut through), ("direct", &mut straight)] {
            times.sort_unstable();
            figures[format!("{name}_p50_ms")] = percentile(times, 50.0).into();
            figures[format!("{name}_p99_ms")] = percentile(times, 99.0).into();
        }
        for percent in ["p50", "p99"] {
            let of = |name: &str| figures[format!("{name}_{percent}_ms")].as_f64().unwrap_or(f64::NAN);
            let added = ((of("gateway") - of("direct")) * 1000.0).round() / 1000.0;
            figures[format!("added_{percent}_ms")] = added.into();
        }
        writeln!(std::io::stdout(), "{figures}")?;
    }
    Ok(())
}
