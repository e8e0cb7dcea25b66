//! Transactions that are larger than anything that capture may hold: killed in their midst, and its
//! memory while they pass.

use std::io::Write as _;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use rand::Rng as _;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tandem_model::{TableName, Watermark};
use tandem_wire::log::Topics;

use crate::replay;
use crate::support::{Migration, Running, Servers};

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, s VARCHAR(40))";
const DIGITS: &str = "CREATE TABLE digits (d INT PRIMARY KEY)";
const FILL_DIGITS: &str = "INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)";
const MAPPING: &str =
    "[[table]]\nsource = \"{db}.t\"\n[[table.target]]\ntable = \"t\"\npartition_key = [\"id\"]\n";

fn is_full() -> bool {
    std::env::var_os("TANDEM_TEST_FULL").is_some()
}

/// One statement, and so one transaction, that inserts so many rows in the order of their ids: nested
/// loops over the digits, the first digit outermost, need no sort.
fn insert(rows: u32) -> String {
    let digits = (rows - 1).to_string().len();
    let tables: Vec<String> = (0..digits).rev().map(|i| format!("digits d{i}")).collect();
    let number: Vec<String> = (0..digits).map(|i| format!("d{i}.d * {}", 10_u32.pow(i as u32))).collect();
    let number = number.join(" + ");
    format!(
        "INSERT INTO t SELECT /*+ NO_BNL() */ STRAIGHT_JOIN {number}, d0.d, 'a row of a large transaction' FROM {} \
         WHERE {number} < {rows}",
        tables.join(", ")
    )
}

/// Waits for the first watermark, or for a newer one than `than`.
async fn newer(
    migration: &Migration,
    capture: &mut Running,
    than: Option<&Watermark>,
    patience: Duration,
) -> anyhow::Result<Watermark> {
    let began = Instant::now();
    loop {
        capture.check()?;
        // Before the first there may be no topic yet.
        let begun = than.is_some() || !migration.status().await?["source"].is_null();
        if begun
            && let Some(last) = replay::watermarks(migration).await?.pop()
            && than.is_none_or(|than| last.version > than.version)
        {
            return Ok(last);
        }
        anyhow::ensure!(began.elapsed() < patience, "no newer watermark: {}", capture.tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_inside_a_large_transaction_its_rows_are_out_once() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let (rows, kills, batch) = if is_full() { (1_000_000, 20, 4000) } else { (30_000, 5, 250) };
    let mut migration = Migration::new(servers, "killtx", &[TABLE, DIGITS, FILL_DIGITS]).await?;
    migration.configure(&format!("[capture]\nmax_records = {batch}\n"), MAPPING)?;
    let mut capture = migration.start(&["capture"])?;
    let minute = Duration::from_mins(1);
    let mut last = newer(&migration, &mut capture, None, minute).await?;
    migration.mysql.query_drop(insert(rows)).await?;
    let mut inside = 0;
    for _ in 0..kills {
        // Until some of what is left is out.
        newer(&migration, &mut capture, Some(&last), minute).await?;
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..60))).await;
        capture.kill()?;
        last = replay::watermarks(&migration).await?.pop().expect("there was one");
        inside += usize::from(last.partial.is_some());
        capture = migration.start(&["capture"])?;
    }
    let executed = migration.executed().await?;
    let began = Instant::now();
    while !(last.partial.is_none() && executed.is_subset(&last.gtid_set)) {
        anyhow::ensure!(began.elapsed() < Duration::from_mins(10), "not all is captured: {}", capture.tail());
        last = newer(&migration, &mut capture, Some(&last), minute).await?;
    }
    capture.terminate().await?;

    let log = replay::changes(&migration).await?;
    let watermarks = replay::watermarks(&migration).await?;
    let cuts: Vec<usize> = (0..watermarks.len()).filter(|&i| watermarks[i].partial.is_some()).collect();
    // Printed although the test passes: what was hit is part of the result.
    let _ = writeln!(
        std::io::stderr(),
        "{kills} kills, {inside} of them inside a transaction of {rows} rows, {} watermarks in it",
        cuts.len()
    );
    assert_eq!(log.len(), rows as usize);
    assert!(log.windows(2).all(|pair| pair[0].version < pair[1].version), "a version is there twice");
    assert!(inside > 0 && cuts.len() > kills, "{inside} kills inside, {} cuts", cuts.len());
    // Each key once, each with its own bytes, the same as without any kill: from the first watermark,
    // and from within the transaction.
    assert_eq!(replay::same_again(&migration, &watermarks, 0, &log).await?, rows as usize);
    let partial = cuts[cuts.len() / 2];
    let left =
        rows as usize - watermarks[partial].partial.as_ref().map_or(0, |partial| partial.rows as usize);
    assert_eq!(replay::same_again(&migration, &watermarks, partial, &log).await?, left);
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_under_a_large_transaction() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let rows = if is_full() { 10_000_000 } else { 200_000 };
    let mut migration = Migration::new(servers, "hugetx", &[TABLE, DIGITS, FILL_DIGITS]).await?;
    migration.configure("", MAPPING)?;
    let mut capture = migration.start(&["capture"])?;
    let patience = Duration::from_mins(10);
    let mut last = newer(&migration, &mut capture, None, patience).await?;
    migration.mysql.query_drop(insert(rows)).await?;
    let executed = migration.executed().await?;
    while !(last.partial.is_none() && executed.is_subset(&last.gtid_set)) {
        last = newer(&migration, &mut capture, Some(&last), patience).await?;
    }
    let peak = capture.peak_rss_mb()?;
    capture.terminate().await?;
    let _ = writeln!(std::io::stderr(), "a transaction of {rows} rows: at most {peak} MiB resident");
    assert_eq!(committed(&migration)?, rows as usize);
    let cuts = replay::watermarks(&migration).await?.iter().filter(|w| w.partial.is_some()).count();
    assert!(cuts > 3, "the transaction was partial only {cuts} times");
    assert!(peak < 256, "{peak} MiB resident");
    migration.drop().await
}

/// How many committed records the table's topic holds.
fn committed(migration: &Migration) -> anyhow::Result<usize> {
    let topic = Topics::new(&migration.prefix).changes(&TableName::new(&migration.database, "t"));
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &migration.servers.brokers)
        .set("group.id", "committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..3 {
        partitions.add_partition_offset(&topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let (mut found, mut open) = (0, 3);
    while open > 0 {
        match consumer.poll(Duration::from_secs(30)) {
            Some(Ok(_)) => found += 1,
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(error.into()),
            None => anyhow::bail!("the topic is not read to its end"),
        }
    }
    Ok(found)
}
