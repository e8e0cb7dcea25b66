//! Statements that change rows without row changes: the table is verified, repaired and live again, without an order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tandem_kafka::Producer;
use tandem_protocol::table_state::recheck;
use tokio::task::JoinHandle;

use super::*;

/// `orders` goes on after a TRUNCATE.
const APPLY: &str = "on_truncate = \"apply\"";

/// Waits until `orders` is not live for this reason. Then its state changes by itself.
async fn until_rewritten(migration: &Migration, running: &mut Running, reason: &str) -> anyhow::Result<()> {
    let event = format!("orders to be verified because of {reason}");
    let is = |s: &Json| orders(s)["not_live"]["reason"] == reason && orders(s)["state"] == "verifying";
    migration.until(running, &event, is).await?;
    Ok(())
}

/// Clients that change `orders` until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<anyhow::Result<i32>>,
}

impl Load {
    async fn on(migration: &Migration) -> anyhow::Result<Self> {
        let (stop, mut session) = (Arc::new(AtomicBool::new(false)), migration.session().await?);
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut n = 0;
            while !stopped.load(Ordering::Relaxed) {
                n += 1;
                let id = 20_000 + n;
                session
                    .query_drop(format!("INSERT INTO orders (id, customer, note) VALUES ({id}, {n}, 'n')"))
                    .await?;
                session
                    .query_drop(format!("UPDATE orders SET customer = {n} WHERE id = {}", n % 150))
                    .await?;
                session.query_drop(format!("DELETE FROM orders WHERE id = {}", id - 7)).await?;
            }
            Ok(n)
        });
        Ok(Self { stop, task })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.task.await?? > 10);
        Ok(())
    }
}

/// The statements of gh-ost, which copies its own changes of the binlog, and of pt-online-schema-change, which has triggers
/// for that, on a table that clients change. Both end with a swap of two tables.
#[tokio::test(flavor = "multi_thread")]
async fn the_tables_of_online_schema_changes_are_swapped_under_load() -> anyhow::Result<()> {
    let (mut migration, mut running) = running("tableswap", "").await?;
    let load = Load::on(&migration).await?;
    change(
        &mut migration,
        &[
            "CREATE TABLE _orders_ghc (id BIGINT AUTO_INCREMENT PRIMARY KEY, hint VARCHAR(64) NOT NULL UNIQUE, value TEXT)",
            "CREATE TABLE _orders_gho LIKE orders",
            "ALTER TABLE _orders_gho MODIFY note VARCHAR(80)",
            "INSERT INTO _orders_ghc (hint, value) VALUES ('state', 'copying')",
            "INSERT IGNORE INTO _orders_gho SELECT * FROM orders FOR SHARE",
            "LOCK TABLES orders WRITE, _orders_gho WRITE",
            // Here gh-ost brings what has changed since.
            "DELETE FROM _orders_gho",
            "INSERT INTO _orders_gho SELECT * FROM orders",
            "UPDATE _orders_gho SET note = 'by gh-ost' WHERE id % 50 = 1",
            "RENAME TABLE orders TO _orders_del, _orders_gho TO orders",
            "UNLOCK TABLES",
            "DROP TABLE _orders_ghc, _orders_del",
        ],
    )
    .await?;
    until_rewritten(&migration, &mut running, "rename-table").await?;
    other_goes_on(&mut migration, &mut running, 1).await?;
    until_state(&migration, &mut running, "live").await?;
    change(
        &mut migration,
        &[
            "CREATE TABLE _orders_new LIKE orders",
            "ALTER TABLE _orders_new ADD INDEX by_day (day)",
            "CREATE TRIGGER pt_osc_del AFTER DELETE ON orders FOR EACH ROW \
             DELETE IGNORE FROM _orders_new WHERE _orders_new.id <=> OLD.id",
            "CREATE TRIGGER pt_osc_upd AFTER UPDATE ON orders FOR EACH ROW BEGIN \
             DELETE IGNORE FROM _orders_new WHERE !(OLD.id <=> NEW.id) AND _orders_new.id <=> OLD.id; \
             REPLACE INTO _orders_new VALUES (NEW.id, NEW.customer, NEW.note, NEW.day); END",
            "CREATE TRIGGER pt_osc_ins AFTER INSERT ON orders FOR EACH ROW \
             REPLACE INTO _orders_new VALUES (NEW.id, NEW.customer, NEW.note, NEW.day)",
            "INSERT LOW_PRIORITY IGNORE INTO _orders_new SELECT * FROM orders LOCK IN SHARE MODE",
            "RENAME TABLE orders TO _orders_old, _orders_new TO orders",
            "DROP TABLE IF EXISTS _orders_old",
        ],
    )
    .await?;
    until_rewritten(&migration, &mut running, "rename-table").await?;
    load.end().await?;
    live_and_equal(&mut migration, &mut running).await?;
    running.terminate().await?;
    migration.drop().await
}

