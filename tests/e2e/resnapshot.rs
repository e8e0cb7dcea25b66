//! A log gap: the changes that capture could not read are given up, and both stores still become equal.

use std::collections::BTreeSet;

use mysql_async::prelude::Queryable;
use tandem_kafka::{Producer, read_all};
use tandem_model::{Phase, PhaseRecord};
use tandem_wire::control::{Mismatch, MismatchKind, decode_control};

use crate::support::{Migration, Servers, own_server, phase_record};

const TABLES: [&str; 4] = [
    "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer INT NOT NULL, note VARCHAR(100), n INT NOT NULL)",
    "INSERT INTO orders WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) \
     SELECT i, i % 7, CONCAT('note ', i), 0 FROM n",
    "CREATE TABLE emptied (id BIGINT PRIMARY KEY)",
    "INSERT INTO emptied VALUES (1), (2), (3)",
];

const MAPPING: &str = "[[table]]\nsource = \"{db}.orders\"\n\
    [[table.target]]\ntable = \"orders\"\npartition_key = [\"id\"]\n\
    [[table.target]]\ntable = \"by_customer\"\npartition_key = [\"customer\"]\nclustering_key = [\"id\"]\n\
    [[table]]\nsource = \"{db}.emptied\"\n[[table.target]]\ntable = \"emptied\"\npartition_key = [\"id\"]\n";

/// The target rows of MySQL's current rows, by the printed keys of mismatches.
async fn target_keys(migration: &mut Migration) -> anyhow::Result<BTreeSet<(String, Vec<String>)>> {
    let rows: Vec<(i64, i32)> = migration.mysql.query("SELECT id, customer FROM orders").await?;
    let keys = |(id, customer): (i64, i32)| {
        let (id, customer) = (id.to_string(), customer.to_string());
        [("orders".to_owned(), vec![id.clone()]), ("by_customer".to_owned(), vec![customer, id])]
    };
    let emptied: Vec<i64> = migration.mysql.query("SELECT id FROM emptied").await?;
    let emptied = emptied.into_iter().map(|id| ("emptied".to_owned(), vec![id.to_string()]));
    Ok(rows.into_iter().flat_map(keys).chain(emptied).collect())
}

/// Every row of a target, as JSON.
async fn rows(migration: &Migration, target: &str) -> anyhow::Result<BTreeSet<String>> {
    let found =
        migration.cassandra().await?.query_unpaged(format!("SELECT JSON * FROM {target}"), ()).await?;
    let rows = found.into_rows_result()?;
    rows.rows::<(String,)>()?.map(|row| Ok(row?.0)).collect()
}

