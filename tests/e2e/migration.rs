//! Complete migrations by the real binary.

use std::process::Command;

use mysql_async::prelude::Queryable;
use serde_json::Value as Json;
use tandem_devstack::{Cassandra, Kafka};

use crate::support::{
    COMPARE_BIN, MINUTE, Migration, Probe, Running, Servers, eventually, finish, free_port, required,
};

const TABLES: [&str; 2] = [
    "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer INT NOT NULL, note VARCHAR(100), \
     amount DECIMAL(12,2) NOT NULL)",
    "INSERT INTO orders WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) \
     SELECT i, i % 7, IF(i % 3, CONCAT('note ', i), NULL), i / 100 FROM n",
];

const MAPPING: &str = "[[table]]\nsource = \"{db}.orders\"\n\
    [[table.target]]\ntable = \"orders\"\npartition_key = [\"id\"]\nrename = { amount = \"total\" }\n\
    [[table.target]]\ntable = \"by_customer\"\npartition_key = [\"customer\"]\nclustering_key = [\"id desc\"]\n";

/// Out-of-band writes: a wrong cell, a missing and an extra row.
const OUT_OF_BAND: [&str; 3] = [
    "UPDATE orders SET note = 'forged' WHERE id = 17",
    "DELETE FROM by_customer WHERE customer = 3 AND id = 10",
    "INSERT INTO by_customer (customer, id, note, amount) VALUES (99, 100001, 'extra', 1.5)",
];

