//! Migrations with targets that hold a part of the rows.

use mysql_async::prelude::Queryable;
use serde_json::Value as Json;

use crate::support::{Migration, Running, Servers};

const TABLES: [&str; 2] = [
    "CREATE TABLE invoices (id BIGINT PRIMARY KEY, account INT NOT NULL, note VARCHAR(100), \
     status ENUM('draft','open','paid'))",
    "INSERT INTO invoices WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) \
     SELECT i, i % 7, IF(i % 3, CONCAT('note ', i), NULL), ELT(i % 4, 'draft', 'open', 'paid') FROM n",
];

/// `issued` holds the rows that `filter` accepts, without the column that the filter uses.
fn mapping(filter: &str) -> String {
    format!(
        "[[table]]\nsource = \"{{db}}.invoices\"\n\
         [[table.target]]\ntable = \"invoices\"\npartition_key = [\"id\"]\n\
         [[table.target]]\ntable = \"issued\"\npartition_key = [\"account\"]\nclustering_key = [\"id desc\"]\n\
         exclude_from_target = [\"status\"]\nwhere = {filter:?}\n"
    )
}

const ISSUED: &str = "status != 'draft'";
/// The same in SQL, where a comparison with NULL is not true.
const ISSUED_SQL: &str = "status <> 'draft' OR status IS NULL";

async fn prepared(servers: Servers, test: &str, filter: &str) -> anyhow::Result<Migration> {
    let migration = Migration::new(servers, test, &TABLES).await?;
    migration.configure("", &mapping(filter))?;
    migration.succeed(&["schema", "create"]).await?;
    Ok(migration)
}

type IssuedRow = (i32, i64, Option<String>);

/// The rows that `issued` must hold according to MySQL, and the rows that it holds.
async fn both(migration: &mut Migration, sql: &str) -> anyhow::Result<(Vec<IssuedRow>, Vec<IssuedRow>)> {
    let wanted = format!("SELECT account, id, note FROM invoices WHERE {sql} ORDER BY id, account");
    let wanted: Vec<IssuedRow> = migration.mysql.query(wanted).await?;
    let cassandra = migration.cassandra().await?;
    let rows =
        cassandra.query_unpaged("SELECT account, id, note FROM issued", ()).await?.into_rows_result()?;
    let mut found = rows.rows::<IssuedRow>()?.collect::<Result<Vec<_>, _>>()?;
    found.sort_by_key(|(account, id, _)| (*id, *account));
    Ok((wanted, found))
}

async fn assert_equal(migration: &mut Migration, sql: &str) -> anyhow::Result<()> {
    let (wanted, found) = both(migration, sql).await?;
    assert!(!wanted.is_empty());
    assert_eq!(wanted, found);
    Ok(())
}

/// Runs a full verification, which must find this many mismatches and decide every row.
async fn verified(migration: &Migration, mismatches: u64) -> anyhow::Result<Json> {
    let done = migration.tandem(&["verify", "--full", "--json", "--exit-code"]).await?;
    assert_eq!(done.success, mismatches == 0, "{} {}", done.stdout, done.stderr);
    let report: Json = serde_json::from_str(&done.stdout)?;
    assert_eq!((&report["mismatches"], &report["undecided"]), (&mismatches.into(), &0.into()), "{report:#}");
    Ok(report)
}

