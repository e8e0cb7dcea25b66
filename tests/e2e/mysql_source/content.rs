//! What a binlog can contain besides plain transactions: compressed transactions, XA, tagged GTIDs.

use tandem_binlog::{BinlogEvent, RowsEvent};
use tandem_model::{GtidSet, Value};
use tandem_mysql::BinlogStream;

use super::{Source, rows, values};
use crate::support::{connect, own_server, unique_id};

/// Inserts, updates, deletes, savepoints and JSON, on a new table.
const STATEMENTS: &[&str] = &[
    "DROP TABLE IF EXISTS t",
    "CREATE TABLE t (id INT PRIMARY KEY, s VARCHAR(40), j JSON, d DECIMAL(10,2), b BLOB)",
    "INSERT INTO t VALUES (1, 'é', '{\"a\": [1, 2.5]}', 1.50, x'00ff'), (2, NULL, NULL, NULL, NULL)",
    "BEGIN",
    "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
     SELECT i, REPEAT('x', 40), '[]', i, REPEAT('y', 900) FROM n",
    "SAVEPOINT s",
    "UPDATE t SET s = 'undone'",
    "ROLLBACK TO s",
    "UPDATE t SET s = CONCAT('n', id) WHERE id % 7 = 0",
    "DELETE FROM t WHERE id % 3 = 0",
    "COMMIT",
    "UPDATE t SET id = id + 5000 WHERE id < 20",
];

async fn run(source: &mut Source, stream: &mut BinlogStream) -> anyhow::Result<Vec<RowsEvent>> {
    for sql in STATEMENTS {
        source.sql(sql).await?;
    }
    Ok(rows(source.upto_now(stream).await?))
}

#[tokio::test]
async fn compressed_transactions_give_the_same_bytes() -> anyhow::Result<()> {
    let mut source = Source::new("compressed").await?;
    source.sql("CREATE TABLE t (id INT)").await?;
    let mut stream = source.stream("t").await?;
    let plain = run(&mut source, &mut stream).await?;
    source.sql("SET SESSION binlog_transaction_compression = ON").await?;
    let compressed = run(&mut source, &mut stream).await?;
    assert!(plain.iter().map(|e| e.images.len()).sum::<usize>() > 1000);
    assert_eq!(plain.len(), compressed.len());
    for (plain, compressed) in plain.iter().zip(&compressed) {
        assert_eq!(
            (plain.kind, &plain.images, &plain.table),
            (compressed.kind, &compressed.images, &compressed.table)
        );
    }
    // It was compressed: all events of the large transaction have the same end, that of the transaction.
    let end = |events: &[RowsEvent]| events[1..].iter().filter(|e| e.end == events[1].end).count();
    assert_eq!(end(&plain), 1);
    assert!(end(&compressed) > 20, "{}", end(&compressed));

    // From the transaction before, so that the stream begins with a compressed one.
    let executed = source.reader.executed().await?;
    source.sql("DELETE FROM t WHERE id = 5001").await?;
    drop(stream);
    let table = source.table("t");
    let mut stream = BinlogStream::open(&source.config, &executed, move |t| *t == table).await?;
    source.sql("SET SESSION binlog_transaction_compression = OFF").await?;
    source.sql("DELETE FROM t WHERE id = 5002").await?;
    assert_eq!(rows(source.upto_now(&mut stream).await?).len(), 2);
    source.drop().await
}

