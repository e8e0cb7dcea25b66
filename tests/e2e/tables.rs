//! One table halts, and the others go on: why tables halt, and how each is live again without a loss.

mod rewrites;

use mysql_async::prelude::Queryable;
use serde_json::Value as Json;

use crate::support::{MINUTE, Migration, Probe, Running, Servers, eventually};

/// The table that halts, and one that goes on.
const TABLES: [&str; 3] = [
    "CREATE TABLE orders (id INT PRIMARY KEY, customer INT NOT NULL, note VARCHAR(40), day DATE)",
    "INSERT INTO orders WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) \
     SELECT i, i % 7, CONCAT('note ', i), '2024-01-01' FROM n",
    "CREATE TABLE other (id INT PRIMARY KEY, n INT NOT NULL)",
];

/// With `extra` in the section of `orders`.
fn mapping(extra: &str) -> String {
    format!(
        "[[table]]\nsource = \"{{db}}.orders\"\nentity = \"order\"\n{extra}\n\
         [[table.target]]\ntable = \"orders\"\npartition_key = [\"id\"]\n\
         [[table.target]]\ntable = \"by_customer\"\npartition_key = [\"customer\"]\nclustering_key = [\"id\"]\n\
         [[table]]\nsource = \"{{db}}.other\"\nentity = \"other\"\n\
         [[table.target]]\ntable = \"other\"\npartition_key = [\"id\"]\n"
    )
}

/// A migration that runs, with every row applied.
async fn running(test: &str, extra: &str) -> anyhow::Result<(Migration, Running)> {
    let mut migration = Migration::new(Servers::from_env(), test, &TABLES).await?;
    migration.configure(extra, &mapping(""))?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    Ok((migration, running))
}

/// The status of `orders`.
fn orders(status: &Json) -> &Json {
    &status["tables"][0]
}

async fn until_state(migration: &Migration, running: &mut Running, state: &str) -> anyhow::Result<Json> {
    migration.until(running, &format!("orders to be {state}"), |s| orders(s)["state"] == state).await
}

/// Changes `other`, and waits until the change is in Cassandra.
async fn other_goes_on(migration: &mut Migration, running: &mut Running, id: i32) -> anyhow::Result<()> {
    migration.mysql.query_drop(format!("INSERT INTO other VALUES ({id}, {id})")).await?;
    let session = migration.cassandra().await?;
    eventually("the other table to go on", MINUTE, async || {
        running.check()?;
        let query = format!("SELECT n FROM other WHERE id = {id}");
        let rows = session.query_unpaged(query, ()).await?.into_rows_result()?.rows_num();
        Ok(Probe::when(rows == 1, rows))
    })
    .await
}

/// Changes of every kind in `orders`, one of a key of the second target.
const CHANGES: [&str; 5] = [
    "INSERT INTO orders VALUES (1001, 1, 'new', NULL), (1002, 2, NULL, '2024-02-02')",
    "UPDATE orders SET note = NULL WHERE id % 5 = 0",
    "UPDATE orders SET customer = customer + 10 WHERE id % 9 = 0",
    "DELETE FROM orders WHERE id % 11 = 0",
    "UPDATE orders SET id = id + 5000 WHERE id = 3",
];

async fn change(migration: &mut Migration, statements: &[&str]) -> anyhow::Result<()> {
    for statement in statements {
        migration.mysql.query_drop(*statement).await?;
    }
    Ok(())
}

/// Waits until `orders` is live and everything is applied, and compares both stores.
async fn live_and_equal(migration: &mut Migration, running: &mut Running) -> anyhow::Result<()> {
    until_state(migration, running, "live").await?;
    migration.drained(running).await?;
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    Ok(())
}