async fn repaired(migration: &mut Migration, running: &mut Running, so_far: u64) -> anyhow::Result<()> {
    migration
        .until(running, "every mismatch to be repaired", |s| {
            s["mismatches"]["resolved"] == so_far && s["mismatches"]["open"] == 0
        })
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_in_and_out_of_a_filter() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut migration = prepared(servers, "filtered", ISSUED).await?;
    migration.succeed(&["check"]).await?;
    let mut running = migration.start(&["run"])?;
    // While the backfill reads, and after it.
    for round in 0..2 {
        for n in 0..150 {
            let id = n * 13 % 500 + 1;
            let statements = [
                // Only the filter's column, back and forth; it is not in the target.
                format!(
                    "UPDATE invoices SET status = ELT(1 + id * {n} % 4, 'draft', 'open', 'paid') WHERE id % 50 = {n} % 50"
                ),
                // With a NULL that must replace the value from an earlier time inside the filter.
                format!(
                    "UPDATE invoices SET status = IF(status = 'draft', 'open', 'draft'), note = IF(id % 2, NULL, 'x') WHERE id = {id}"
                ),
                format!("UPDATE invoices SET account = (account + 1) % 7 WHERE id % 20 = {n} % 20"),
                format!("DELETE FROM invoices WHERE id = {id} AND {n} % 3 = 0"),
                format!(
                    "INSERT INTO invoices VALUES ({}, {n} % 7, 'new', ELT({n} % 3, 'draft', 'paid'))",
                    1000 + round * 1000 + n
                ),
            ];
            for statement in statements {
                migration.mysql.query_drop(statement).await?;
            }
        }
        migration.drained(&mut running).await?;
    }
    assert_equal(&mut migration, ISSUED_SQL).await?;
    let report = verified(&migration, 0).await?;
    let rows: Option<(u64, u64)> = migration
        .mysql
        .query_first(format!("SELECT COUNT(*), COUNT(CASE WHEN {ISSUED_SQL} THEN 1 END) FROM invoices"))
        .await?;
    let (all, issued) = rows.unwrap();
    assert!(issued < all, "the filter lets in everything");
    // MySQL's rows once, and the rows of both tables.
    assert_eq!(report["checked"], all + all + issued);

    // Out-of-band: a row outside the filter is inserted, and one inside is deleted.
    let one = async |migration: &mut Migration, sql: &str| -> anyhow::Result<(i32, i64)> {
        let row = migration
            .mysql
            .query_first(format!("SELECT account, id FROM invoices WHERE {sql} LIMIT 1"))
            .await?;
        Ok(row.unwrap())
    };
    let (account, outside) = one(&mut migration, "status = 'draft'").await?;
    let cassandra = migration.cassandra().await?;
    cassandra
        .query_unpaged("INSERT INTO issued (account, id, note) VALUES (?, ?, 'forged')", (account, outside))
        .await?;
    let (account, inside) = one(&mut migration, "status IS NULL").await?;
    cassandra.query_unpaged("DELETE FROM issued WHERE account = ? AND id = ?", (account, inside)).await?;
    let (wanted, found) = both(&mut migration, ISSUED_SQL).await?;
    assert_ne!(wanted, found);
    verified(&migration, 2).await?;
    repaired(&mut migration, &mut running, 2).await?;
    assert_equal(&mut migration, ISSUED_SQL).await?;
    verified(&migration, 0).await?;
    running.terminate().await?;
    migration.drop().await
}

/// A wider filter adds the rows that it now accepts. The copy deletes those that a narrower one no longer accepts.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_filter_copies_the_table_anew() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut migration = prepared(servers, "refiltered", "status == 'paid'").await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    assert_equal(&mut migration, "status = 'paid'").await?;
    let narrower =
        ("status == null || status != 'draft' && id > 20", "status IS NULL OR status <> 'draft' AND id > 20");
    for (before, (filter, sql)) in [(ISSUED, ISSUED_SQL), narrower].into_iter().enumerate() {
        running.terminate().await?;
        migration.configure("", &mapping(filter))?;
        running = migration.start(&["run"])?;
        // The status shows the old backfill until the new one has begun.
        let log = migration.path("tandem.log");
        let anew = || std::fs::read_to_string(&log).map_or(0, |l| l.matches("it is copied anew").count());
        migration.until(&mut running, "the backfill to begin anew", |_| anew() == before + 1).await?;
        migration.drained(&mut running).await?;
        assert_equal(&mut migration, sql).await?;
        verified(&migration, 0).await?;
    }
    running.terminate().await?;
    migration.drop().await
}
