//! Capture against real servers. Killed at random points under load, its log holds every row change exactly
//! once, and a restart mints the same versions again.

mod faults;
mod xa;

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use rand::Rng as _;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::Message;
use tandem_binlog::{BinlogEvent, RowsKind};
use tandem_kafka::{Admin, SchemaStore, TransactionalPublisher, read_all, topic_specs};
use tandem_model::{BinlogPosition, Change, GtidSet, Op, Row, Value, Version, Watermark};
use tandem_mysql::{BinlogStream, Mysql};
use tandem_protocol::assemble::{Assembler, AssemblerConfig};
use tandem_wire::log::OutRecord;
use tokio_util::sync::CancellationToken;

use crate::replay::{self, outline, watermarks};
use crate::support::{
    MINUTE, Migration, Probe, Running, Servers, T_MAPPING, T_WITH_TEXT, eventually, full, read_to_end,
};

/// A row change, in the binlog and on the log alike.
type RowChange = (Op, Option<Row>, Option<Row>);

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_its_log_holds_every_change_exactly_once() -> anyhow::Result<()> {
    killed_at_random("killcap", T_MAPPING).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_with_topics_of_its_own() -> anyhow::Result<()> {
    killed_at_random("killown", &T_MAPPING.replacen("[[table]]\n", "[[table]]\ntopic = \"own\"\n", 1)).await
}

async fn killed_at_random(test: &str, mapping: &str) -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut migration = Migration::new(servers, test, &[T_WITH_TEXT]).await?;
    if mapping != T_MAPPING {
        migration.own_topics = Arc::new([migration.table("t")].into());
    }
    // Small Kafka transactions, so that there are many and MySQL's transactions are split.
    migration.configure("[capture]\nmax_records = 25\n", mapping)?;
    let topic = migration.topics().changes(&migration.table("t"));

    // The log begins at its first watermark.
    let mut capture = migration.start(&["capture"])?;
    migration.until_first_watermark(&mut capture).await?;
    let first = watermarks(&migration).await?.remove(0);

    let stop = CancellationToken::new();
    let mut writers = Vec::new();
    for number in 0..3 {
        writers.push(tokio::spawn(write(migration.session().await?, number, stop.clone())));
    }
    let kills = if full() { 100 } else { 12 };
    // Where the partitions ended after each restart.
    let mut ends: Vec<Vec<i64>> = vec![vec![0; 3]];
    for _ in 0..kills {
        // A kill at any time from before the binlog is read until some seconds of transactions later.
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(50..1500))).await;
        capture.kill()?;
        capture = migration.start(&["capture"])?;
        // The restart aborts the open transaction of the killed capture. Its first watermark comes after
        // that.
        let newest = watermarks(&migration).await?.pop().map(|w| w.version);
        migration
            .until(&mut capture, "a watermark after the restart", |s| {
                s["source"]["version"].as_i64().map(Version) > newest
            })
            .await?;
        ends.push(Admin::connect(&migration.kafka()).await?.end_offsets(&topic, 3).await?);
    }
    stop.cancel();
    for writer in writers {
        writer.await??;
    }
    let executed = migration.executed().await?;
    migration.until_captured(&mut capture).await?;
    capture.terminate().await?;

    let log = changes(&migration, &topic).await?;
    let published: Vec<RowChange> =
        log.iter().map(|(_, c)| (c.op, c.before.clone(), c.after.clone())).collect();
    let binlog = binlog(&migration, &first.gtid_set, &executed).await?;
    // Records that are in the topic but not committed were aborted: no other transaction is open.
    let committed: HashSet<(i32, i64)> = log.iter().map(|(record, _)| *record).collect();
    let aborted: Vec<(i32, i64)> =
        all_offsets(&migration, &topic)?.into_iter().filter(|record| !committed.contains(record)).collect();
    let within = |(partition, offset): &(i32, i64), pair: &[Vec<i64>]| {
        (pair[0][*partition as usize]..pair[1][*partition as usize]).contains(offset)
    };
    let transactions =
        ends.windows(2).filter(|pair| aborted.iter().any(|record| within(record, pair))).count();
    // Printed even if the test passes: what the kills hit is part of the result.
    let _ = writeln!(
        std::io::stderr(),
        "{kills} kills, {transactions} of them in an open Kafka transaction ({} records aborted), {} changes",
        aborted.len(),
        binlog.len()
    );
    assert!(binlog.len() > 1000, "only {} changes: that was no load", binlog.len());
    assert_eq!(published.len(), binlog.len());
    for (number, (published, happened)) in published.iter().zip(&binlog).enumerate() {
        assert_eq!(published, happened, "change {number} of {}", binlog.len());
    }
    assert!(transactions > 0, "no kill hit an open Kafka transaction: {} records aborted", aborted.len());
    let watermarks = watermarks(&migration).await?;
    in_order(&log, &watermarks, &topic);
    let records = replay::changes(&migration).await?;
    for from in [0, watermarks.len() / 2] {
        let left = records.iter().filter(|r| r.version > Some(watermarks[from].version)).count();
        assert_eq!(replay::same_again(&migration, &watermarks, from, &records).await?, left);
    }
    migration.drop().await
}

