//! XA transactions: rows are on the log at XA COMMIT, once, whatever happens before.

use tandem_model::Value;

use super::*;

/// Runs statements in a session of its own. A prepared transaction belongs to no session once its own
/// has gone.
async fn session(migration: &Migration, statements: &[String]) -> anyhow::Result<()> {
    let mut conn = mysql_async::Conn::from_url(&migration.servers.mysql_url).await?;
    conn.query_drop(format!("USE {}", migration.database)).await?;
    for statement in statements {
        conn.query_drop(statement).await?;
    }
    Ok(conn.disconnect().await?)
}

/// Prepares a transaction and leaves it.
async fn prepare(migration: &Migration, xid: &str, sql: &str) -> anyhow::Result<()> {
    let xa = |verb: &str| format!("XA {verb} {xid}");
    session(migration, &[xa("START"), sql.to_owned(), xa("END"), xa("PREPARE")]).await
}

/// Waits until everything is on the log that MySQL has executed, apart from `open` transactions.
async fn captured(migration: &mut Migration, capture: &mut Running, open: u64) -> anyhow::Result<()> {
    let executed = migration.executed().await?;
    migration
        .until(capture, "everything but what is prepared to be captured", |s| {
            let captured = s["source"]["gtid_set"].as_str().and_then(|g| g.parse::<GtidSet>().ok());
            captured.is_some_and(|c| {
                let missing = executed.minus(&c);
                let runs = missing.origins().flat_map(|(_, _, runs)| runs);
                runs.map(|(first, last)| last - first + 1).sum::<u64>() == open
            })
        })
        .await?;
    Ok(())
}

async fn ids(migration: &Migration, topic: &str) -> anyhow::Result<Vec<i64>> {
    let id = |change: &Change| match change.after.as_ref().map(|row| &row[0]) {
        Some(Value::Int(id)) => *id,
        other => panic!("{other:?}"),
    };
    Ok(changes(migration, topic).await?.iter().map(|(_, change)| id(change)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_out_at_xa_commit_and_a_prepared_transaction_survives_kill_9() -> anyhow::Result<()> {
    let Some(mut servers) = Servers::from_env() else { return Ok(()) };
    // A server of its own: while a transaction is prepared, no other test's log could begin.
    let mysql = tandem_devstack::Mysql::ephemeral(&tandem_devstack::MysqlOptions::default())?;
    servers.mysql_url = mysql.url();
    let mut migration = Migration::new(servers, "xa", &[TABLE]).await?;
    // So small that the large transaction below is read again, and cut.
    migration.configure("[capture]\nmax_records = 100\nmax_bytes = 20000\n", MAPPING)?;
    let topic = Topics::new(&migration.prefix).changes(&TableName::new(&migration.database, "t"));
    let mut capture = migration.start(&["capture"])?;
    migration.until(&mut capture, "the first watermark", |s| s["source"].is_object()).await?;

    let xid = |name: &str| format!("'{name}-{}'", migration.prefix);
    let (a, b, large, gone) = (xid("a"), xid("b"), xid("large"), xid("gone"));
    prepare(&migration, &a, "INSERT INTO t VALUES (1, 0, 'a')").await?;
    prepare(&migration, &b, "INSERT INTO t VALUES (2, 0, 'b')").await?;
    prepare(&migration, &gone, "INSERT INTO t VALUES (666, 0, 'never')").await?;
    let many = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 1899) \
                SELECT i, 0, REPEAT('x', 40) FROM n";
    prepare(&migration, &large, many).await?;
    session(&migration, &["INSERT INTO t VALUES (3, 0, 'plain')".into()]).await?;
    captured(&mut migration, &mut capture, 4).await?;
    assert_eq!(ids(&migration, &topic).await?, [3], "nothing of what is only prepared");

    capture.kill()?;
    session(&migration, &[format!("XA COMMIT {b}"), "INSERT INTO t VALUES (4, 0, 'plain')".into()]).await?;
    session(&migration, &[format!("XA ROLLBACK {gone}")]).await?;
    capture = migration.start(&["capture"])?;
    captured(&mut migration, &mut capture, 2).await?;
    assert_eq!(ids(&migration, &topic).await?, [3, 2, 4]);

    // The same xid again, and one in one phase.
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
    captured(&mut migration, &mut capture, 1).await?;
    assert_eq!(ids(&migration, &topic).await?, [3, 2, 4, 1, 6, 5]);

    // The large one, in parts, with a kill as soon as its first part is out.
    session(&migration, &[format!("XA COMMIT {large}"), "INSERT INTO t VALUES (7, 0, 'after')".into()])
        .await?;
    let began = Instant::now();
    while !watermarks(&migration).await?.iter().any(|w| w.partial.is_some()) {
        assert!(began.elapsed() < Duration::from_mins(1), "the large transaction is not partial");
        capture.check()?;
    }
    capture.kill()?;
    capture = migration.start(&["capture"])?;
    captured(&mut migration, &mut capture, 0).await?;
    let expected: Vec<i64> = [3, 2, 4, 1, 6, 5].into_iter().chain(1000..=1899).chain([7]).collect();
    assert_eq!(ids(&migration, &topic).await?, expected);
    let log = changes(&migration, &topic).await?;
    in_order(&log, &watermarks(&migration).await?, &topic);
    capture.terminate().await?;
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_does_not_begin_between_prepare_and_commit() -> anyhow::Result<()> {
    let Some(mut servers) = Servers::from_env() else { return Ok(()) };
    // A server of its own: what others have prepared would count as well.
    let mysql = tandem_devstack::Mysql::ephemeral(&tandem_devstack::MysqlOptions::default())?;
    servers.mysql_url = mysql.url();
    let migration = Migration::new(servers, "xabegin", &[TABLE]).await?;
    migration.configure("", MAPPING)?;
    prepare(&migration, "'early'", "INSERT INTO t VALUES (1, 0, 'a')").await?;
    let mut capture = migration.start(&["capture"])?;
    let began = Instant::now();
    while !capture.log().contains("1 XA transactions are prepared") {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", capture.tail());
        capture.check()?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    session(&migration, &["XA COMMIT 'early'".into()]).await?;
    migration.until(&mut capture, "the first watermark", |s| s["source"].is_object()).await?;
    capture.terminate().await?;

    // One who may not ask is told at the commit.
    prepare(&migration, "'hidden'", "INSERT INTO t VALUES (2, 0, 'a')").await?;
    for sql in [
        "CREATE USER limited IDENTIFIED BY ''",
        "GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO limited",
    ] {
        session(&migration, &[sql.into()]).await?;
    }
    let text = std::fs::read_to_string(migration.config())?;
    let text =
        text.replace("root@", "limited@").replace(&migration.prefix, &format!("{}-b", migration.prefix));
    let config = migration.folder.path().join("limited.toml");
    std::fs::write(&config, text)?;
    let mut limited = Running::of(
        Migration::command_with(&config, &["capture"]),
        migration.folder.path().join("limited.log"),
    )?;
    let began = Instant::now();
    while !limited.log().contains("reading the binlog") {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", limited.tail());
        limited.check()?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    session(&migration, &["XA COMMIT 'hidden'".into()]).await?;
    while limited.check().is_ok() {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", limited.tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(limited.log().contains("prepared before this log began"), "{}", limited.tail());
    Ok(())
}