/// The same without checksums, and with a change of the setting while the stream is read.
#[tokio::test]
async fn servers_without_checksums() -> anyhow::Result<()> {
    // A server of its own, because the setting is global.
    let server = own_server(&["--binlog-checksum=NONE"])?;
    let mut source = Source::at(server.url(), "unchecked").await?;
    source.sql("SET SESSION binlog_transaction_compression = ON").await?;
    source.sql("CREATE TABLE t (id INT)").await?;
    let mut stream = source.stream("t").await?;
    assert!(!run(&mut source, &mut stream).await?.is_empty());
    source.sql("SET GLOBAL binlog_checksum = CRC32").await?;
    assert!(!run(&mut source, &mut stream).await?.is_empty());
    source.sql("SET GLOBAL binlog_checksum = NONE").await?;
    assert!(!run(&mut source, &mut stream).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn tagged_gtids() -> anyhow::Result<()> {
    let mut source = Source::new("tagged").await?;
    source.sql("CREATE TABLE t (id INT PRIMARY KEY)").await?;
    let mut stream = source.stream("t").await?;
    let (before, began) = (source.reader.executed().await?, source.reader.clock_us().await?);
    source.sql("INSERT INTO t VALUES (1)").await?;
    let tag = format!("t_{}", unique_id());
    source.sql(&format!("SET gtid_next = 'AUTOMATIC:{tag}'")).await?;
    source.sql("INSERT INTO t VALUES (2)").await?;
    source.sql("INSERT INTO t VALUES (3)").await?;
    source.sql("SET gtid_next = 'AUTOMATIC'").await?;
    source.sql("INSERT INTO t VALUES (4)").await?;
    let events = source.upto_now(&mut stream).await?;
    let now = source.reader.clock_us().await?;
    let mut seen = before.clone();
    let mut tagged = Vec::new();
    for event in &events {
        if let BinlogEvent::Begin { gtid, commit_us, .. } | BinlogEvent::Statement { gtid, commit_us, .. } =
            event
        {
            seen.insert(gtid);
            if gtid.to_string().contains(&tag) {
                assert!((began..=now).contains(commit_us), "{gtid} at {commit_us}");
                tagged.push(gtid.clone());
            }
        }
    }
    assert_eq!(tagged.len(), 2, "{events:?}");
    // The server's own set, with its notation of tags, contains all seen GTIDs, and no others with this tag.
    let executed = source.reader.executed().await?;
    assert!(seen.is_subset(&executed), "{seen} {executed}");
    let text: Option<String> = mysql_async::prelude::Queryable::query_first(
        &mut source.writer,
        format!("SELECT GTID_SUBSET('{seen}', @@GLOBAL.gtid_executed)"),
    )
    .await?;
    assert_eq!(text.as_deref(), Some("1"), "MySQL can parse our notation of the set");

    // Resumed after the first tagged transaction: the others are read, and the first is not.
    let mut from = GtidSet::default();
    let until_first = events.iter().filter_map(|event| match event {
        BinlogEvent::Begin { gtid, .. } | BinlogEvent::Statement { gtid, .. } => Some(gtid),
        _ => None,
    });
    for gtid in until_first {
        from.insert(gtid);
        if *gtid == tagged[0] {
            break;
        }
    }
    for (uuid, tag, runs) in before.origins() {
        let tag = if tag.is_empty() { String::new() } else { format!(":{tag}") };
        for (first, last) in runs.iter() {
            let part: GtidSet = format!("{uuid}{tag}:{first}-{last}").parse()?;
            from = union(&from, &part)?;
        }
    }
    drop(stream);
    let table = source.table("t");
    let mut stream = BinlogStream::open(&source.config, &from, move |t| *t == table).await?;
    let rest = rows(source.upto_now(&mut stream).await?);
    let ids: Vec<_> = rest.iter().map(|e| values(e).unwrap().remove(0).1.unwrap()).collect();
    assert_eq!(ids, [vec![Value::Int(3)], vec![Value::Int(4)]]);
    source.drop().await
}

fn union(a: &GtidSet, b: &GtidSet) -> anyhow::Result<GtidSet> {
    Ok(format!("{a},{b}").parse()?)
}

/// Borrowing relies on this property of XA COMMIT: once its GTID is executed, its rows are visible. (Those of
/// XA PREPARE are not, so they wait for the COMMIT.)
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_executed_xa_commit_are_visible() -> anyhow::Result<()> {
    // A server of its own, because every transaction counts.
    let server = own_server(&[])?;
    let mut source = Source::at(server.url(), "visible").await?;
    source.sql("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT)").await?;
    let count = |set: &GtidSet| {
        set.origins().flat_map(|(_, _, runs)| runs.iter()).map(|(first, last)| last - first + 1).sum::<u64>()
    };
    let base = count(&source.reader.executed().await?);
    let mut conn = connect(&server.url(), &source.database).await?;
    let writer = tokio::spawn(async move {
        for _ in 0..600 {
            for sql in
                ["XA START 'x'", "INSERT INTO t VALUES ()", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'"]
            {
                mysql_async::prelude::Queryable::query_drop(&mut conn, sql).await?;
            }
        }
        anyhow::Ok(())
    });
    let (mut looks, mut between) = (0, 0);
    while !writer.is_finished() {
        // Each row takes two transactions.
        let executed = count(&source.reader.executed().await?) - base;
        let seen: u64 =
            mysql_async::prelude::Queryable::query_first(&mut source.writer, "SELECT COUNT(*) FROM t")
                .await?
                .unwrap_or_default();
        assert!(seen >= executed / 2, "{executed} executed, {seen} rows seen");
        looks += 1;
        between += executed % 2;
    }
    writer.await??;
    assert!(looks > 50 && between > 0, "{looks} looks, {between} of them after a PREPARE");
    Ok(())
}
