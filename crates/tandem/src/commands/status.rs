//! `tandem status`: the progress of the migration. It comes from the log alone, whichever roles run.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use serde::Serialize;
use tandem_backfill::read_progress;
use tandem_kafka::{Admin, ConsumeError, GroupOffsets, PartitionLag, oldest_record, partition_lags};
use tandem_model::Watermark;
use tandem_row_check::{MismatchCounts, count_mismatches};
use tandem_watermarks::NewestWatermark;
use tandem_wire::control::BackfillProgress;
use tandem_wire::fingerprint;

use crate::config::Config;

/// The age in seconds above which capture counts as not running. It publishes a watermark at least once a second.
const FRESH: f64 = 10.0;

#[derive(Serialize)]
struct Status {
    source: Option<Source>,
    tables: Vec<TableStatus>,
    topics: Vec<TopicStatus>,
    lag: Lag,
    mismatches: Mismatches,
    ready: bool,
    why_not_ready: Vec<String>,
}

/// The progress of capture.
#[derive(Serialize)]
struct Source {
    gtid_set: String,
    file: String,
    position: u64,
    version: i64,
    /// Seconds since the newest watermark's clock.
    watermark_age_seconds: f64,
}

#[derive(Serialize)]
struct TableStatus {
    name: String,
    /// The change topic, which other tables may share.
    topic: String,
    backfill: Backfill,
}

/// The progress of apply in a change topic or a backfill topic.
#[derive(Serialize)]
struct TopicStatus {
    name: String,
    /// The records of the topic since its beginning, in total and applied. The markers of Kafka's transactions count
    /// too.
    published: i64,
    applied: i64,
    /// The records that are not applied yet.
    lag_records: i64,
}

#[derive(Serialize)]
struct Backfill {
    rows: i64,
    estimated_rows: i64,
    /// Whether every row is on the log. `lag_records` shows whether it is applied.
    done: bool,
}

#[derive(Serialize)]
struct Lag {
    records: i64,
    /// The age of the oldest change that is not in Cassandra yet: that of the oldest unapplied record or of the newest
    /// watermark, whichever is older. Absent until the first watermark is published.
    seconds: Option<f64>,
}

#[derive(Serialize)]
struct Mismatches {
    found: u64,
    resolved: u64,
    unrepairable: u64,
    open: u64,
}

impl From<MismatchCounts> for Mismatches {
    fn from(counts: MismatchCounts) -> Self {
        let MismatchCounts { found, resolved, unrepairable, open } = counts;
        Self { found, resolved, unrepairable, open }
    }
}

