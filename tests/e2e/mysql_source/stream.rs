//! The stream's position, and the effects of statements.

use std::sync::Arc;

use tandem_binlog::{BinlogEvent, RowsKind, StatementKind};
use tandem_model::{TableName, Value};
use tandem_mysql::BinlogStream;

use super::{Source, position, rows, values};

#[tokio::test]
async fn the_stream_knows_where_it_is() -> anyhow::Result<()> {
    let mut source = Source::new("position").await?;
    source.sql("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(9))").await?;
    source.sql("CREATE TABLE unwanted (id INT PRIMARY KEY, j JSON)").await?;
    let mut stream = source.stream("t").await?;

    let before = source.reader.clock_us().await?;
    source.sql("INSERT INTO unwanted VALUES (1, '{}')").await?;
    source.sql("BEGIN").await?;
    source.sql("INSERT INTO t VALUES (1, 'a')").await?;
    source.sql("SAVEPOINT s").await?;
    source.sql("INSERT INTO t VALUES (2, 'undone')").await?;
    source.sql("ROLLBACK TO s").await?;
    source.sql("INSERT INTO unwanted VALUES (2, '{}')").await?;
    source.sql("INSERT INTO t VALUES (3, 'b'), (4, 'c')").await?;
    source.sql("COMMIT").await?;
    let events = source.upto_now(&mut stream).await?;
    let after = source.reader.clock_us().await?;
    // Of all transactions on the server, the one with this test's rows.
    let first_rows = events.iter().position(|e| matches!(e, BinlogEvent::Rows(_))).expect("there are rows");
    let [begin, one, two, commit] = &events[first_rows - 1..first_rows + 3] else { panic!("{events:?}") };
    let BinlogEvent::Begin { commit_us, .. } = begin else { panic!("{begin:?}") };
    assert!((before..=after).contains(commit_us), "{before} {commit_us} {after}");
    let count = |event: &BinlogEvent| match event {
        BinlogEvent::Rows(rows) => rows.rows().count(),
        other => panic!("{other:?}"),
    };
    assert_eq!([count(one), count(two)], [1, 2]);
    assert!(matches!(commit, BinlogEvent::Commit { .. }));
    let positions: Vec<_> = events.iter().filter_map(position).collect();
    assert!(positions.is_sorted());
    let (one, two) = match &rows(events)[..] {
        [one, two] => (Arc::clone(&one.table), Arc::clone(&two.table)),
        other => panic!("{other:?}"),
    };
    assert!(Arc::ptr_eq(&one, &two), "the same definition comes as the same Arc");

    // A new file without any event of its own: the stream still reaches it.
    source.sql("FLUSH BINARY LOGS").await?;
    source.upto_now(&mut stream).await?;

    // A new definition is another Arc, and the rows come with it.
    source.sql("ALTER TABLE t ADD COLUMN w INT NOT NULL DEFAULT 7 FIRST").await?;
    source.sql("INSERT INTO t VALUES (7, 5, 'd')").await?;
    let changed = rows(source.upto_now(&mut stream).await?).remove(0);
    assert_eq!(changed.table.columns.len(), 3);
    assert_eq!(
        values(&changed)?,
        [(None, Some(vec![Value::Int(7), Value::Int(5), Value::Text("d".into())]))]
    );

    // A stream that is opened at the executed GTIDs begins after them.
    let executed = source.reader.executed().await?;
    source.sql("DELETE FROM t WHERE id = 5").await?;
    drop(stream);
    // In this database only: other tests have tables with this name.
    let wanted = source.table("t");
    let mut stream = BinlogStream::open(&source.config, &executed, move |t| *t == wanted).await?;
    let deleted = rows(source.upto_now(&mut stream).await?);
    assert_eq!(deleted.len(), 1);
    assert_eq!(deleted[0].kind, RowsKind::Delete);
    source.drop().await
}