/// Requires that versions rise with the offsets of each partition, that no version occurs twice, and that
/// every watermark is above all changes below its offsets and above all earlier watermarks.
fn in_order(log: &[((i32, i64), Change)], watermarks: &[Watermark], topic: &str) {
    let versions: HashSet<Version> = log.iter().map(|(_, c)| c.version).collect();
    assert_eq!(versions.len(), log.len(), "a version is there twice");
    let mut partitions: BTreeMap<i32, Vec<(i64, Version)>> = BTreeMap::new();
    for ((partition, offset), change) in log {
        partitions.entry(*partition).or_default().push((*offset, change.version));
    }
    for records in partitions.values() {
        assert!(records.is_sorted(), "versions and offsets of a partition do not rise together");
    }
    for watermark in watermarks {
        let ends = watermark.offsets.get(topic).expect("the watermark knows the topic");
        for (partition, records) in &partitions {
            let end = ends[*partition as usize];
            for (offset, version) in records {
                assert_eq!(
                    *offset < end,
                    *version < watermark.version,
                    "{watermark:?} and {offset}@{version}"
                );
            }
        }
    }
}

/// Random transactions on the keys of one writer. Some of them are larger than a Kafka transaction of this
/// test.
async fn write(mut conn: mysql_async::Conn, writer: i32, stop: CancellationToken) -> anyhow::Result<()> {
    let base = writer * 1_000_000;
    let mut next = base;
    while !stop.is_cancelled() {
        let (kind, size) = {
            let mut rng = rand::rng();
            (rng.random_range(0..6), if rng.random_bool(0.1) { 80 } else { rng.random_range(1..8) })
        };
        let some = format!("id BETWEEN {base} AND {} ORDER BY id DESC LIMIT {size}", base + 499_999);
        let statement = match kind {
            0..=2 => {
                let values: Vec<String> =
                    (0..size).map(|i| format!("({}, {i}, 'row {i}')", next + i)).collect();
                next += size;
                format!("INSERT INTO t VALUES {}", values.join(", "))
            }
            3 => format!("UPDATE t SET v = v + 1, s = IF(v % 3, NULL, CONCAT('v', v)) WHERE {some}"),
            4 => format!("UPDATE t SET id = id + 500000 WHERE {some}"),
            _ => format!("DELETE FROM t WHERE {some}"),
        };
        match conn.query_drop(statement).await {
            // A deadlock between writers. MySQL has rolled the statement back.
            Err(mysql_async::Error::Server(error)) if error.code == 1213 => {}
            outcome => outcome?,
        }
        // The pace of the load.
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    Ok(())
}

/// The ids of the rows after the committed changes, by version.
async fn ids(migration: &Migration, topic: &str) -> anyhow::Result<Vec<i64>> {
    let id = |change: &Change| match change.after.as_ref().map(|row| &row[0]) {
        Some(Value::Int(id)) => *id,
        other => panic!("{other:?}"),
    };
    Ok(changes(migration, topic).await?.iter().map(|(_, change)| id(change)).collect())
}

/// Every committed change, with its partition and offset, by version.
async fn changes(migration: &Migration, topic: &str) -> anyhow::Result<Vec<((i32, i64), Change)>> {
    let schemas = SchemaStore::open(&migration.kafka()).await?;
    let mut changes = Vec::new();
    for record in read_all(&migration.kafka(), topic).await? {
        let value = record.value.expect("a change has a value");
        let schema = schemas.get(tandem_wire::schema_id(&value)?).await?;
        let change = schema.decode(&value)?;
        assert_eq!(record.version, Some(change.version), "the header and the envelope disagree");
        changes.push(((record.partition, record.offset), change));
    }
    changes.sort_by_key(|(_, c)| c.version);
    Ok(changes)
}

/// Every row change of the table after `from` and up to `to`, from the server's binlog.
async fn binlog(migration: &Migration, from: &GtidSet, to: &GtidSet) -> anyhow::Result<Vec<RowChange>> {
    let wanted = migration.table("t");
    let config = migration.mysql_config();
    let mut stream = BinlogStream::open(&config, from, move |t| *t == wanted).await?;
    let (mut seen, mut changes) = (from.clone(), Vec::new());
    let mut open = None;
    while !to.is_subset(&seen) {
        match tokio::time::timeout(Duration::from_secs(30), stream.next()).await?? {
            BinlogEvent::Begin { gtid, .. } => open = Some(gtid),
            BinlogEvent::Rows(rows) => {
                for (before, after) in crate::mysql_source::values(&rows)? {
                    let moved = match (&before, &after) {
                        (Some(b), Some(a)) => !rows.table.same_key(b, a),
                        _ => false,
                    };
                    match rows.kind {
                        RowsKind::Write => changes.push((Op::Create, None, after)),
                        RowsKind::Delete => changes.push((Op::Delete, before, None)),
                        RowsKind::Update if moved => {
                            changes.push((Op::Delete, before, None));
                            changes.push((Op::Create, None, after));
                        }
                        RowsKind::Update => changes.push((Op::Update, before, after)),
                    }
                }
            }
            // XA transactions belong to other tests on this server.
            BinlogEvent::Commit { .. } | BinlogEvent::Prepared { .. } => {
                seen.insert(&open.take().expect("a transaction is open"));
            }
            BinlogEvent::Statement { gtid, .. } | BinlogEvent::Decided { gtid, .. } => seen.insert(&gtid),
            BinlogEvent::Idle { .. } => {}
        }
    }
    Ok(changes)
}

/// Partition and offset of all records of a topic, those of aborted transactions included.
fn all_offsets(migration: &Migration, topic: &str) -> anyhow::Result<Vec<(i32, i64)>> {
    let mut offsets = Vec::new();
    read_to_end(&migration.servers.brokers, topic, 3, true, |record| {
        offsets.push((record.partition(), record.offset()));
    })?;
    Ok(offsets)
}

/// The assembler's output for a part of the binlog: each batch's records (key, value, version) and its
/// watermark.
type Stretch = Vec<(Vec<(Vec<u8>, Option<Vec<u8>>, Option<Version>)>, Watermark)>;

/// Assembles the changes after a watermark into batches of `size` records, up to `end`.
async fn assemble(
    migration: &Migration,
    outline: &AssemblerConfig,
    from: &Watermark,
    size: usize,
    end: &BinlogPosition,
) -> anyhow::Result<Stretch> {
    let config = migration.mysql_config();
    let tables = outline.tables.clone();
    let mut stream = BinlogStream::open(&config, &from.gtid_set, move |t| tables.contains(t)).await?;
    let mut assembler = Assembler::resume(outline.clone(), from);
    let mut stretch = Vec::new();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(30), stream.next()).await??;
        assembler.on_event(event, i64::MAX / 2)?;
        let done = !assembler.in_transaction() && assembler.position() >= end;
        if assembler.len() >= size || done {
            let (batch, watermark) = assembler.take(None);
            let records = batch.records.into_iter().map(|r| (r.key, r.value, r.version)).collect();
            stretch.push((records, watermark));
        }
        if done {
            return Ok(stretch);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_mints_the_same_versions_again() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut migration = Migration::new(servers, "remint", &[T_WITH_TEXT]).await?;
    let outline = outline(&migration);
    let first = Watermark {
        source: "mysql".into(),
        gtid_set: migration.executed().await?,
        position: BinlogPosition::default(),
        version: Version(1),
        tables: Arc::default(),
        offsets: BTreeMap::new(),
        partial: None,
        clock_us: 0,
    };
    // An event holds a statement's rows, and a batch ends between events. So transactions of several
    // statements are split inside.
    for _ in 0..4 {
        for statement in [
            "BEGIN",
            "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) \
             SELECT i + (SELECT COALESCE(MAX(id), 0) FROM t), i, 's' FROM n",
            "UPDATE t SET v = v + 1 WHERE id % 2",
            "UPDATE t SET id = id + 1000 WHERE id % 7 = 0",
            "UPDATE t SET s = NULL WHERE id % 3 = 0",
            "DELETE FROM t WHERE id % 5 = 0",
            "COMMIT",
            "REPLACE INTO t VALUES (1, 1, NULL), (2, 2, NULL)",
        ] {
            migration.mysql.query_drop(statement).await?;
        }
    }
    let mut reader = Mysql::connect(&migration.mysql_config()).await?.reader().await?;
    let end = reader.binlog_end().await?;
    let whole = assemble(&migration, &outline, &first, 10, &end).await?;
    let cuts = whole.iter().filter(|(_, w)| w.partial.is_some()).count();
    assert!(whole.len() > 8 && cuts > 5, "{} batches, {cuts} partial", whole.len());
    for resumed in 0..whole.len() - 1 {
        let again = assemble(&migration, &outline, &whole[resumed].1, 10, &end).await?;
        assert!(again == whole[resumed + 1..], "resumed after batch {resumed}: another end");
    }
    migration.drop().await
}

/// The records of a capture that was killed in its first Kafka transaction are no changes.
#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_first_transaction_is_no_gap() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let migration = Migration::new(servers, "firsttx", &[T_WITH_TEXT]).await?;
    migration.configure("", T_MAPPING)?;
    let (mut kafka, topics, table) = (migration.kafka(), migration.topics(), migration.table("t"));
    kafka.partitions = 3;
    Admin::connect(&kafka).await?.ensure_topics(&topic_specs(&kafka, std::slice::from_ref(&table))).await?;
    let publisher = TransactionalPublisher::start(&kafka, &topics.capture_transactional_id()).await?;
    let record = OutRecord {
        topic: topics.changes(&table).into(),
        partition: 1,
        key: b"k".to_vec(),
        value: Some(b"v".to_vec()),
        version: Some(Version(1)),
        timestamp_ms: None,
    };
    let aborted = publisher.publish(vec![record], |_| Err("killed".into())).await;
    assert!(aborted.is_err());
    assert_eq!(all_offsets(&migration, &topics.changes(&table))?.len(), 1, "it has left a record");
    let mut capture = migration.start(&["capture"])?;
    migration.until_first_watermark(&mut capture).await?;
    capture.terminate().await?;

    // More partitions would move keys to other partitions, so they are refused.
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &migration.servers.brokers).create()?;
    let topic = topics.changes(&table);
    client.create_partitions(&[NewPartitions::new(&topic, 5)], &AdminOptions::new()).await?;
    let refused = migration.tandem(&["capture"]).await?;
    assert!(!refused.success, "{}", refused.stderr);
    assert!(refused.stderr.contains("has 5 partitions and had 3"), "{}", refused.stderr);
    migration.drop().await
}
