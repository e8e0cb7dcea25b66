//! XA transactions: rows are on the log at XA COMMIT, exactly once, whatever happens before.

use super::*;
use crate::support::own_server;

/// Runs statements in a separate session. A prepared transaction belongs to no session once its session has
/// ended.
async fn session(migration: &Migration, statements: &[String]) -> anyhow::Result<()> {
    let mut conn = migration.session().await?;
    for statement in statements {
        conn.query_drop(statement).await?;
    }
    Ok(conn.disconnect().await?)
}

/// Prepares a transaction and ends the session.
async fn prepare(migration: &Migration, xid: &str, sql: &str) -> anyhow::Result<()> {
    let xa = |verb: &str| format!("XA {verb} {xid}");
    session(migration, &[xa("START"), sql.to_owned(), xa("END"), xa("PREPARE")]).await
}

/// Waits until everything that MySQL has executed is on the log, except `open` transactions.
async fn until_captured_but(
    migration: &mut Migration,
    capture: &mut Running,
    open: u64,
) -> anyhow::Result<()> {
    let executed = migration.executed().await?;
    migration
        .until(capture, "everything but what is prepared to be captured", |s| {
            let captured = s["source"]["gtid_set"].as_str().and_then(|g| g.parse::<GtidSet>().ok());
            captured.is_some_and(|c| {
                let missing = executed.minus(&c);
                let runs = missing.origins().flat_map(|(_, _, runs)| runs.iter());
                runs.map(|(first, last)| last - first + 1).sum::<u64>() == open
            })
        })
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_out_at_xa_commit_and_a_prepared_transaction_survives_kill_9() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    // A server of its own: while a transaction is prepared, no other test's log can begin.
    let mysql = own_server(&[])?;
    servers.mysql_url = mysql.url();
    let mut migration = Migration::new(servers, "xa", &[T_WITH_TEXT]).await?;
    // So small that the large transaction below is read twice and split.
    migration.configure("[capture]\nmax_records = 100\nmax_bytes = 20000\n", T_MAPPING)?;
    let topic = migration.topics().changes(&migration.table("t"));
    let mut capture = migration.start(&["capture"])?;
    migration.until_first_watermark(&mut capture).await?;

    let xid = |name: &str| format!("'{name}-{}'", migration.prefix);
    let (a, b, large, gone) = (xid("a"), xid("b"), xid("large"), xid("gone"));
    prepare(&migration, &a, "INSERT INTO t VALUES (1, 0, 'a')").await?;
    prepare(&migration, &b, "INSERT INTO t VALUES (2, 0, 'b')").await?;
    prepare(&migration, &gone, "INSERT INTO t VALUES (666, 0, 'never')").await?;
    let many = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 1899) \
                SELECT i, 0, REPEAT('x', 40) FROM n";
    prepare(&migration, &large, many).await?;
    session(&migration, &["INSERT INTO t VALUES (3, 0, 'plain')".into()]).await?;
    until_captured_but(&mut migration, &mut capture, 4).await?;
    assert_eq!(ids(&migration, &topic).await?, [3], "nothing of what is only prepared");

    capture.kill()?;
    session(&migration, &[format!("XA COMMIT {b}"), "INSERT INTO t VALUES (4, 0, 'plain')".into()]).await?;
    session(&migration, &[format!("XA ROLLBACK {gone}")]).await?;
    capture = migration.start(&["capture"])?;
    until_captured_but(&mut migration, &mut capture, 2).await?;
    assert_eq!(ids(&migration, &topic).await?, [3, 2, 4]);

    // The same xid again, and a one-phase transaction.
    session(&migration, &[format!("XA COMMIT {a}")]).await?;
    prepare(&migration, &a, "INSERT INTO t VALUES (5, 0, 'again')").await?;
    capture.kill()?;
    capture = migration.start(&["capture"])?;
    let one =
        [format!("XA START {b}"), "INSERT INTO t VALUES (6, 0, 'one phase')".into(), format!("XA END {b}")];
    session(
        &migration,
        &[&one[..], &[format!("XA COMMIT {b} ONE PHASE"), format!("XA COMMIT {a}")]].concat(),
    )
    .await?;
    until_captured_but(&mut migration, &mut capture, 1).await?;
    assert_eq!(ids(&migration, &topic).await?, [3, 2, 4, 1, 6, 5]);

    // The large transaction comes in parts. The kill comes as soon as its first part is published.
    session(&migration, &[format!("XA COMMIT {large}"), "INSERT INTO t VALUES (7, 0, 'after')".into()])
        .await?;
    eventually("the first part of the large transaction", MINUTE, async || {
        capture.check()?;
        let watermarks = watermarks(&migration).await?;
        let is_cut = watermarks.iter().any(|w| w.partial.is_some());
        Ok(Probe::when(is_cut, format!("{} watermarks, and none inside it", watermarks.len())))
    })
    .await?;
    capture.kill()?;
    capture = migration.start(&["capture"])?;
    until_captured_but(&mut migration, &mut capture, 0).await?;
    let expected: Vec<i64> = [3, 2, 4, 1, 6, 5].into_iter().chain(1000..=1899).chain([7]).collect();
    assert_eq!(ids(&migration, &topic).await?, expected);
    let log = changes(&migration, &topic).await?;
    in_order(&log, &watermarks(&migration).await?, &topic);
    capture.terminate().await?;
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_does_not_begin_between_prepare_and_commit() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    // A server of its own: transactions that other tests have prepared would count as well.
    let mysql = own_server(&[])?;
    servers.mysql_url = mysql.url();
    let migration = Migration::new(servers, "xabegin", &[T_WITH_TEXT]).await?;
    migration.configure("", T_MAPPING)?;
    prepare(&migration, "'early'", "INSERT INTO t VALUES (1, 0, 'a')").await?;
    let mut capture = migration.start(&["capture"])?;
    capture.until_logged("1 XA transactions are prepared", 0).await?;
    session(&migration, &["XA COMMIT 'early'".into()]).await?;
    migration.until_first_watermark(&mut capture).await?;
    capture.terminate().await?;

    // An account that may not list prepared transactions finds the transaction at its commit.
    prepare(&migration, "'hidden'", "INSERT INTO t VALUES (2, 0, 'a')").await?;
    for sql in [
        "CREATE USER limited IDENTIFIED BY ''",
        "GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO limited",
    ] {
        session(&migration, &[sql.into()]).await?;
    }
    let prefix = format!("{}-b", migration.prefix);
    let config = migration.configure_as("limited", "", |text| {
        text.replace("root@", "limited@").replace(&migration.prefix, &prefix)
    })?;
    let mut limited = migration.start_with(&config, "limited", &["capture"])?;
    limited.until_logged("reading the binlog", 0).await?;
    session(&migration, &["XA COMMIT 'hidden'".into()]).await?;
    let log = limited.until_ended().await?;
    assert!(log.contains("prepared before this log began"), "{log}");
    Ok(())
}