/// Prints the status.
pub(crate) async fn run(config: &Config, json: bool) -> Result<ExitCode> {
    let status = status(config).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print(&status);
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(config: &Config) -> Result<Status> {
    let kafka = config.kafka()?;
    let topics = kafka.topics();
    let admin = Admin::connect(&kafka).await?;
    let watermarks = topics.watermarks();
    let source = match admin.partitions(&watermarks).await {
        Ok(_) => NewestWatermark::read(&kafka).await?.map(|newest| newest.watermark),
        Err(ConsumeError::NoTopic(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let started = source.is_some();
    let progress = if started { read_progress(&kafka).await? } else { HashMap::new() };
    let mismatches = if started { count_mismatches(&kafka).await? } else { MismatchCounts::default() };
    let group = GroupOffsets::new(&kafka, &topics.apply_group())?;
    let mut behind = Vec::new();
    let names = config.tables()?;
    let mut topic_status = Vec::new();
    for name in topics.of_tables(&names) {
        let partitions = partition_lags(&admin, &group, &name).await?;
        let lagging = partitions.iter().enumerate().filter(|(_, p)| p.records() > 0);
        behind.extend(lagging.map(|(number, p)| (name.clone(), number as i32, p.applied()..p.end)));
        topic_status.push(TopicStatus {
            published: partitions.iter().map(|p| p.end - p.first).sum(),
            applied: partitions.iter().map(|p| p.applied() - p.first).sum(),
            lag_records: partitions.iter().map(PartitionLag::records).sum(),
            name,
        });
    }
    let tables = names.iter().zip(&config.table).map(|(name, table)| {
        let mapping = fingerprint(&table.spelling());
        TableStatus {
            topic: topics.changes(name),
            backfill: Backfill::of(progress.get(&name.to_string()).filter(|p| p.configured == mapping)),
            name: name.to_string(),
        }
    });
    let tables: Vec<TableStatus> = tables.collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
    let age = |us: i64| (now - us).max(0) as f64 / 1e6;
    let seconds = match oldest_record(&kafka, behind).await {
        Ok(oldest) => {
            let oldest = oldest.map_or(0.0, |ms| age(ms * 1000));
            source.as_ref().map(|w| oldest.max(age(w.clock_us)))
        }
        // The records could not be read in time. Their number is still known.
        Err(ConsumeError::Unreachable { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let lag = Lag { records: topic_status.iter().map(|t| t.lag_records).sum(), seconds };
    let mut status = Status {
        source: source.map(|w| Source::of(&w, age(w.clock_us))),
        tables,
        topics: topic_status,
        lag,
        mismatches: mismatches.into(),
        ready: false,
        why_not_ready: Vec::new(),
    };
    status.why_not_ready = status.missing();
    status.ready = status.why_not_ready.is_empty();
    Ok(status)
}

impl Source {
    fn of(watermark: &Watermark, age: f64) -> Self {
        Self {
            gtid_set: watermark.gtid_set.to_string(),
            file: watermark.position.file.to_string(),
            position: watermark.position.pos,
            version: watermark.version.0,
            watermark_age_seconds: age,
        }
    }
}

impl Backfill {
    fn of(progress: Option<&BackfillProgress>) -> Self {
        let (rows, estimated_rows) = progress.map_or((0, 0), |p| (p.rows, p.estimated_rows));
        Self { rows, estimated_rows, done: progress.is_some_and(|p| p.done) }
    }
}

impl Status {
    /// The reasons why Cassandra does not hold what MySQL holds, apart from the lag.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        match &self.source {
            None => missing.push("capture has not begun".to_owned()),
            Some(source) if source.watermark_age_seconds > FRESH => {
                let age = source.watermark_age_seconds;
                missing.push(format!("capture's newest watermark is {age:.0} s old: is it running?"));
            }
            Some(_) => {}
        }
        let open: Vec<&str> =
            self.tables.iter().filter(|t| !t.backfill.done).map(|t| t.name.as_str()).collect();
        if !open.is_empty() {
            missing.push(format!("the backfill of {} is not complete", open.join(", ")));
        }
        match self.lag.seconds {
            Some(seconds) if seconds > FRESH => missing.push(format!("apply is {seconds:.0} s behind")),
            None if self.source.is_some() => missing.push(format!(
                "apply is {} records behind; their age could not be read from Kafka in time",
                self.lag.records
            )),
            _ => {}
        }
        if self.mismatches.open > 0 {
            missing.push(format!("{} mismatches are open", self.mismatches.open));
        }
        missing
    }
}

fn print(status: &Status) {
    match &status.source {
        None => println!("capture has not begun"),
        Some(s) => println!(
            "captured up to {} ({}:{}), {:.1} s ago",
            s.gtid_set, s.file, s.position, s.watermark_age_seconds
        ),
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["table", "backfill", "change topic"]);
    for t in &status.tables {
        let backfill = match &t.backfill {
            b if b.done => format!("{} rows, done", b.rows),
            b if b.estimated_rows == 0 => "not begun".to_owned(),
            b => format!("{} of about {} rows", b.rows, b.estimated_rows.max(b.rows)),
        };
        table.add_row([t.name.clone(), backfill, t.topic.clone()]);
    }
    println!("{table}");
    let mut table = comfy_table::Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["topic", "published", "applied", "lag"]);
    for t in &status.topics {
        table.add_row([
            t.name.clone(),
            t.published.to_string(),
            t.applied.to_string(),
            t.lag_records.to_string(),
        ]);
    }
    println!("{table}");
    let seconds = status.lag.seconds.map_or("unknown".to_owned(), |s| format!("{s:.1} s"));
    println!("lag: {} records, {seconds}", status.lag.records);
    let m = &status.mismatches;
    println!(
        "mismatches: {} found, {} resolved, {} unrepairable, {} open",
        m.found, m.resolved, m.unrepairable, m.open
    );
    if status.ready {
        println!("ready: Cassandra holds what MySQL holds");
    } else {
        println!("not ready: {}", status.why_not_ready.join("; "));
    }
}