/// A table that is halted by hand keeps its changes. Apply is killed while the table is halted, and while it is replayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_halted_table_keeps_its_changes_and_resumes() -> anyhow::Result<()> {
    let (mut migration, mut running) = running("tablehalt", "").await?;
    let table = format!("{}.orders", migration.database);
    let refused = migration.tandem(&["table", "resume", &table]).await?;
    assert!(!refused.success && refused.stderr.contains("only a halted table can resume"), "{refused:?}");
    migration.succeed(&["table", "halt", &table, "--reason", "a test"]).await?;
    change(&mut migration, &CHANGES).await?;
    other_goes_on(&mut migration, &mut running, 1).await?;
    running.kill()?;
    let mut running = migration.start_as("second", &["run"])?;
    change(&mut migration, &["INSERT INTO orders VALUES (1003, 3, 'halted still', NULL)"]).await?;
    other_goes_on(&mut migration, &mut running, 2).await?;
    let status = until_state(&migration, &mut running, "halted").await?;
    assert_eq!(orders(&status)["not_live"]["reason"], "by-hand", "{status:#}");
    assert!(status["caught_up"]["why_not"].to_string().contains("not live: "), "{status:#}");
    // Its changes are not in Cassandra, and a verification leaves the table out instead of reporting them.
    let session = migration.cassandra().await?;
    let found = session.query_unpaged("SELECT id FROM orders WHERE id IN (1001, 1003)", ()).await?;
    assert_eq!(found.into_rows_result()?.rows_num(), 0);
    let verified = migration.tandem(&["verify", "--full", "--json", "--exit-code"]).await?;
    let report: Json = serde_json::from_str(&verified.stdout)?;
    assert!(!verified.success && report["mismatches"] == 0, "{report:#}");
    assert_eq!(
        (&report["tables"][0]["halted"], &report["tables"][1]["halted"]),
        (&true.into(), &false.into())
    );

    migration.succeed(&["table", "resume", &table]).await?;
    running.until_logged("the changes that were not applied are replayed", 0).await?;
    running.kill()?;
    let mut running = migration.start_as("third", &["run"])?;
    change(&mut migration, &["UPDATE orders SET note = 'replayed' WHERE id = 1001"]).await?;
    live_and_equal(&mut migration, &mut running).await?;
    // The replay brought all of it. The verification had nothing to find, and reconcile nothing to repair.
    assert_eq!(migration.status().await?["mismatches"]["found"], 0);
    running.terminate().await?;
    migration.drop().await
}

/// More bad rows than the limit halt their table alone. Under the corrected mapping it resumes at the first record that was
/// not applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_mapping_halts_its_table_alone() -> anyhow::Result<()> {
    let limit = "[apply]\nmax_dead_letters_per_minute = 3\n";
    let (mut migration, mut running) = running("tablelimit", limit).await?;
    let mut lax = migration.session().await?;
    lax.query_drop("SET SESSION sql_mode = ''").await?;
    lax.query_drop("INSERT INTO orders SELECT id + 2000, customer, note, 0 FROM orders WHERE id <= 20")
        .await?;
    let status = until_state(&migration, &mut running, "halted").await?;
    let why = &orders(&status)["not_live"];
    assert_eq!((&why["reason"], &why["by"]), (&"too-many-dead-letters".into(), &"apply".into()), "{why:#}");
    change(&mut migration, &CHANGES).await?;
    other_goes_on(&mut migration, &mut running, 1).await?;
    running.terminate().await?;

    migration.configure(limit, &mapping("zero_dates = \"null\""))?;
    let mut running = migration.start_as("second", &["run"])?;
    other_goes_on(&mut migration, &mut running, 2).await?;
    migration.succeed(&["table", "resume", &format!("{}.orders", migration.database)]).await?;
    live_and_equal(&mut migration, &mut running).await?;
    running.terminate().await?;
    migration.drop().await
}

/// A new column halts its table at the first change that has it. Once the targets have the column too, the table resumes,
/// and is copied again for the rows that got its default.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_halts_its_table_alone() -> anyhow::Result<()> {
    let (mut migration, mut running) = running("tablecolumn", "").await?;
    change(&mut migration, &["ALTER TABLE orders ADD COLUMN extra INT DEFAULT 7"]).await?;
    change(&mut migration, &["UPDATE orders SET extra = 8, note = 'altered' WHERE id < 50"]).await?;
    let status = until_state(&migration, &mut running, "halted").await?;
    let why = &orders(&status)["not_live"];
    assert_eq!(why["reason"], "mapping-does-not-fit", "{why:#}");
    assert!(why["cause"].as_str().is_some_and(|cause| cause.contains("extra")), "{why:#}");
    other_goes_on(&mut migration, &mut running, 1).await?;
    running.terminate().await?;
    let resume = format!("{}.orders", migration.database);
    // A process that starts now leaves the table out, and halts it again if it resumes too early.
    let mut running = migration.start_as("second", &["run"])?;
    other_goes_on(&mut migration, &mut running, 2).await?;
    migration.succeed(&["table", "resume", &resume]).await?;
    change(&mut migration, &["UPDATE orders SET extra = 9 WHERE id < 10"]).await?;
    let left_out = |s: &Json| orders(s)["not_live"]["reason"] == "left-out-at-start";
    migration.until(&mut running, "orders to halt again", left_out).await?;
    other_goes_on(&mut migration, &mut running, 3).await?;
    running.terminate().await?;
    let session = migration.cassandra().await?;
    for target in ["orders", "by_customer"] {
        session.query_unpaged(format!("ALTER TABLE {target} ADD extra int"), ()).await?;
    }
    let mut running = migration.start_as("third", &["run"])?;
    migration.succeed(&["table", "resume", &resume]).await?;
    live_and_equal(&mut migration, &mut running).await?;
    running.terminate().await?;
    migration.drop().await
}

