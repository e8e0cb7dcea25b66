//! A first copy into a target table that is not empty.

use crate::support::{Finished, Migration, Servers, T_MAPPING, T_WITH_TEXT};

/// The copy overwrites every cell, also after a kill, and the full verification finds the row that MySQL lacks.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_copy_into_a_table_with_rows() -> anyhow::Result<()> {
    const ROWS: usize = 400;
    let insert = format!(
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
         SELECT i, i, NULL FROM n"
    );
    let mut migration = Migration::new(Servers::from_env(), "held", &[T_WITH_TEXT, &insert]).await?;
    migration.configure("[backfill]\nchunk_rows = 50\nmax_rows_per_second = 100\n", T_MAPPING)?;
    let session = migration.create_keyspace().await?;
    session
        .query_unpaged(
            "CREATE TABLE t (id int PRIMARY KEY, v int, s text) WITH gc_grace_seconds = 1000000",
            (),
        )
        .await?;
    for id in (1..=ROWS as i32).chain([9999]) {
        session.query_unpaged("INSERT INTO t (id, v, s) VALUES (?, -1, 'old')", (id,)).await?;
    }
    for command in [&["check"][..], &["schema", "create"], &["run"]] {
        let Finished { success, stderr, .. } = migration.tandem(command).await?;
        assert!(
            !success && stderr.contains("it holds rows and belongs to no migration"),
            "{command:?}: {stderr}"
        );
        assert!(stderr.contains("`tandem schema create --adopt`"), "{command:?}: {stderr}");
    }
    migration.succeed(&["schema", "create", "--adopt"]).await?;

    let mut running = migration.start(&["run"])?;
    migration
        .until(&mut running, "some chunks", |s| s["tables"][0]["backfill"]["rows"].as_i64() >= Some(100))
        .await?;
    running.kill()?;
    let mut running = migration.start(&["run"])?;
    let status = migration.drained(&mut running).await?;
    assert_eq!(status["tables"][0]["backfill"]["rows"], ROWS, "it went on where it was: {status:#}");
    let found = session.query_unpaged("SELECT id, v, s FROM t", ()).await?.into_rows_result()?;
    let mut old = Vec::new();
    for row in found.rows::<(i32, i32, Option<String>)>()? {
        let (id, v, s) = row?;
        if (v, s) != (id, None) {
            old.push(id);
        }
    }
    assert_eq!(old, [9999], "of the former rows only the one is left that MySQL does not have");

    // The phase `canary` needs a clean full verification (`full_scan_clean`).
    let found = migration.json(&["verify", "--full", "--json"]).await?;
    assert_eq!(found["mismatches"], 1, "{found:#}");
    migration
        .until(&mut running, "the extra row to be deleted", |s| {
            s["mismatches"]["open"] == 0 && s["mismatches"]["resolved"] == 1
        })
        .await?;
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    let left = session.query_unpaged("SELECT id FROM t", ()).await?.into_rows_result()?;
    assert_eq!(left.rows_num(), ROWS);
    running.terminate().await?;
    migration.drop().await
}
