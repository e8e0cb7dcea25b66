//! `bench capture`: Debezium and Tandem drain the same binlogs into the same Kafka, one after the other.
//!
//! Both are started on an empty table, publish one row and are stopped. Then the binlog grows while neither
//! runs. Each is started again, alone, and watched until it has published everything.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::{Value as Json, json};
use tandem_devstack::{Debezium, Kafka, Mysql, MysqlOptions};

use tandem_compare::captures::{self, Layout, Mapped};
use tandem_compare::process::{self, Tandem};
use tandem_compare::topic::Topic;

use crate::drain::{self, Figures};
use crate::invoices::{self, Shape};

#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// Row changes in transactions of one row each; with the default, Debezium takes over two minutes
    #[arg(long, default_value_t = 5_000_000)]
    rows: u64,
    /// Row changes in bulk transactions
    #[arg(long, default_value_t = 9_000_000)]
    bulk_rows: u64,
    /// Debezium's heap
    #[arg(long, default_value = "2g")]
    heap: String,
    /// Leave Debezium out
    #[arg(long)]
    tandem_only: bool,
    /// Write the figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Use this tandem binary instead of the one that is built (also: TANDEM_BIN)
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,
}

/// The table, as both captures name it.
const TABLE: &str = "bench.invoices";

/// Each capture's default would differ. Both use one topic for the table, with the same keys.
const LAYOUT: Layout = Layout::Own;

pub(crate) fn capture(args: &CaptureArgs) -> Result<ExitCode> {
    let report = tandem_compare::runtime()?.block_on(run(args))?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn run(args: &CaptureArgs) -> Result<Json> {
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    let binary = process::binary(args.bin.as_deref())?;
    let mysql = Mysql::ephemeral(&MysqlOptions {
        // Only the draining of the binlog is measured. Its creation may be as fast as MySQL can.
        extra_args: ["--sync-binlog=0", "--innodb-flush-log-at-trx-commit=0", "--binlog-cache-size=33554432"]
            .map(str::to_owned)
            .to_vec(),
    })?;
    let kafka = Kafka::ephemeral()?;
    let mut conn = invoices::connect(&mysql.url()).await?;
    invoices::create(&mut conn).await?;

    let table =
        Mapped { database: "bench".to_owned(), table: "invoices".to_owned(), key: vec!["id".to_owned()] };
    let tables = std::slice::from_ref(&table);
    let (mut tandem, _) = captures::tandem(binary, folder.path(), &mysql, &kafka, LAYOUT, tables)?;
    let debezium = if args.tandem_only {
        None
    } else {
        let tuned = [("max.batch.size", "16384"), ("max.queue.size", "65536"), ("poll.interval.ms", "10")];
        Some(Debezium::ephemeral(&captures::debezium(
            &mysql,
            &kafka,
            &args.heap,
            LAYOUT,
            &[TABLE.to_owned()],
            &tuned,
        ))?)
    };
    tandem.start()?;
    // Debezium misses changes from before it has read the binlog's position, without a message.
    let mut topics = Vec::new();
    let of_debezium = debezium.as_ref().map(|_| table.topic_of_debezium(LAYOUT));
    for topic in [Some(table.topic_of_tandem(LAYOUT)), of_debezium].into_iter().flatten() {
        topics.push(first_record(&mut conn, &kafka, &topic, &mut tandem).await?);
    }
    for topic in &topics {
        topic.quiet(Duration::from_secs(2)).await?;
    }
    tandem.terminate().await?;
    if let Some(debezium) = &debezium {
        debezium.stop()?;
    }
    let (ours, theirs) = (&topics[0], topics.get(1));

    let mut report = json!({
        "debezium": Debezium::VERSION,
        "heap": args.heap,
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
    });
    for (shape, rows) in [(Shape::SingleRow, args.rows), (Shape::Bulk, args.bulk_rows)] {
        if rows == 0 {
            continue;
        }
        eprintln!("{}: making a binlog of {rows} row changes", shape.name());
        let rows = invoices::make(&mysql.url(), shape, rows).await?;
        let their_figures = match (&debezium, theirs) {
            (Some(debezium), Some(topic)) => {
                eprintln!("{}: Debezium drains {rows} row changes", shape.name());
                let before = topic.ends()?;
                debezium.restart()?;
                let pid = debezium.pid().context("Debezium is gone")?;
                let figures =
                    drain::watch(topic, &before, pid, rows).await.with_context(|| debezium.log_tail(20))?;
                debezium.stop()?;
                Some(figures)
            }
            _ => None,
        };
        eprintln!("{}: Tandem drains {rows} row changes", shape.name());
        let before = ours.ends()?;
        tandem.start()?;
        let pid = tandem.pid().context("tandem is gone")?;
        let figures = drain::watch(ours, &before, pid, rows).await.with_context(|| tandem.tail())?;
        tandem.terminate().await?;
        let result = result(rows, figures, their_figures);
        print(shape, rows, figures, their_figures);
        report[shape.name()] = result;
    }
    Ok(report)
}

/// Inserts rows until one of them is in the table's topic.
async fn first_record(conn: &mut Conn, kafka: &Kafka, name: &str, tandem: &mut Tandem) -> Result<Topic> {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        conn.query_drop("INSERT INTO invoices SELECT NULL, a.* FROM row_of AS a")
            .await
            .context("insert a row")?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        tandem.check()?;
        // A topic that is being created has no leaders yet.
        let found =
            Topic::open(&kafka.brokers(), name).and_then(|topic| topic.ends().map(|ends| (topic, ends)));
        match found {
            Ok((topic, ends)) if ends.iter().any(|end| *end > 0) => return Ok(topic),
            Err(error) if Instant::now() > deadline => return Err(error),
            Ok(_) if Instant::now() > deadline => bail!("no row came to topic `{name}`"),
            _ => {}
        }
    }
}

fn result(rows: u64, tandem: Figures, debezium: Option<Figures>) -> Json {
    let mut result = json!({"rows": rows, "tandem": tandem.to_json()});
    if let Some(debezium) = debezium {
        result["debezium"] = debezium.to_json();
        for (name, ratio) in ratios(tandem, debezium) {
            result[name] = json!((ratio * 100.0).round() / 100.0);
        }
    }
    result
}

/// How many times better Tandem is, by figure.
fn ratios(tandem: Figures, debezium: Figures) -> [(&'static str, f64); 3] {
    [
        ("ratio_rows_per_s", tandem.rows_per_s / debezium.rows_per_s),
        ("ratio_cpu", debezium.cpu_us_per_row / tandem.cpu_us_per_row),
        ("ratio_rss", debezium.rss_mb / tandem.rss_mb),
    ]
}

fn print(shape: Shape, rows: u64, tandem: Figures, debezium: Option<Figures>) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header([shape.name(), "rows/s", "CPU µs a row", "peak MiB", "seconds"]);
    let mut row = |name: &str, f: Figures| {
        table.add_row([
            name.to_owned(),
            format!("{:.0}", f.rows_per_s),
            format!("{:.2}", f.cpu_us_per_row),
            format!("{:.0}", f.rss_mb),
            format!("{:.1}", f.seconds),
        ]);
    };
    if let Some(debezium) = debezium {
        row("Debezium", debezium);
    }
    row("Tandem", tandem);
    if let Some(debezium) = debezium {
        let [rows, cpu, rss] = ratios(tandem, debezium).map(|(_, ratio)| format!("{ratio:.1} ×"));
        table.add_row(["better by".to_owned(), rows, cpu, rss, String::new()]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{rows} row changes\n{table}");
}
