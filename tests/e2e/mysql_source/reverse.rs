//! The session that writes native rows back to MySQL.

use std::collections::HashMap;

use mysql_async::prelude::Queryable;
use tandem_binlog::{BinlogEvent, Origin};
use tandem_model::{Epoch, Row, TableDef, Value, Version};
use tandem_mysql::{KeptVersion, MysqlError, PartitionOffset, ReverseSession, RowKey};

use crate::support::{MINUTE, Probe, eventually};

use super::Source;

fn row_key(id: u8) -> RowKey {
    [id; 32]
}

fn kept(id: u8, version: i64) -> KeptVersion {
    KeptVersion { row: row_key(id), epoch: Epoch(1), version: Version(version) }
}

fn at(partition: i32, next: i64) -> PartitionOffset {
    PartitionOffset { topic: "p.changes".into(), partition, next }
}

/// All rows, in the order of their keys.
async fn all(source: &mut Source, table: &TableDef) -> anyhow::Result<Vec<Row>> {
    let Some(upto) = source.reader.max_key(table).await? else { return Ok(Vec::new()) };
    Ok(source.reader.read_chunk(table, None, &upto, 10_000).await?)
}

/// Rows of every kind of column, many at once: inserted, overwritten and deleted. They are in MySQL exactly as they were
/// given, also what only a lax session could have written.
#[tokio::test]
async fn rows_become_what_they_were_decided_to_be() -> anyhow::Result<()> {
    let mut source = Source::new("reverse").await?;
    let columns = "k VARCHAR(9) COLLATE utf8mb4_bin, id BIGINT UNSIGNED AUTO_INCREMENT, d DECIMAL(20,5), day DATE, at DATETIME(6), \
                   ts TIMESTAMP(3) NULL, t TIME(6), f FLOAT, g DOUBLE, j JSON, b VARBINARY(9), e ENUM('a', 'b'), s SET('x', 'y'), \
                   bits BIT(9), y YEAR, KEY (id), PRIMARY KEY (id, k)";
    for table in ["given", "made"] {
        source.sql(&format!("CREATE TABLE {table} ({columns})")).await?;
    }
    source.sql("SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'").await?;
    source
        .sql(
            "INSERT INTO given WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 699) SELECT CONCAT('k', \
             i % 7), i, i / 7, '2024-02-29', '2024-01-01 00:00:00.000001' + INTERVAL i SECOND, '2024-03-30 01:02:03.004', \
             SEC_TO_TIME(i * -1000.5), i / 3, i / 3, JSON_OBJECT('i', i), x'00ff', 'b', 'x,y', i % 512, 1901 + i % 200 FROM n",
        )
        .await?;
    source
        .sql("INSERT INTO given (k, id, day, at) VALUES ('zero', 900, '0000-00-00', '2024-00-00 00:00:00')")
        .await?;
    let (given, made) = (
        source.mysql.table_def(&source.table("given")).await?,
        source.mysql.table_def(&source.table("made")).await?,
    );
    let rows = all(&mut source, &given).await?;
    assert_eq!(rows.len(), 701);

    let mut session = ReverseSession::open(&source.config, &source.database).await?;
    session.begin().await?;
    // Half of them with other values, then all of them: inserted and overwritten.
    let other = |row: &Row| -> Row {
        let mut row = row.clone();
        row[2] = Value::Null;
        row
    };
    let half: Vec<Row> = rows.iter().step_by(2).map(other).collect();
    session.put(&made, &half.iter().collect::<Vec<_>>()).await?;
    session.put(&made, &rows.iter().collect::<Vec<_>>()).await?;
    session.commit().await?;
    assert_eq!(all(&mut source, &made).await?, rows);

    let gone: Vec<Vec<Value>> = rows.iter().step_by(3).map(|row| made.key_of(row)).collect();
    session.begin().await?;
    session.delete(&made, &gone).await?;
    session.commit().await?;
    let left: Vec<Row> =
        rows.into_iter().enumerate().filter(|(number, _)| number % 3 != 0).map(|(_, row)| row).collect();
    assert_eq!(all(&mut source, &made).await?, left);
    source.drop().await
}

/// Versions and offsets are those of the rows: committed together or not at all, whoever looks.
#[tokio::test]
async fn versions_and_offsets_are_committed_with_their_rows() -> anyhow::Result<()> {
    let mut source = Source::new("reversed").await?;
    source.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)").await?;
    let table = source.mysql.table_def(&source.table("t")).await?;
    let row = |v| vec![Value::Int(1), Value::Int(v)];
    let mut session = ReverseSession::open(&source.config, &source.database).await?;
    assert_eq!(session.applied().await?, []);
    session.begin().await?;
    assert_eq!(session.kept(&[row_key(1), row_key(2)]).await?, HashMap::new());
    session.put(&table, &[&row(1)]).await?;
    session.keep(&[kept(1, 5), kept(2, 6)], &[at(0, 10), at(1, 0)]).await?;
    session.roll_back().await?;
    assert_eq!((all(&mut source, &table).await?.len(), session.applied().await?), (0, vec![]));

    for (v, offset) in [(1, 10), (2, 11)] {
        session.begin().await?;
        session.put(&table, &[&row(v)]).await?;
        session.keep(&[kept(1, offset)], &[at(0, offset), at(1, 0)]).await?;
        session.commit().await?;
    }
    // Another process continues there.
    let mut session = ReverseSession::open(&source.config, &source.database).await?;
    assert_eq!(session.applied().await?, [at(0, 11), at(1, 0)]);
    session.begin().await?;
    let versions = session.kept(&[row_key(1), row_key(2)]).await?;
    assert_eq!(versions, HashMap::from([(row_key(1), Version(11))]));
    session.roll_back().await?;
    assert_eq!(all(&mut source, &table).await?, [row(2)]);
    source.drop().await
}

