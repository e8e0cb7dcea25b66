//! Transactions that are larger than capture's buffers: a kill inside one, and capture's memory during one.

use std::io::Write as _;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use rand::Rng as _;
use tandem_model::Watermark;

use crate::replay;
use crate::support::{
    MINUTE, Migration, Probe, Running, Servers, T_MAPPING, T_WITH_TEXT, eventually, full, read_to_end,
};

const DIGITS: &str = "CREATE TABLE digits (d INT PRIMARY KEY)";
const FILL_DIGITS: &str = "INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)";

/// One statement, and so one transaction, that inserts this many rows in the order of their ids. Nested loops
/// over the digits, with the first digit outermost, need no sort.
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
    deadline: Duration,
) -> anyhow::Result<Watermark> {
    eventually("a newer watermark", deadline, async || {
        capture.check()?;
        // There may be no topic before the first watermark.
        let begun = than.is_some() || !migration.status().await?["source"].is_null();
        let last = if begun { replay::watermarks(migration).await?.pop() } else { None };
        let seen = format!("{:?}; {}", last.as_ref().map(|last| last.version), capture.tail());
        let newer = last.filter(|last| than.is_none_or(|than| last.version > than.version));
        Ok(Probe::some(newer, seen))
    })
    .await
}

/// Waits until everything that MySQL has executed is on the log. `deadline` is for each watermark. All of
/// them together have ten times as much.
async fn until_whole(
    migration: &mut Migration,
    capture: &mut Running,
    mut last: Watermark,
    deadline: Duration,
) -> anyhow::Result<()> {
    let executed = migration.executed().await?;
    eventually("all of the transaction", 10 * deadline, async || {
        if last.partial.is_none() && executed.is_subset(&last.gtid_set) {
            return Ok(Probe::Done(()));
        }
        last = newer(migration, capture, Some(&last), deadline).await?;
        Ok(Probe::Pending(format!("{last:?}; {}", capture.tail())))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_inside_a_large_transaction_its_rows_are_out_once() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let (rows, kills, batch) = if full() { (1_000_000, 20, 4000) } else { (30_000, 5, 250) };
    let mut migration = Migration::new(servers, "killtx", &[T_WITH_TEXT, DIGITS, FILL_DIGITS]).await?;
    migration.configure(&format!("[capture]\nmax_records = {batch}\n"), T_MAPPING)?;
    let mut capture = migration.start(&["capture"])?;
    let mut last = newer(&migration, &mut capture, None, MINUTE).await?;
    migration.mysql.query_drop(insert(rows)).await?;
    let mut inside = 0;
    for _ in 0..kills {
        // Until a part of the rest is published.
        newer(&migration, &mut capture, Some(&last), MINUTE).await?;
        // At any point within the rest.
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..60))).await;
        capture.kill()?;
        last = replay::watermarks(&migration).await?.pop().expect("there was one");
        inside += usize::from(last.partial.is_some());
        capture = migration.start(&["capture"])?;
    }
    until_whole(&mut migration, &mut capture, last, MINUTE).await?;
    capture.terminate().await?;

    let log = replay::changes(&migration).await?;
    let watermarks = replay::watermarks(&migration).await?;
    let cuts: Vec<usize> = (0..watermarks.len()).filter(|&i| watermarks[i].partial.is_some()).collect();
    // Printed even if the test passes: what the kills hit is part of the result.
    let _ = writeln!(
        std::io::stderr(),
        "{kills} kills, {inside} of them inside a transaction of {rows} rows, {} watermarks in it",
        cuts.len()
    );
    assert_eq!(log.len(), rows as usize);
    assert!(log.windows(2).all(|pair| pair[0].version < pair[1].version), "a version is there twice");
    assert!(inside > 0 && cuts.len() > kills, "{inside} kills inside, {} cuts", cuts.len());
    // Each key once, each with the same bytes as without a kill, from the first watermark and from inside the
    // transaction.
    assert_eq!(replay::same_again(&migration, &watermarks, 0, &log).await?, rows as usize);
    let partial = cuts[cuts.len() / 2];
    let left =
        rows as usize - watermarks[partial].partial.as_ref().map_or(0, |partial| partial.rows as usize);
    assert_eq!(replay::same_again(&migration, &watermarks, partial, &log).await?, left);
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_under_a_large_transaction() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let rows = if full() { 10_000_000 } else { 200_000 };
    let mut migration = Migration::new(servers, "hugetx", &[T_WITH_TEXT, DIGITS, FILL_DIGITS]).await?;
    migration.configure("", T_MAPPING)?;
    let mut capture = migration.start(&["capture"])?;
    let deadline = Duration::from_mins(10);
    let first = newer(&migration, &mut capture, None, deadline).await?;
    migration.mysql.query_drop(insert(rows)).await?;
    until_whole(&mut migration, &mut capture, first, deadline).await?;
    let peak = capture.peak_rss_mb()?;
    capture.terminate().await?;
    let _ = writeln!(std::io::stderr(), "a transaction of {rows} rows: at most {peak} MiB resident");
    assert_eq!(committed(&migration)?, rows as usize);
    let cuts = replay::watermarks(&migration).await?.iter().filter(|w| w.partial.is_some()).count();
    assert!(cuts > 3, "the transaction was partial only {cuts} times");
    assert!(peak < 256, "{peak} MiB resident");
    migration.drop().await
}

/// The number of committed records in the table's topic.
fn committed(migration: &Migration) -> anyhow::Result<usize> {
    let topic = migration.topics().changes(&migration.table("t"));
    let mut found = 0;
    read_to_end(&migration.servers.brokers, &topic, 3, false, |_| found += 1)?;
    Ok(found)
}
