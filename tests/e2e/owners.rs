//! A target table belongs to one migration.

use std::path::PathBuf;

use mysql_async::prelude::Queryable;

use crate::support::{Finished, MINUTE, Migration, Probe, Servers, T, T_MAPPING, eventually, finish};

/// The same migration under another prefix.
fn under_another_prefix(migration: &Migration) -> anyhow::Result<(String, PathBuf)> {
    let other = format!("{}-other", migration.prefix);
    let edit = |text: String| text.replace(&migration.prefix, &other);
    let config = migration.configure_as("other", "", edit)?;
    Ok((other, config))
}

async fn ids(migration: &Migration) -> anyhow::Result<Vec<i32>> {
    let found =
        migration.cassandra().await?.query_unpaged("SELECT id FROM t", ()).await?.into_rows_result()?;
    let mut ids = found.rows::<(i32,)>()?.map(|row| Ok(row?.0)).collect::<anyhow::Result<Vec<_>>>()?;
    ids.sort_unstable();
    Ok(ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_migrations_do_not_share_a_table() -> anyhow::Result<()> {
    let mut migration =
        Migration::new(Servers::from_env(), "owners", &[T, "INSERT INTO t VALUES (1, 1)"]).await?;
    migration.configure("", T_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    running.terminate().await?;

    let (other, config) = under_another_prefix(&migration)?;
    let as_other = async |arguments: &[&str]| finish(Migration::command_with(&config, arguments)).await;
    let belongs = format!("belongs to the migration with kafka.prefix {:?}", migration.prefix);
    let remedy = format!("`tandem schema create --take-over {}`", migration.prefix);
    for command in ["check", "apply", "reconcile", "gateway", "backfill", "run"] {
        let Finished { success, stderr, .. } = as_other(&[command]).await?;
        assert!(!success && stderr.contains(&belongs) && stderr.contains(&remedy), "{command}: {stderr}");
    }
    for arguments in [&["schema", "create"][..], &["schema", "create", "--adopt", "--take-over", "nobody"]] {
        let Finished { success, stderr, .. } = as_other(arguments).await?;
        assert!(!success && stderr.contains(&belongs), "{arguments:?}: {stderr}");
    }

    // A reconcile that runs already: its check cannot end while nothing is captured, so the table changes hands meanwhile.
    migration.cassandra().await?.query_unpaged("INSERT INTO t (id, v) VALUES (99, 1)", ()).await?;
    let mut capture = migration.start_as("capture", &["capture"])?;
    capture.until_logged("reading the binlog", 0).await?;
    let found = migration.json(&["verify", "--full", "--json"]).await?;
    assert_eq!(found["mismatches"], 1, "{found:#}");
    capture.terminate().await?;
    migration.mysql.query_drop("CREATE TABLE unmapped (id INT PRIMARY KEY)").await?;
    let reconcile = migration.start_as("reconcile", &["reconcile"])?;
    eventually("reconcile to have its partitions", MINUTE, async || {
        Ok(Probe::when(reconcile.logged("runs role=reconcile") > 0, reconcile.tail()))
    })
    .await?;
    let taken = as_other(&["schema", "create", "--take-over", &migration.prefix]).await?;
    assert!(taken.success && taken.stdout.contains("held rows"), "{}{}", taken.stdout, taken.stderr);
    let capture = migration.start_as("capture", &["capture"])?;
    eventually("reconcile to end", MINUTE, async || {
        let text = "does not belong to this migration any more";
        Ok(Probe::when(reconcile.logged(text) > 0, reconcile.tail()))
    })
    .await?;
    assert_eq!(ids(&migration).await?, [1, 99], "the other migration's row is there");
    drop(reconcile);
    capture.terminate().await?;

    // The former owner is kept out now.
    let Finished { success, stderr, .. } = migration.tandem(&["apply"]).await?;
    assert!(!success && stderr.contains(&format!("kafka.prefix {other:?}")), "{stderr}");
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_table_made_by_hand_is_claimed_by_itself() -> anyhow::Result<()> {
    let mut migration =
        Migration::new(Servers::from_env(), "byhand", &[T, "INSERT INTO t VALUES (1, 1)"]).await?;
    migration.configure("", T_MAPPING)?;
    let session = migration.create_keyspace().await?;
    let shown = migration.succeed(&["schema", "show"]).await?;
    for statement in shown.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
        session.query_unpaged(statement, ()).await?;
    }
    migration.succeed(&["check"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    running.terminate().await?;
    let (_, config) = under_another_prefix(&migration)?;
    let Finished { success, stderr, .. } = finish(Migration::command_with(&config, &["check"])).await?;
    assert!(!success && stderr.contains(&migration.prefix), "{stderr}");

    // Its owner may drop it and create it again.
    session.query_unpaged("DROP TABLE t", ()).await?;
    migration.succeed(&["schema", "create"]).await?;
    migration.succeed(&["check"]).await?;
    migration.drop().await
}