async fn go_to(migration: &Migration, generation: u64, phase: Phase) -> anyhow::Result<()> {
    let record = PhaseRecord { generation, phase, ..PhaseRecord::default() };
    let record = phase_record(&migration.prefix, &record);
    Producer::start(&migration.kafka()).await?.send(vec![record]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_continues_after_purged_binlogs() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let mysql = own_server(&[])?;
    servers.mysql_url = mysql.url();
    let mut migration = Migration::new(servers, "resnapshot", &TABLES).await?;
    migration.configure("", MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let refused = migration.tandem(&["resnapshot", "--yes"]).await?;
    assert!(!refused.success && refused.stderr.contains("there is no log"), "{}", refused.stderr);

    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    let refused = migration.tandem(&["resnapshot", "--yes"]).await?;
    assert!(!refused.success && refused.stderr.contains("a capture publishes"), "{}", refused.stderr);
    running.terminate().await?;
    let before_the_gap = target_keys(&mut migration).await?;

    for statement in [
        "UPDATE orders SET note = NULL WHERE id % 5 = 0",
        "UPDATE orders SET customer = customer + 10 WHERE id % 30 = 0",
        "DELETE FROM orders WHERE id % 50 = 0",
        "DELETE FROM orders WHERE id IN (7, 8)",
        "INSERT INTO orders VALUES (700, 1, 'in the gap', 0)",
        "TRUNCATE emptied",
        "FLUSH BINARY LOGS",
    ] {
        migration.mysql.query_drop(statement).await?;
    }
    let file = mysql.query("SHOW BINARY LOG STATUS")?;
    let file = file.split_whitespace().next().expect("there is a binlog");
    migration.mysql.query_drop(format!("PURGE BINARY LOGS TO '{file}'")).await?;

    let stopped = migration.tandem(&["capture"]).await?;
    assert!(!stopped.success, "{}", stopped.stderr);
    assert!(
        stopped.stderr.contains("purged") && stopped.stderr.contains("`tandem resnapshot`"),
        "{}",
        stopped.stderr
    );
    let before = migration.status().await?;
    let plan = migration.json(&["resnapshot", "--json"]).await?;
    assert_eq!(plan["not_captured"], plan["purged"], "{plan:#}");
    assert!(plan["purged"] != "" && plan["lost"] == "" && plan["resnapshot"].is_null(), "{plan:#}");
    go_to(&migration, 1, Phase::Canary).await?;
    let refused = migration.tandem(&["resnapshot", "--yes"]).await?;
    assert!(!refused.success && refused.stderr.contains("Cassandra serves reads"), "{}", refused.stderr);
    let after = migration.status().await?;
    assert_eq!(before["source"]["version"], after["source"]["version"], "nothing was to change");
    go_to(&migration, 2, Phase::Verify).await?;

    let done = migration.json(&["resnapshot", "--yes", "--reason", "a test", "--json"]).await?;
    let after = migration.status().await?;
    assert_eq!(after["source"]["gtid_set"], plan["executed"], "{after:#}");
    assert_eq!(after["source"]["version"], done["resnapshot"]["version"]);
    assert!(after["source"]["version"].as_i64() > before["source"]["version"].as_i64());
    assert_eq!(after["tables"][0]["backfill"]["done"], false, "no copy of before the gap counts: {after:#}");

    // The changes after the gap do not show all of the gap's changes. An UPDATE does not write a column that
    // became NULL in the gap, and an INSERT does not show that the row existed before.
    for statement in [
        "UPDATE orders SET n = n + 1 WHERE id % 10 = 0",
        "INSERT INTO orders VALUES (7, 7 % 7, NULL, 0)",
        "INSERT INTO orders VALUES (701, 1, 'behind the gap', 0)",
    ] {
        migration.mysql.query_drop(statement).await?;
    }
    let mut capture = migration.start_as("capture", &["capture"])?;
    let mut apply = migration.start_as("apply", &["apply"])?;
    let backfill = migration.start_as("backfill", &["backfill"])?;
    migration.drained(&mut apply).await?;
    capture.check()?;
    drop(backfill);

    // Each row of MySQL is there as it is. So are the rows that were deleted in the gap, and no others.
    let now = target_keys(&mut migration).await?;
    let deleted: BTreeSet<_> = before_the_gap.difference(&now).cloned().collect();
    let mut expected = BTreeSet::new();
    let all: Vec<(i64, i32, Option<String>, i32)> = migration.mysql.query("SELECT * FROM orders").await?;
    for (id, customer, note, n) in all {
        let note = note.map_or("null".to_owned(), |note| format!("{note:?}"));
        expected.insert(format!(r#"{{"id": {id}, "customer": {customer}, "n": {n}, "note": {note}}}"#));
    }
    let found = rows(&migration, "orders").await?;
    let missing: Vec<_> = expected.difference(&found).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let extra = found.difference(&expected).count();
    assert_eq!(extra, deleted.iter().filter(|(target, _)| target == "orders").count());

    let mut reconcile = migration.start_as("reconcile", &["reconcile"])?;
    let report = migration.json(&["verify", "--full", "--json"]).await?;
    assert_eq!(report["mismatches"], deleted.len(), "{report:#}");
    let topic = migration.topics().mismatches();
    let mut named = BTreeSet::new();
    for record in read_all(&migration.kafka(), &topic).await? {
        let Some(value) = record.value else { continue };
        let mismatch: Mismatch = decode_control(&value)?;
        assert_eq!(mismatch.kind, MismatchKind::Extra, "{mismatch:?}");
        named.insert((mismatch.target, mismatch.target_key));
    }
    assert_eq!(named, deleted);
    migration
        .until(&mut reconcile, "every row that was deleted in the gap to be deleted", |s| {
            s["mismatches"]["open"] == 0 && s["mismatches"]["resolved"] == deleted.len()
        })
        .await?;
    assert_eq!(rows(&migration, "orders").await?, expected);
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    for running in [capture, apply, reconcile] {
        running.terminate().await?;
    }
    migration.drop().await
}
