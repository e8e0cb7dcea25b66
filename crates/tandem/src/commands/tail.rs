//! `tandem tail`: prints the changes on the log as JSON, one object per line, until it is interrupted.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value as Json, json};
use tandem_gateway::to_json;
use tandem_kafka::{Admin, SchemaStore, TailReader};
use tandem_model::{Change, Row, TableName};

use crate::cli::{TailArgs, TailStart};
use crate::config::Config;

/// Records per batch at most.
const BATCH: usize = 1000;
/// How long to wait for a batch.
const WAIT: Duration = Duration::from_millis(500);

/// Prints changes.
pub(crate) async fn run(config: &Config, args: &TailArgs) -> Result<ExitCode> {
    let kafka = config.kafka()?;
    let topics = kafka.topics();
    let admin = Admin::connect(&kafka).await?;
    let mut from = Vec::new();
    let tables = tables(config, &args.table)?;
    for topic in tables.iter().map(|table| topics.changes(table)).collect::<BTreeSet<_>>() {
        let count =
            admin.partitions(&topic).await.context("no change has been captured yet under this prefix")?;
        let offsets = match args.from {
            TailStart::End => admin.end_offsets(&topic, count).await?,
            TailStart::Beginning | TailStart::Version(_) => admin.first_offsets(&topic, count).await?,
        };
        from.extend((0..).zip(offsets).map(|(partition, offset)| (topic.clone(), partition, offset)));
    }
    let mut tail = TailReader::start(&kafka, from).await?;
    SchemaStore::check(&kafka, &[]).await?;
    let schemas = SchemaStore::open(&kafka).await?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let mut changes = Vec::new();
        for record in tail.next_batch(BATCH, WAIT).await? {
            // A tombstone, which follows a delete, has no value.
            let Some(value) = record.value else { continue };
            let schema = schemas.get(tandem_wire::schema_id(&value)?).await?;
            if tables.contains(&schema.table().name) {
                changes.push(schema.decode(&value)?);
            }
        }
        // The batch has records of several tables and partitions. Within a batch they are printed in binlog order.
        changes.sort_by_key(|change| change.version);
        let out = std::io::stdout();
        let mut out = out.lock();
        for change in &changes {
            let before = matches!(args.from, TailStart::Version(first) if change.version.0 < first);
            if before || left == 0 {
                continue;
            }
            left -= 1;
            // The reader of the pipe may have closed it.
            if writeln!(out, "{}", line(change)).is_err() {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The requested tables, or all.
fn tables(config: &Config, named: &[TableName]) -> Result<Vec<TableName>> {
    let all = config.tables()?;
    if named.is_empty() {
        return Ok(all);
    }
    let mut tables = Vec::new();
    for name in named {
        let Some(table) = all.iter().find(|table| *table == name) else {
            let known: Vec<_> = all.iter().map(ToString::to_string).collect();
            bail!("{name} is not a mapped table; the mapped tables are: {}", known.join(", "))
        };
        tables.push(table.clone());
    }
    Ok(tables)
}

fn line(change: &Change) -> Json {
    let row = |row: &Option<Row>| match row {
        None => Json::Null,
        Some(row) => {
            let cells = change.table.columns.iter().zip(row);
            Json::Object(cells.map(|(c, v)| (c.name.clone(), to_json(&c.ty, v))).collect::<Map<_, _>>())
        }
    };
    json!({
        "table": change.table.name.to_string(),
        "op": change.op.letter(),
        "version": change.version.0,
        "gtid": change.source.gtid,
        "at": format!("{}:{}", change.source.file, change.source.pos),
        "row": change.source.row,
        "committed_us": change.source.ts_us,
        "before": row(&change.before),
        "after": row(&change.after),
    })
}