/// An ALTER cuts values without row changes, partitions vanish, and a TRUNCATE is applied where the mapping says so.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_statement_changes_are_found_and_repaired() -> anyhow::Result<()> {
    let mut migration = Migration::new(Servers::from_env(), "tablerewrite", &TABLES).await?;
    migration.configure("", &mapping(APPLY))?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    let partitioned = "ALTER TABLE orders PARTITION BY RANGE (id) \
        (PARTITION low VALUES LESS THAN (51), PARTITION high VALUES LESS THAN MAXVALUE)";
    for (reason, statements, left) in [
        ("alter-table", &["SET SESSION sql_mode = ''", "ALTER TABLE orders MODIFY note VARCHAR(4)"][..], 200),
        ("truncate", &[partitioned, "ALTER TABLE orders DROP PARTITION low"], 150),
        ("truncate", &["TRUNCATE orders", "INSERT INTO orders VALUES (1, 1, 'new', NULL)"], 1),
    ] {
        change(&mut migration, statements).await?;
        until_rewritten(&migration, &mut running, reason).await?;
        other_goes_on(&mut migration, &mut running, left).await?;
        live_and_equal(&mut migration, &mut running).await?;
        let session = migration.cassandra().await?;
        let rows = session.query_unpaged("SELECT id, note FROM orders", ()).await?.into_rows_result()?;
        assert_eq!(rows.rows_num(), left as usize, "{reason}");
        for row in rows.rows::<(i32, Option<String>)>()? {
            assert!(row?.1.is_none_or(|note| note.len() <= 4));
        }
    }
    running.terminate().await?;
    migration.drop().await
}

/// A new column is added to the targets, and the table is copied again for the rows that got its default. Nobody has to do
/// anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_is_added_to_the_targets() -> anyhow::Result<()> {
    let mut migration = Migration::new(Servers::from_env(), "tableextend", &TABLES).await?;
    migration.configure("", &mapping("on_new_column = \"add\""))?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    let load = Load::on(&migration).await?;
    change(&mut migration, &["ALTER TABLE orders ADD COLUMN extra DECIMAL(8, 2) DEFAULT 7.25"]).await?;
    change(&mut migration, &["UPDATE orders SET extra = 8 WHERE id < 50"]).await?;
    other_goes_on(&mut migration, &mut running, 1).await?;
    let event = "both targets to have the column, and orders to be live";
    let session = migration.cassandra().await?;
    eventually(event, 2 * MINUTE, async || {
        running.check()?;
        let status = migration.status().await?;
        let live = orders(&status)["state"] == "live" && status["copied"]["holds"] == true;
        let mut filled = 0;
        for target in ["orders", "by_customer"] {
            let query = format!("SELECT extra FROM {target}");
            // Without the column this is an error.
            let Ok(found) = session.query_unpaged(query, ()).await else { continue };
            let rows = found.into_rows_result()?;
            let all =
                rows.rows::<(Option<scylla::value::CqlDecimal>,)>()?.flatten().all(|row| row.0.is_some());
            filled += usize::from(all);
        }
        Ok(Probe::when(live && filled == 2, format!("{filled}: {status:#}; {}", running.tail())))
    })
    .await?;
    load.end().await?;
    live_and_equal(&mut migration, &mut running).await?;
    running.terminate().await?;
    migration.drop().await
}