/// Applies nothing while the table is changed, altered and changed again. Returns the running process of the mapping that has the
/// columns of after the ALTER.
async fn altered_behind_apply(
    migration: &mut Migration,
    running: Running,
    alter: &str,
    mapping: &str,
    targets: &str,
) -> anyhow::Result<Running> {
    running.terminate().await?;
    let mut capture = migration.start_as("capture", &["capture"])?;
    change(migration, &CHANGES).await?;
    change(migration, &[alter, "UPDATE orders SET day = '2024-03-03' WHERE id < 50"]).await?;
    migration.until_captured(&mut capture).await?;
    capture.terminate().await?;
    let session = migration.cassandra().await?;
    for target in ["orders", "by_customer"].iter().filter(|_| !targets.is_empty()) {
        session.query_unpaged(format!("ALTER TABLE {target} {targets}"), ()).await?;
    }
    migration.configure("", mapping)?;
    migration.start_as("second", &["run"])
}

/// Changes from before an ALTER wait on the log while the mapping gets the new column. They are applied, deletes and moved keys
/// included, and the copy for the new column fills what they lack.
#[tokio::test(flavor = "multi_thread")]
async fn changes_from_before_an_alter_fit_the_mapping_of_after_it() -> anyhow::Result<()> {
    let (mut migration, running) = running("tableformer", "").await?;
    let alter = "ALTER TABLE orders ADD COLUMN extra INT DEFAULT 7";
    let mut running =
        altered_behind_apply(&mut migration, running, alter, &mapping(""), "ADD extra int").await?;
    live_and_equal(&mut migration, &mut running).await?;
    let session = migration.cassandra().await?;
    let found =
        session.query_unpaged("SELECT id FROM by_customer WHERE extra = 7 ALLOW FILTERING", ()).await?;
    assert!(found.into_rows_result()?.rows_num() > 100);
    running.terminate().await?;
    migration.drop().await
}

/// No copy comes for a column that is renamed in MySQL and in the mapping. So a change from before that halts the table, instead
/// of losing its value.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_from_before_a_renamed_column_halts_its_table() -> anyhow::Result<()> {
    let (mut migration, running) = running("tablerenamed", "").await?;
    let alter = "ALTER TABLE orders RENAME COLUMN note TO remark";
    // In both targets of `orders`.
    let renamed = "rename = { remark = \"note\" }\npartition_key";
    let renamed = mapping("").replacen("partition_key", renamed, 2);
    let mut running = altered_behind_apply(&mut migration, running, alter, &renamed, "").await?;
    let status = until_state(&migration, &mut running, "halted").await?;
    let why = &orders(&status)["not_live"];
    assert_eq!((&why["reason"], &why["by"]), (&"mapping-does-not-fit".into(), &"apply".into()), "{why:#}");
    migration.succeed(&["table", "rebuild", &format!("{}.orders", migration.database)]).await?;
    live_and_equal(&mut migration, &mut running).await?;
    running.terminate().await?;
    migration.drop().await
}