/// A unique value that another row has is refused, and that row stays as it is.
#[tokio::test]
async fn a_unique_value_of_another_row_is_refused() -> anyhow::Result<()> {
    let mut source = Source::new("reverseunique").await?;
    source.sql("CREATE TABLE t (id INT PRIMARY KEY, u INT UNIQUE, v INT)").await?;
    source.sql("INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)").await?;
    let table = source.mysql.table_def(&source.table("t")).await?;
    let before = all(&mut source, &table).await?;
    let mut session = ReverseSession::open(&source.config, &source.database).await?;
    for id in [2, 3] {
        session.begin().await?;
        let refused = session.put(&table, &[&vec![Value::Int(id), Value::Int(1), Value::Int(9)]]).await;
        assert!(matches!(refused, Err(MysqlError::Server { code: 1062, .. })), "{refused:?}");
        session.roll_back().await?;
    }
    assert_eq!(all(&mut source, &table).await?, before);
    source.drop().await
}

/// Tandem may not know every column. What it does not know stays in a row that is overwritten. A row may come before the one
/// that it refers to. And the binlog shows whose transaction it was.
#[tokio::test]
async fn unknown_columns_stay_and_the_binlog_shows_the_origin() -> anyhow::Result<()> {
    let mut source = Source::new("reverseorigin").await?;
    source.sql("CREATE TABLE parent (id INT PRIMARY KEY)").await?;
    source
        .sql(
            "CREATE TABLE t (id INT PRIMARY KEY, v INT, secret INT DEFAULT 7, FOREIGN KEY (v) REFERENCES parent (id))",
        )
        .await?;
    source.sql("INSERT INTO parent VALUES (1)").await?;
    source.sql("INSERT INTO t VALUES (1, 1, 42)").await?;
    let whole = source.mysql.table_def(&source.table("t")).await?;
    let known = TableDef { columns: whole.columns[..2].to_vec(), ..whole.clone() };
    let mut stream = source.stream("t").await?;
    let mut session = ReverseSession::open(&source.config, &source.database).await?;
    session.begin().await?;
    let rows = [(1, 8), (2, 9)].map(|(id, v)| vec![Value::Int(id), Value::Int(v)]);
    session.put(&known, &rows.iter().collect::<Vec<_>>()).await?;
    session.commit().await?;
    let expected = [(1, 8, 42), (2, 9, 7)].map(|(id, v, secret)| [id, v, secret].map(Value::Int).to_vec());
    assert_eq!(all(&mut source, &whole).await?, expected);
    source.sql("UPDATE t SET secret = 0 WHERE id = 1").await?;
    // Other tests write, too: only transactions with rows of the wanted table count.
    let (mut origins, mut begun) = (Vec::new(), None);
    for event in source.upto_now(&mut stream).await? {
        match event {
            BinlogEvent::Begin { origin, .. } => begun = Some(origin),
            BinlogEvent::Rows(_) => origins.extend(begun.take()),
            _ => {}
        }
    }
    assert_eq!(origins, [Origin::Reverse, Origin::Other]);
    source.drop().await
}

/// Two sessions that bring a row its first native write: one waits for the other, and then knows its version.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_a_version_is_locked_too() -> anyhow::Result<()> {
    let mut source = Source::new("reverselock").await?;
    let mut first = ReverseSession::open(&source.config, &source.database).await?;
    let mut second = ReverseSession::open(&source.config, &source.database).await?;
    first.begin().await?;
    assert_eq!(first.kept(&[row_key(2), row_key(1)]).await?, HashMap::new());
    second.begin().await?;
    let second = tokio::spawn(async move {
        let kept = second.kept(&[row_key(1), row_key(2)]).await?;
        second.roll_back().await?;
        Ok::<_, MysqlError>(kept)
    });
    let waits = format!(
        "SELECT COUNT(*) FROM performance_schema.data_locks WHERE OBJECT_SCHEMA = '{}' AND LOCK_STATUS = 'WAITING'",
        source.database
    );
    eventually("the second session to wait", MINUTE, async || {
        anyhow::ensure!(!second.is_finished(), "it did not wait");
        let waiting: Option<u64> = source.writer.query_first(&waits).await?;
        Ok(Probe::when(waiting > Some(0), "nobody waits"))
    })
    .await?;
    first.keep(&[kept(1, 7)], &[]).await?;
    first.commit().await?;
    assert_eq!(second.await??, HashMap::from([(row_key(1), Version(7))]));
    source.drop().await
}