/// A mapped column is dropped, also from rows that wait on the log. The table goes on without it. A dropped column that the
/// mapping names halts its table alone, until the mapping is right again.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_concerns_its_table_alone() -> anyhow::Result<()> {
    let (mut migration, mut running) = running("tabledrop", "").await?;
    let load = Load::on(&migration).await?;
    change(&mut migration, &["ALTER TABLE orders DROP COLUMN day"]).await?;
    other_goes_on(&mut migration, &mut running, 1).await?;
    let event = "orders to be copied without the column, and live";
    let live = |s: &Json| s["mapping"]["generation"] == 2 && orders(s)["state"] == "live";
    migration.until(&mut running, event, live).await?;
    load.end().await?;
    live_and_equal(&mut migration, &mut running).await?;

    change(&mut migration, &["ALTER TABLE orders RENAME COLUMN customer TO client"]).await?;
    change(&mut migration, &["UPDATE orders SET client = client + 1 WHERE id < 50"]).await?;
    let status = until_state(&migration, &mut running, "halted").await?;
    let reasons = ["left-out-at-start", "mapping-does-not-fit"];
    assert!(reasons.iter().any(|reason| orders(&status)["not_live"]["reason"] == *reason), "{status:#}");
    other_goes_on(&mut migration, &mut running, 2).await?;
    running.terminate().await?;
    let renamed = "rename = { client = \"customer\" }\npartition_key";
    let renamed = mapping("").replacen("partition_key", renamed, 2).replace("[\"customer\"]", "[\"client\"]");
    migration.configure("", &renamed)?;
    let mut running = migration.start_as("second", &["run"])?;
    migration.succeed(&["table", "rebuild", &format!("{}.orders", migration.database)]).await?;
    live_and_equal(&mut migration, &mut running).await?;
    running.terminate().await?;
    migration.drop().await
}

/// A table waits for a new column while another one keeps apply from starting with it. Both go on meanwhile with what apply
/// has, and the status says why. Once the other one is right, the column comes by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_waits_while_apply_cannot_start() -> anyhow::Result<()> {
    let mut migration = Migration::new(Servers::from_env(), "tablewaits", &TABLES).await?;
    migration.configure("", &mapping("on_new_column = \"add\""))?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    // Its target lacks the column, and nothing says so before a change has it.
    change(
        &mut migration,
        &["ALTER TABLE other ADD COLUMN late INT", "ALTER TABLE orders ADD COLUMN extra INT"],
    )
    .await?;
    change(&mut migration, &["UPDATE orders SET extra = 8 WHERE id < 50"]).await?;
    let event = "apply to wait with a new column";
    let waits = |s: &Json| s["processes"][0]["waits"].to_string().contains("column `late` is missing");
    let status = migration.until(&mut running, event, waits).await?;
    assert_eq!(orders(&status)["not_live"]["reason"], "new-column", "{status:#}");
    let session = migration.cassandra().await?;
    session.query_unpaged("ALTER TABLE other ADD late int", ()).await?;
    until_state(&migration, &mut running, "live").await?;
    change(&mut migration, &["INSERT INTO other VALUES (1, 1, 1)"]).await?;
    live_and_equal(&mut migration, &mut running).await?;
    running.terminate().await?;
    migration.drop().await
}