/// A table is taken out and put back while the other goes on. It is copied again, and rows that vanished are found. A third
/// table is ordered before any process knows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_removed_and_added_while_the_others_go_on() -> anyhow::Result<()> {
    let (mut migration, mut running) = running("tableremove", "").await?;
    let table = format!("{}.orders", migration.database);
    let refused = migration.tandem(&["table", "add", &table]).await?;
    assert!(!refused.success && refused.stderr.contains("is there already, and live"), "{refused:?}");
    migration.succeed(&["table", "remove", &table, "--reason", "for a while"]).await?;
    let status = until_state(&migration, &mut running, "halted").await?;
    assert_eq!(orders(&status)["not_live"]["reason"], "removed", "{status:#}");
    change(&mut migration, &CHANGES).await?;
    other_goes_on(&mut migration, &mut running, 1).await?;
    migration.succeed(&["table", "add", &table]).await?;
    let refused = migration.tandem(&["table", "add", &table]).await?;
    assert!(!refused.success && refused.stderr.contains("is there already: it is "), "{refused:?}");
    live_and_equal(&mut migration, &mut running).await?;

    change(&mut migration, &["CREATE TABLE third (id INT PRIMARY KEY)", "INSERT INTO third VALUES (1), (2)"])
        .await?;
    let third =
        "[[table]]\nsource = \"{db}.third\"\n[[table.target]]\ntable = \"third\"\npartition_key = [\"id\"]\n";
    migration.configure("", &format!("{}{third}", mapping("")))?;
    migration.succeed(&["schema", "create"]).await?;
    let name = format!("{}.third", migration.database);
    for order in ["add", "remove", "rebuild"] {
        migration.succeed(&["table", order, &name]).await?;
    }
    change(&mut migration, &["DELETE FROM third WHERE id = 2"]).await?;
    running.terminate().await?;
    let mut running = migration.start_as("second", &["run"])?;
    migration
        .until(&mut running, "the third table to be live", |s| s["tables"][2]["state"] == "live")
        .await?;
    live_and_equal(&mut migration, &mut running).await?;
    running.terminate().await?;
    migration.drop().await
}

/// A TRUNCATE halts its table by default, and so does a table that goes away. Capture goes on with the others. Each time the
/// table is copied again, and rows that vanished are found.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_and_a_renamed_table_are_rebuilt_while_the_others_go_on() -> anyhow::Result<()> {
    let (mut migration, mut running) = running("tablerebuild", "").await?;
    let table = format!("{}.orders", migration.database);
    let renamed =
        ["RENAME TABLE orders TO away", "DELETE FROM away WHERE id = 1001", "RENAME TABLE away TO orders"];
    for (number, reason, statements) in
        [(1, "truncate", &["TRUNCATE orders"][..]), (2, "rename-table", &renamed[..])]
    {
        change(&mut migration, statements).await?;
        let status = until_state(&migration, &mut running, "halted").await?;
        let why = &orders(&status)["not_live"];
        assert_eq!((&why["reason"], &why["by"]), (&reason.into(), &"capture".into()), "{why:#}");
        assert!(why["remedy"].as_str().is_some_and(|r| r.contains("tandem table rebuild")), "{why:#}");
        let refused = migration.tandem(&["table", "resume", &table]).await?;
        assert!(!refused.success && refused.stderr.contains("must be rebuilt"), "{refused:?}");
        // Changes of the halted table, and of the other one, which is captured on.
        change(&mut migration, &["INSERT INTO orders VALUES (7000, 1, 'halted', NULL)"]).await?;
        other_goes_on(&mut migration, &mut running, number).await?;
        migration.succeed(&["table", "rebuild", &table]).await?;
        change(&mut migration, &["UPDATE orders SET note = 'copied' WHERE id = 7000"]).await?;
        live_and_equal(&mut migration, &mut running).await?;
        change(
            &mut migration,
            &["DELETE FROM orders WHERE id = 7000", "REPLACE INTO orders VALUES (1001, 1, 'new', NULL)"],
        )
        .await?;
        migration.drained(&mut running).await?;
    }
    running.terminate().await?;
    migration.drop().await
}

/// Somebody drops a target. Its table halts, and is copied again into a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_target_halts_its_table_alone() -> anyhow::Result<()> {
    let (mut migration, mut running) = running("tabletarget", "").await?;
    let table = format!("{}.orders", migration.database);
    migration.cassandra().await?.query_unpaged("DROP TABLE by_customer", ()).await?;
    change(&mut migration, &CHANGES).await?;
    let status = until_state(&migration, &mut running, "halted").await?;
    assert_eq!(orders(&status)["not_live"]["by"], "apply", "{status:#}");
    other_goes_on(&mut migration, &mut running, 1).await?;
    // A process that starts now leaves the table out.
    running.terminate().await?;
    let mut running = migration.start_as("second", &["run"])?;
    other_goes_on(&mut migration, &mut running, 2).await?;
    running.terminate().await?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start_as("third", &["run"])?;
    migration.succeed(&["table", "rebuild", &table]).await?;
    live_and_equal(&mut migration, &mut running).await?;
    running.terminate().await?;
    migration.drop().await
}