#[tokio::test]
async fn statements_name_their_tables() -> anyhow::Result<()> {
    let mut source = Source::new("ddl").await?;
    let mut stream = source.stream("ctas").await?;
    let d = source.database.clone();
    for sql in [
        "CREATE TABLE a (id INT PRIMARY KEY)".to_owned(),
        "CREATE TEMPORARY TABLE a (i INT)".to_owned(),
        "DROP TEMPORARY TABLE a".to_owned(),
        "RENAME TABLE a TO `b c`".to_owned(),
        format!("TRUNCATE {d}.`b c`"),
        "ALTER TABLE `b c` ADD COLUMN v INT, RENAME TO e".to_owned(),
        "INSERT INTO e VALUES (1, 2)".to_owned(),
        "CREATE TABLE ctas (PRIMARY KEY (id)) SELECT id FROM e".to_owned(),
        "DROP TABLE IF EXISTS e, nothing".to_owned(),
        "CREATE VIEW w AS SELECT * FROM ctas".to_owned(),
        format!("DROP DATABASE {d}"),
    ] {
        source.sql(&sql).await?;
    }
    let events = source.upto_now(&mut stream).await?;
    let mine = |name: &str| TableName::new(&d, name);
    let statements: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            BinlogEvent::Statement { kind, tables, database, .. } if *database == d => {
                Some((*kind, tables.clone()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        statements,
        [
            (StatementKind::Create, vec![mine("a")]),
            (StatementKind::Rename, vec![mine("a"), mine("b c")]),
            (StatementKind::Truncate, vec![mine("b c")]),
            (StatementKind::Rename, vec![mine("b c"), mine("e")]),
            (StatementKind::Drop, vec![mine("e"), mine("nothing")]),
            (StatementKind::Other, vec![]),
            (StatementKind::DropDatabase, vec![]),
        ]
    );
    let ctas = rows(events);
    assert_eq!(ctas.len(), 1);
    assert_eq!(values(&ctas[0])?, [(None, Some(vec![Value::Int(1)]))]);
    Ok(())
}

/// Each row is read as it was written, with its table's definition at that time.
#[tokio::test]
async fn alters_in_the_middle_of_traffic() -> anyhow::Result<()> {
    let mut source = Source::new("alters").await?;
    source.sql("CREATE TABLE t (id INT PRIMARY KEY, a INT, s VARCHAR(40) CHARACTER SET latin1)").await?;
    let mut stream = source.stream("t").await?;
    let mut expected = Vec::new();
    let mut id = 0;
    for alter in [
        "",
        "ADD COLUMN b BIGINT DEFAULT 7, ALGORITHM = INSTANT",
        "ADD COLUMN f DECIMAL(5,1) NOT NULL DEFAULT 1.5 FIRST, ALGORITHM = INSTANT",
        "DROP COLUMN a, ALGORITHM = INSTANT",
        // The number of columns stays, and their meaning changes.
        "DROP COLUMN b, ADD COLUMN c BIGINT DEFAULT 8, ALGORITHM = INSTANT",
        "MODIFY COLUMN s VARCHAR(40) CHARACTER SET latin1 FIRST",
        "MODIFY COLUMN c VARCHAR(30), MODIFY COLUMN id BIGINT UNSIGNED",
        "CONVERT TO CHARACTER SET utf8mb4",
        "RENAME COLUMN c TO d",
        "DROP PRIMARY KEY, ADD PRIMARY KEY (id, f)",
        "ENGINE = InnoDB",
    ] {
        if !alter.is_empty() {
            source.sql(&format!("ALTER TABLE t {alter}")).await?;
        }
        id += 1;
        source.sql(&format!("INSERT INTO t (id, s) VALUES ({id}, 'é{id}')")).await?;
        let table = source.mysql.table_def(&source.table("t")).await?;
        let upto = source.reader.max_key(&table).await?.expect("there are rows");
        expected.push((table.clone(), source.reader.read_chunk(&table, None, &upto, 100).await?.pop()));
        // An image before and one after for every row, rows written under older definitions included.
        source.sql("UPDATE t SET s = CONCAT(s, '!')").await?;
    }
    let events = rows(source.upto_now(&mut stream).await?);
    let written: Vec<_> = events.iter().filter(|e| e.kind == RowsKind::Write).collect();
    assert_eq!(written.len(), expected.len());
    for (event, (table, row)) in written.iter().zip(&expected) {
        assert_eq!(*event.table, *table);
        assert_eq!(values(event)?, [(None, row.clone())]);
    }
    let updated: usize = events.iter().filter(|e| e.kind == RowsKind::Update).map(|e| e.rows().count()).sum();
    assert_eq!(updated, (1..=expected.len()).sum::<usize>());
    let table = source.mysql.table_def(&source.table("t")).await?;
    let upto = source.reader.max_key(&table).await?.expect("there are rows");
    let now: Vec<_> =
        source.reader.read_chunk(&table, None, &upto, 100).await?.into_iter().map(Some).collect();
    let last = events.last().expect("there are updates");
    assert_eq!(values(last)?.into_iter().map(|(_, after)| after).collect::<Vec<_>>(), now);
    source.drop().await
}