/// A migration of `orders` with every row in Cassandra.
async fn migrated(servers: Servers, test: &str) -> anyhow::Result<(Migration, Running)> {
    let mut migration = Migration::new(servers, test, &TABLES).await?;
    migration.configure("", MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    migration.succeed(&["check"]).await?;
    let before = migration.status().await?;
    anyhow::ensure!(
        before["source"].is_null()
            && before["caught_up"]["holds"] == false
            && before["copied"]["holds"] == false,
        "before anything ran: {before:#}"
    );
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    Ok((migration, running))
}

/// The independent comparison, as `cargo xtask compare` runs it.
async fn compare(migration: &Migration) -> anyhow::Result<(bool, Json)> {
    let json = migration.path("compare.json");
    let mut command = Command::new(required(COMPARE_BIN));
    command.arg("--config").arg(migration.config()).arg("--json").arg(&json);
    let done = finish(command).await?;
    let text = std::fs::read_to_string(&json)
        .map_err(|e| anyhow::anyhow!("no comparison ({e}): {} {}", done.stdout, done.stderr))?;
    Ok((done.success, serde_json::from_str(&text)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_comparison_names_a_wrong_cell_a_missing_and_an_extra_row() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let (migration, running) = migrated(servers, "compare").await?;
    running.terminate().await?;
    let (equal, report) = compare(&migration).await?;
    assert!(equal && report["equal"] == true, "{report:#}");

    let cassandra = migration.cassandra().await?;
    for statement in OUT_OF_BAND {
        cassandra.query_unpaged(statement, ()).await?;
    }
    let (equal, report) = compare(&migration).await?;
    assert!(!equal && report["equal"] == false, "{report:#}");
    let text = report.to_string();
    for named in ["forged", "17", "customer=3 id=10", "customer=99 id=100001"] {
        assert!(text.contains(named), "{named} is not named: {report:#}");
    }
    let differing: u64 =
        report["tables"].as_array().unwrap().iter().map(|t| t["differing"].as_u64().unwrap()).sum();
    assert_eq!(differing, 3, "{report:#}");
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_band_writes_are_found_named_and_repaired() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let (mut migration, mut running) = migrated(servers, "repair").await?;
    let verified = migration.json(&["verify", "--full", "--json", "--exit-code"]).await?;
    assert_eq!((&verified["mismatches"], &verified["undecided"]), (&0.into(), &0.into()));
    // Both scans have covered every row: MySQL's once, Cassandra's in two tables.
    assert_eq!(verified["checked"], 1500);

    let cassandra = migration.cassandra().await?;
    for statement in OUT_OF_BAND {
        cassandra.query_unpaged(statement, ()).await?;
    }
    let found = migration.tandem(&["verify", "--full", "--json", "--exit-code"]).await?;
    assert!(!found.success, "{}", found.stdout);
    let verified: Json = serde_json::from_str(&found.stdout)?;
    assert_eq!(verified["mismatches"], 3, "{verified:#}");
    migration
        .until(&mut running, "every mismatch to be repaired", |s| {
            s["mismatches"]["resolved"] == 3 && s["mismatches"]["open"] == 0
        })
        .await?;
    migration.drained(&mut running).await?;
    running.terminate().await?;
    let (equal, report) = compare(&migration).await?;
    assert!(equal, "{report:#}");
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_resumes_where_it_was() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let (mut migration, mut running) = migrated(servers, "killed").await?;
    running.kill()?;
    for statement in [
        "UPDATE orders SET note = NULL, customer = customer + 1 WHERE id % 5 = 0",
        "DELETE FROM orders WHERE id % 11 = 0",
        "UPDATE orders SET id = id + 1000000 WHERE id % 13 = 0",
        "INSERT INTO orders VALUES (700, 1, 'new', 0.01), (701, 2, NULL, 0)",
    ] {
        migration.mysql.query_drop(statement).await?;
    }
    let before = migration.status().await?;
    let mut running = migration.start(&["run"])?;
    let after = migration.drained(&mut running).await?;
    assert!(after["source"]["version"].as_i64() > before["source"]["version"].as_i64());
    // Copied rows are not copied again.
    assert_eq!(after["tables"][0]["backfill"]["rows"], 500);
    assert_eq!(after["mismatches"]["found"], 0, "{after:#}");
    running.terminate().await?;
    let (equal, report) = compare(&migration).await?;
    assert!(equal, "{report:#}");
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn kafkas_own_tool_sees_the_lag_go_to_zero() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let kafka = Kafka::ephemeral()?;
    servers.brokers = kafka.brokers();
    let mut migration = Migration::new(servers, "lag", &TABLES).await?;
    migration.configure("", MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let group = format!("{}.apply", migration.prefix);
    let described = async || {
        let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        let tool = kafka.tool(class, &["--describe", "--group", &group])?;
        Ok::<_, anyhow::Error>(lag(&finish(tool).await?.stdout))
    };

    // Changes while apply does not run: the group has consumed before, so it lags.
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    running.terminate().await?;
    let mut capture = migration.start(&["capture"])?;
    migration.mysql.query_drop("UPDATE orders SET note = 'again'").await?;
    migration.until(&mut capture, "the lag to show", |s| s["lag"]["records"].as_i64() >= Some(500)).await?;
    let (partitions, behind) = described().await?;
    assert!(partitions > 0 && behind >= 500, "{partitions} partitions, {behind} records behind");
    capture.terminate().await?;

    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    // Six partitions: three of changes, three of the backfill.
    assert_eq!(described().await?, (6, 0));
    running.terminate().await?;
    migration.drop().await
}

/// The number of partitions and the sum of their lag, from the tool's table: GROUP TOPIC PARTITION
/// CURRENT-OFFSET LOG-END-OFFSET LAG …
fn lag(table: &str) -> (usize, i64) {
    let lags: Vec<i64> = table
        .lines()
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            columns.get(2)?.parse::<i32>().ok()?;
            Some(columns.get(5)?.parse::<i64>().unwrap_or(i64::MAX / 1000))
        })
        .collect();
    (lags.len(), lags.iter().sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_added_later_is_filled() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let (mut migration, running) = migrated(servers, "added").await?;
    running.terminate().await?;
    migration.mysql.query_drop("UPDATE orders SET note = NULL WHERE id % 2").await?;
    let note = "[[table.target]]\ntable = \"by_note\"\npartition_key = [\"id\"]\nexclude_from_target = [\"customer\", \"amount\"]\n";
    let controller = format!("[controller]\nlisten = \"127.0.0.1:{}\"\n", free_port()?);
    migration.configure(&controller, MAPPING)?;
    assert_eq!(left_to_copy(&migration).await?, 0);
    migration.configure(&controller, &format!("{MAPPING}{note}"))?;
    migration.succeed(&["schema", "create"]).await?;
    // The earlier backfill was for other targets, so it no longer counts.
    assert_eq!(left_to_copy(&migration).await?, 1);
    let status = migration.status().await?;
    assert_eq!(
        (&status["tables"][0]["backfill"]["done"], &status["copied"]["holds"]),
        (&false.into(), &false.into())
    );
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    running.terminate().await?;
    assert_eq!(copied_anew(&migration)?, 1);
    assert_eq!(left_to_copy(&migration).await?, 0);
    let (equal, report) = compare(&migration).await?;
    assert!(equal, "{report:#}");

    // The same targets in another notation: nothing is copied again.
    let renamed = note.replace("exclude_from_target", "rename = { note = \"note\" }\nexclude_from_target");
    migration.configure(&controller, &format!("{MAPPING}{renamed}"))?;
    assert_eq!(left_to_copy(&migration).await?, 1);
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    running.terminate().await?;
    assert_eq!(copied_anew(&migration)?, 1);
    assert_eq!(left_to_copy(&migration).await?, 0);
    migration.drop().await
}

/// How often a backfill started over.
fn copied_anew(migration: &Migration) -> anyhow::Result<usize> {
    let log = std::fs::read_to_string(migration.path("tandem.log"))?;
    Ok(log.matches("it is copied anew").count())
}

/// The number of tables that are not copied, according to a controller, while nothing else runs.
async fn left_to_copy(migration: &Migration) -> anyhow::Result<i64> {
    let mut controller = migration.start_as("controller", &["controller"])?;
    let left = eventually("the controller to count the tables", MINUTE, async || {
        controller.check()?;
        let status = migration.tandem(&["phase", "status", "--json"]).await?;
        let status: Json = serde_json::from_str(&status.stdout).unwrap_or_default();
        let left = status["measurements"]["backfill_tables_left"].as_i64();
        Ok(Probe::some(left, format!("{status:#} {}", controller.tail())))
    })
    .await?;
    controller.terminate().await?;
    Ok(left)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_taken_out_and_put_back_is_copied_again() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let (mut migration, running) = migrated(servers, "gap").await?;
    running.terminate().await?;
    migration.mysql.query_drop("CREATE TABLE other (id INT PRIMARY KEY)").await?;
    let other =
        "[[table]]\nsource = \"{db}.other\"\n[[table.target]]\ntable = \"other\"\npartition_key = [\"id\"]\n";
    // A new table besides the old one is accepted.
    migration.mysql.query_drop("UPDATE orders SET note = 'seen'").await?;
    migration.configure("", &format!("{MAPPING}{other}"))?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    running.terminate().await?;
    // Without `orders`, and then with it again: the changes in between are on no log.
    migration.configure("", other)?;
    let mut running = migration.start(&["run"])?;
    migration.mysql.query_drop("UPDATE orders SET note = 'unseen'").await?;
    migration.drained(&mut running).await?;
    running.terminate().await?;
    migration.configure("", &format!("{MAPPING}{other}"))?;
    let mut running = migration.start(&["run"])?;
    let not_captured = |s: &Json| s["tables"][0]["not_live"]["reason"] == "not-captured";
    migration.until(&mut running, "the table to be left out", not_captured).await?;
    migration.succeed(&["table", "rebuild", &format!("{}.orders", migration.database)]).await?;
    migration.until(&mut running, "the table to be live", |s| s["tables"][0]["state"] == "live").await?;
    migration.drained(&mut running).await?;
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    running.terminate().await?;
    migration.drop().await
}

/// While Cassandra does not answer, nothing counts as applied. Once it does, nothing is missing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_applied_before_cassandra_has_answered() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let cassandra = Cassandra::ephemeral()?;
    servers.nodes = vec![cassandra.node()];
    let (mut migration, mut running) = migrated(servers, "paused").await?;
    let drained = migration.status().await?;
    cassandra.pause()?;
    migration.mysql.query_drop("UPDATE orders SET note = CONCAT('late ', id)").await?;
    let captured = migration.until_captured(&mut running).await?;
    let captured_at = captured["source"]["version"].as_i64();
    // Some seconds of watermarks later, apply has long started on the changes.
    migration
        .until(&mut running, "time to pass on the log", |s| {
            s["source"]["version"].as_i64() > captured_at.map(|v| v + 3_000_000)
        })
        .await?;
    let waiting = migration.status().await?;
    assert!(waiting["lag"]["records"].as_i64() >= Some(500), "{waiting:#}");
    // The topics' lag counts transaction markers too; the table's does not.
    assert_eq!(waiting["tables"][0]["lag_records"], 500, "{waiting:#}");
    let applied = |status: &Json| {
        let topics = status["topics"].as_array().map_or(&[][..], Vec::as_slice);
        topics.iter().map(|topic| topic["applied"].as_i64()).collect::<Vec<_>>()
    };
    assert!(applied(&waiting).len() == 2 && applied(&waiting).iter().all(Option::is_some), "{waiting:#}");
    assert_eq!(applied(&waiting), applied(&drained), "{drained:#}\n{waiting:#}");
    assert!(waiting["lag"]["seconds"].as_f64() >= Some(3.0), "{waiting:#}");
    cassandra.resume()?;
    migration.drained(&mut running).await?;
    running.terminate().await?;
    let (equal, report) = compare(&migration).await?;
    assert!(equal, "{report:#}");
    migration.drop().await
}

const TYPES: [&str; 2] = [
    "CREATE TABLE things (j JSON, name TEXT CHARACTER SET latin2 NOT NULL, b1 BIT(1), b64 BIT(64), g GEOMETRY, \
     v VECTOR(3), k BIT(9) NOT NULL, w VARCHAR(9) CHARACTER SET utf16, s VARCHAR(9) CHARACTER SET sjis, \
     gen JSON AS (JSON_ARRAY(b1 + 0)) STORED, hidden INT INVISIBLE, PRIMARY KEY (name(4), k))",
    "INSERT INTO things (j, name, b1, b64, g, v, k, w, s) VALUES \
     ('{\"b\": [1, 2.50, 1e300], \"a\": null}', 'żółć and more', 1, 18446744073709551615, \
     ST_GeomFromText('POINT(1 2)', 4326), STRING_TO_VECTOR('[1, -2.5, 3]'), 511, 'a😀', '漢字'), \
     (NULL, 'other', 0, 0, NULL, NULL, 0, NULL, NULL)",
];

/// Types beyond numbers and texts, by backfill and by the binlog.
#[tokio::test(flavor = "multi_thread")]
async fn documents_bits_shapes_and_vectors_arrive() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut migration = Migration::new(servers, "types", &TYPES).await?;
    migration.configure(
        "",
        "[[table]]\nsource = \"{db}.things\"\n\
         [[table.target]]\ntable = \"things\"\npartition_key = [\"name\"]\nclustering_key = [\"k\"]\n",
    )?;
    migration.succeed(&["schema", "create"]).await?;
    migration.succeed(&["check"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    for statement in [
        "INSERT INTO things (j, name, b1, b64, g, v, k, w, s) SELECT JSON_ARRAY(CAST('2024-02-29' AS DATE), x'00ff', \
         CAST('1.50' AS DECIMAL(5,2)), j), 'new', b1, b64 - 1, ST_GeomFromText('LINESTRING(0 0, 1 1)'), \
         STRING_TO_VECTOR('[7]'), 1, w, s FROM things WHERE k = 511",
        // Only the part after the key's prefix changes. In Cassandra this is another row.
        "UPDATE things SET name = CONCAT(name, ' than that'), j = JSON_OBJECT('moved', true) WHERE k = 511",
        "DELETE FROM things WHERE name = 'other'",
    ] {
        migration.mysql.query_drop(statement).await?;
    }
    migration.drained(&mut running).await?;
    let report = migration.json(&["verify", "--full", "--json", "--exit-code"]).await?;
    running.terminate().await?;
    let (equal, compared) = compare(&migration).await?;
    assert!(equal, "{compared:#}");
    assert!(compared.to_string().contains("things") && report.to_string().contains("things"), "{report:#}");

    let cassandra = migration.cassandra().await?;
    let rows =
        cassandra.query_unpaged("SELECT name, j, b64, gen FROM things", ()).await?.into_rows_result()?;
    let mut found: Vec<(String, String, scylla::value::CqlVarint, String)> =
        rows.rows()?.collect::<Result<_, _>>()?;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let texts: Vec<_> =
        found.iter().map(|(name, j, _, gen_)| (name.as_str(), j.as_str(), gen_.as_str())).collect();
    let new = r#"["2024-02-29", "base64:type15:AP8=", 1.50, {"a": null, "b": [1, 2.5, 1e300]}]"#;
    assert_eq!(texts, [("new", new, "[1]"), ("żółć and more than that", r#"{"moved": true}"#, "[1]")]);
    let all = scylla::value::CqlVarint::from_signed_bytes_be([&[0][..], &[0xff; 8]].concat());
    assert_eq!(found[1].2, all);
    migration.drop().await
}