/// An ALTER turns NULL into zero dates, which have no form in Cassandra. No change of the rows says so. They become dead
/// letters before the table is live.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_an_alter_makes_bad_are_dead_letters() -> anyhow::Result<()> {
    let (mut migration, mut running) = running("tablebad", "").await?;
    change(&mut migration, &["INSERT INTO orders (id, customer) VALUES (301, 1), (302, 2)"]).await?;
    change(&mut migration, &["SET SESSION sql_mode = ''", "ALTER TABLE orders MODIFY day DATE NOT NULL"])
        .await?;
    let bad = |s: &Json| orders(s)["state"] == "live" && orders(s)["dead_letters"] == 2;
    migration.until(&mut running, "two dead letters, and orders to be live", bad).await?;
    other_goes_on(&mut migration, &mut running, 1).await?;
    change(&mut migration, &["UPDATE orders SET day = '2024-05-05' WHERE id IN (301, 302)"]).await?;
    migration
        .until(&mut running, "the dead letters to be settled", |s| orders(s)["dead_letters"] == 0)
        .await?;
    live_and_equal(&mut migration, &mut running).await?;
    running.terminate().await?;
    migration.drop().await
}

/// A new column is ignored, also after apply has started again because of another ALTER.
#[tokio::test(flavor = "multi_thread")]
async fn an_ignored_column_stays_ignored() -> anyhow::Result<()> {
    let mut migration = Migration::new(Servers::from_env(), "tableignore", &TABLES).await?;
    migration.configure("", &mapping("on_new_column = \"ignore\""))?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    change(&mut migration, &["ALTER TABLE orders ADD COLUMN extra INT DEFAULT 7"]).await?;
    change(&mut migration, &["UPDATE orders SET extra = 8, note = 'x' WHERE id < 50"]).await?;
    change(&mut migration, &["ALTER TABLE orders MODIFY note VARCHAR(80)"]).await?;
    until_rewritten(&migration, &mut running, "alter-table").await?;
    change(&mut migration, &["UPDATE orders SET extra = 9, note = 'y' WHERE id < 40"]).await?;
    live_and_equal(&mut migration, &mut running).await?;
    running.terminate().await?;
    let mut running = migration.start_as("second", &["run"])?;
    change(&mut migration, &["UPDATE orders SET extra = 10, note = 'z' WHERE id < 30"]).await?;
    live_and_equal(&mut migration, &mut running).await?;
    running.terminate().await?;
    migration.drop().await
}

/// The state of a table says that a statement has changed it before the statement, and what came before it, is on the log. A
/// verification that rests on less of the log than MySQL has executed would see both stores agree, and miss what is still to be
/// applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_waits_for_what_mysql_has_executed() -> anyhow::Result<()> {
    let mut migration = Migration::new(Servers::from_env(), "tablecovers", &TABLES).await?;
    migration.configure("", &mapping(APPLY))?;
    migration.succeed(&["schema", "create"]).await?;
    let capture = migration.start_as("capture", &["capture"])?;
    let mut apply = migration.start_as("apply", &["apply"])?;
    let mut verify = migration.start_as("verify", &["verify"])?;
    migration.start_as("backfill", &["backfill"])?.until_ended().await?;
    migration.drained(&mut apply).await?;
    verify.until_logged("runs role=verify", 0).await?;
    capture.signal("STOP")?;
    change(
        &mut migration,
        &["INSERT INTO orders (id, customer) VALUES (400, 1)", "DELETE FROM orders WHERE id = 400"],
    )
    .await?;
    // As capture does before it publishes the statement.
    let state = recheck(None, &migration.table("orders"), "TRUNCATE", "capture", 1).expect("a live table");
    let record = state.record(&migration.topics().control())?;
    Producer::start(&migration.kafka()).await?.send(vec![record]).await?;
    until_rewritten(&migration, &mut verify, "truncate").await?;
    for _ in 0..3 {
        // It takes longer than a verification of the table.
        migration.succeed(&["verify", "--full"]).await?;
    }
    assert_eq!(orders(&migration.status().await?)["state"], "verifying");
    capture.signal("CONT")?;
    live_and_equal(&mut migration, &mut verify).await?;
    for running in [capture, apply, verify] {
        running.terminate().await?;
    }
    migration.drop().await
}
