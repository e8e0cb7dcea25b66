//! The MySQL source against a real server (`TANDEM_MYSQL_URL`): the binlog decoder and the reader
//! give the same values, the stream knows where it is, and what cannot be carried is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use tandem_model::{BinlogPosition, Decimal, Row, TableDef, TableName, Value};
use tandem_mysql_source::{
    BinlogError, BinlogEvent, BinlogStream, Mysql, MysqlConfig, MysqlError, Reader, Refusal, RowsEvent,
    RowsKind, Severity, StatementKind, TableError,
};
use tokio::net::{TcpListener, TcpStream};

/// A database of one test's own, a session for writing to it, and ours for reading.
struct Source {
    config: MysqlConfig,
    database: String,
    writer: mysql_async::Conn,
    mysql: Mysql,
    reader: Reader,
}

impl Source {
    /// `None` (and the test is skipped) without a server.
    async fn new(test: &str) -> anyhow::Result<Option<Self>> {
        let Ok(url) = std::env::var("TANDEM_MYSQL_URL") else {
            eprintln!("skipped: TANDEM_MYSQL_URL is not set");
            return Ok(None);
        };
        let database = format!("source_{test}_{:08x}", rand::random::<u32>());
        let mut writer = mysql_async::Conn::from_url(&url).await?;
        writer.query_drop("SET SESSION time_zone = '+00:00', sql_mode = ''").await?;
        writer.query_drop(format!("CREATE DATABASE {database}")).await?;
        writer.query_drop(format!("USE {database}")).await?;
        let config = MysqlConfig::new(url, rand::random::<u32>() | 1);
        let mysql = Mysql::connect(&config).await?;
        let reader = mysql.reader().await?;
        Ok(Some(Self { config, database, writer, mysql, reader }))
    }

    fn table(&self, name: &str) -> TableName {
        TableName::new(&self.database, name)
    }

    async fn sql(&mut self, sql: &str) -> anyhow::Result<()> {
        Ok(self.writer.query_drop(sql).await?)
    }

    /// The stream from now on, of one table's rows.
    async fn stream(&mut self, wanted: &str) -> anyhow::Result<BinlogStream> {
        let wanted = self.table(wanted);
        let executed = self.reader.executed().await?;
        Ok(BinlogStream::open(&self.config, &executed, move |t| *t == wanted).await?)
    }

    /// Everything up to the binlog's present end.
    async fn upto_now(&mut self, stream: &mut BinlogStream) -> anyhow::Result<Vec<BinlogEvent>> {
        let end = self.reader.binlog_end().await?;
        let mut events = Vec::new();
        loop {
            let event = tokio::time::timeout(Duration::from_secs(30), stream.next()).await??;
            let position = position(&event);
            events.push(event);
            if position.is_some_and(|p| p >= end) {
                return Ok(events);
            }
        }
    }

    async fn drop(mut self) -> anyhow::Result<()> {
        let sql = format!("DROP DATABASE {}", self.database);
        self.sql(&sql).await
    }
}

fn position(event: &BinlogEvent) -> Option<BinlogPosition> {
    match event {
        BinlogEvent::Commit { position }
        | BinlogEvent::Statement { position, .. }
        | BinlogEvent::Idle { position } => Some(position.clone()),
        BinlogEvent::Begin { .. } | BinlogEvent::Rows(_) => None,
    }
}

fn rows(events: Vec<BinlogEvent>) -> Vec<RowsEvent> {
    events
        .into_iter()
        .filter_map(|event| match event {
            BinlogEvent::Rows(rows) => Some(rows),
            _ => None,
        })
        .collect()
}

fn all_members(n: usize) -> String {
    (0..n).map(|i| format!("'m{i}'")).collect::<Vec<_>>().join(",")
}

fn all_bytes() -> String {
    (0..=255u8).map(|b| format!("{b:02x}")).collect()
}

/// Every type that is carried; the key's order is not the columns' order.
fn matrix() -> String {
    let fractions = (0..=6)
        .map(|n| format!("t{n} TIME({n}), dt{n} DATETIME({n}), ts{n} TIMESTAMP({n}) NULL,"))
        .collect::<String>();
    format!(
        "CREATE TABLE m (
            kb VARCHAR(20) CHARACTER SET latin1 NOT NULL, y YEAR, ka INT UNSIGNED NOT NULL,
            i1 TINYINT, u1 TINYINT UNSIGNED, i2 SMALLINT, u2 SMALLINT UNSIGNED, i3 MEDIUMINT,
            u3 MEDIUMINT UNSIGNED, i4 INT, u4 INT UNSIGNED ZEROFILL, i8 BIGINT, u8 BIGINT UNSIGNED, b BOOL,
            f FLOAT, d DOUBLE, f2 FLOAT(7,3) UNSIGNED, dec_big DECIMAL(65,30), dec_whole DECIMAL(5,0),
            dec_fraction DECIMAL(10,10), dec_u DECIMAL(12,2) UNSIGNED,
            dt DATE, {fractions}
            c CHAR(10), c_long CHAR(200), c_empty CHAR(0), v VARCHAR(40), v_long VARCHAR(300),
            v_lat VARCHAR(300) CHARACTER SET latin1, v3 VARCHAR(20) CHARACTER SET utf8mb3,
            v_ascii VARCHAR(20) CHARACTER SET ascii, v_bin VARCHAR(9) COLLATE utf8mb4_bin,
            x1 TINYTEXT, x2 TEXT CHARACTER SET latin1, x3 MEDIUMTEXT, x4 LONGTEXT,
            b8 BINARY(8), b255 BINARY(255), vb VARBINARY(300), l1 TINYBLOB, l2 BLOB, l3 MEDIUMBLOB, l4 LONGBLOB,
            e ENUM('', 'a,b', 'it''s', 'back\\\\slash', 'é') CHARACTER SET latin1, e2 ENUM({}),
            s SET('x', 'y', 'z'), s64 SET({}) CHARACTER SET ascii, e3 ENUM('line\\nbreak', '漢'),
            g INT AS (i4 + 1) VIRTUAL, gs VARCHAR(50) AS (CONCAT(kb, '!')) STORED, hidden INT INVISIBLE,
            PRIMARY KEY (ka, kb)
        )",
        all_members(300),
        all_members(64),
    )
}

const COLUMNS_OF_TIMES: [&str; 3] = ["t", "dt", "ts"];

/// The rows of the matrix, as assignments.
fn matrix_rows() -> Vec<String> {
    let times = |time: &str, date_time: &str, timestamp: &str| {
        (0..=6)
            .flat_map(|n| {
                COLUMNS_OF_TIMES
                    .iter()
                    .zip([time, date_time, timestamp])
                    .map(move |(c, v)| format!("{c}{n} = {v}, "))
            })
            .collect::<String>()
    };
    vec![
        "ka = 0, kb = ''".into(),
        format!(
            "ka = 4294967295, kb = 'é', i1 = -128, u1 = 255, i2 = -32768, u2 = 65535, i3 = -8388608,
             u3 = 16777215, i4 = -2147483648, u4 = 4294967295, i8 = -9223372036854775808,
             u8 = 18446744073709551615, b = 1, f = -3.4028234e38, d = -1.7976931348623157e308, f2 = 1234.567,
             dec_big = -99999999999999999999999999999999999.999999999999999999999999999999,
             dec_whole = -99999, dec_fraction = -0.9999999999, dec_u = 0.01, y = 2155, dt = '9999-12-31',
             {} c = 'trailing  ', c_long = REPEAT('漢', 200), c_empty = '', v = '😀 ', v_long = REPEAT('é', 300),
             v_lat = CONVERT(x'{}' USING latin1), v3 = '漢', v_ascii = 'ascii', v_bin = 'Bin', x1 = 't',
             x2 = 'é', x3 = REPEAT('x', 70000), x4 = REPEAT('é', 200000), b8 = x'ff00000000000000',
             b255 = x'01', vb = x'0100', l1 = x'', l2 = x'00ff', l3 = REPEAT(x'fe', 70000),
             l4 = REPEAT(x'00', 200000), e = 'é', e2 = 'm299', s = 'x,z', s64 = 18446744073709551615,
             e3 = 'line\\nbreak', hidden = 5",
            times("'-838:59:59'", "'9999-12-31 23:59:59.000000'", "'2038-01-19 03:14:07'"),
            all_bytes(),
        ),
        format!(
            "ka = 1, kb = 'A', i1 = 127, i2 = 32767, i3 = 8388607, i4 = 2147483646, i8 = 9223372036854775807,
             u1 = 0, u2 = 0, u3 = 8388608, u4 = 7, u8 = 9223372036854775808, f = 1.1, d = 0.1,
             dec_big = 99999999999999999999999999999999999.999999999999999999999999999999, dec_whole = 0,
             dec_fraction = 0.0000000001, y = 1901, dt = '0001-01-01',
             {} c = '', v = '', b8 = x'0000000000000000', e = '', e2 = 'm0', s = '', s64 = 'm0,m63',
             e3 = '漢'",
            times("'838:59:59'", "'1000-01-01 00:00:00'", "'1970-01-01 00:00:01'"),
        ),
        format!(
            "ka = 1, kb = 'B', f = 0, d = -0.0, y = 0, dt = '0000-00-00', dec_big = -0.000000000000000000000000000001,
             {} e = 'none of them', e2 = 0, s = 'y', i3 = -1, u3 = 1, v = 'tab\\t\\0 nul', vb = x'00'",
            times("'-00:00:00.999999'", "'0000-00-00 00:00:00'", "'0000-00-00 00:00:00'"),
        ),
        format!(
            "ka = 2, kb = '', y = 2000, dt = '2024-00-07', dec_big = 123456789.123456789, dec_u = 9999999999.99,
             {} e = 'a,b', s = 'x,y,z', e3 = 1, i3 = -8388607",
            times("'-12:34:56.789012'", "'2024-02-00 12:34:56.789012'", "'2024-02-29 12:34:56.789012'"),
        ),
        format!(
            "ka = 3, kb = 'x', y = 70, dt = '2024-02-29', f = 16777216, d = 5e-324, dec_whole = 12345,
             {} e = 'it''s', i4 = -1, u8 = 1, e2 = 'm255'",
            times("'00:00:00.000001'", "'2024-02-29 00:00:00.5'", "'2001-09-09 01:46:40.123456'"),
        ),
        format!("ka = 4, kb = 'y', e = 4, e2 = 'm254', {} y = 1970", times("0", "'1969-12-31 23:59:59.9'", "NULL")),
    ]
}

fn value<'a>(table: &TableDef, row: &'a Row, column: &str) -> &'a Value {
    &row[table.column(column).unwrap_or_else(|| panic!("no column {column}"))]
}

#[tokio::test]
async fn the_binlog_and_a_read_give_the_same_values() -> anyhow::Result<()> {
    let Some(mut source) = Source::new("types").await? else { return Ok(()) };
    source.sql(&matrix()).await?;
    let table = source.mysql.table_def(&source.table("m")).await?;
    assert_eq!(
        table.key_of(&(0..table.columns.len() as i64).map(Value::Int).collect()),
        [Value::Int(2), Value::Int(0)]
    );
    let mut stream = source.stream("m").await?;

    for row in matrix_rows() {
        source.sql(&format!("INSERT INTO m SET {row}")).await?;
    }
    let events = source.upto_now(&mut stream).await?;
    let inserted: Vec<Row> = rows(events)
        .into_iter()
        .inspect(|event| assert_eq!((event.kind, &*event.table), (RowsKind::Write, &table)))
        .flat_map(|event| event.rows)
        .map(|(before, after)| {
            assert_eq!(before, None);
            after.unwrap()
        })
        .collect();
    assert_eq!(inserted.len(), matrix_rows().len());
    same_rows(&mut source, &table, &inserted).await?;
    spot_values(&table, &inserted);

    source
        .sql("UPDATE m SET i4 = 1000 - ka % 7, v = CONCAT(COALESCE(v, ''), '+'), b255 = NULL, e = 'a,b'")
        .await?;
    let mut updated = Vec::new();
    let mut previous = inserted;
    for event in rows(source.upto_now(&mut stream).await?) {
        assert_eq!(event.kind, RowsKind::Update);
        for (before, after) in event.rows {
            let (before, after) = (before.unwrap(), after.unwrap());
            previous.retain(|row| *row != before);
            updated.push(after);
        }
    }
    assert!(previous.is_empty(), "every image before is a row as it was inserted");
    same_rows(&mut source, &table, &updated).await?;

    source.sql("DELETE FROM m").await?;
    for event in rows(source.upto_now(&mut stream).await?) {
        assert_eq!(event.kind, RowsKind::Delete);
        for (before, after) in event.rows {
            assert_eq!(after, None);
            let before = before.unwrap();
            updated.retain(|row| *row != before);
        }
    }
    assert!(updated.is_empty(), "every image before is a row as it was updated");
    source.drop().await
}

/// Asserts that reads give these rows, by keys and by chunks.
async fn same_rows(source: &mut Source, table: &TableDef, expected: &[Row]) -> anyhow::Result<()> {
    let keys: Vec<_> = expected.iter().map(|row| table.key_of(row)).collect();
    let read = source.reader.read_keys(table, &keys).await?;
    for (expected, read) in expected.iter().zip(read) {
        let read = read.expect("the row is there");
        for (column, (e, r)) in table.columns.iter().zip(expected.iter().zip(&read)) {
            assert_eq!(e, r, "column {} of key {:?}", column.name, table.key_of(expected));
        }
    }
    let upto = source.reader.max_key(table).await?.expect("there are rows");
    let mut chunked: Vec<Row> = Vec::new();
    loop {
        let after = chunked.last().map(|row| table.key_of(row));
        let chunk = source.reader.read_chunk(table, after.as_deref(), &upto, 2).await?;
        if chunk.is_empty() {
            break;
        }
        assert!(chunk.len() <= 2);
        chunked.extend(chunk);
    }
    assert_eq!(chunked.len(), expected.len());
    assert!(expected.iter().all(|row| chunked.contains(row)));
    Ok(())
}

fn spot_values(table: &TableDef, rows: &[Row]) {
    let text = |s: &str| Value::Text(s.into());
    let invalid = |s: &str| Value::InvalidDate(s.into());
    let decimal = |s: &str, scale| Value::Decimal(Decimal::parse(s, scale).unwrap());
    let expect = |row: usize, values: &[(&str, Value)]| {
        for (column, expected) in values {
            assert_eq!(value(table, &rows[row], column), expected, "column {column} of row {row}");
        }
    };
    expect(
        0,
        &[
            ("ka", Value::UInt(0)),
            ("kb", text("")),
            ("e", Value::Null),
            ("gs", text("!")),
            ("g", Value::Null),
        ],
    );
    let fives: String = LATIN1_SAMPLE.iter().collect();
    assert!(
        matches!(value(table, &rows[1], "v_lat"), Value::Text(s) if s.contains(&fives) && s.chars().count() == 256)
    );
    expect(
        1,
        &[
            ("kb", text("é")),
            ("i1", Value::Int(-128)),
            ("u1", Value::UInt(255)),
            ("i3", Value::Int(-8_388_608)),
            ("u3", Value::UInt(16_777_215)),
            ("i8", Value::Int(i64::MIN)),
            ("u8", Value::UInt(u64::MAX)),
            ("f", Value::Float(f32::MIN)),
            ("d", Value::Double(f64::MIN)),
            ("dec_big", decimal("-99999999999999999999999999999999999.999999999999999999999999999999", 30)),
            ("dec_whole", decimal("-99999", 0)),
            ("dec_fraction", decimal("-0.9999999999", 10)),
            ("y", Value::Int(2155)),
            ("dt", Value::Date(2_932_896)),
            ("t0", Value::Time(-3_020_399_000_000)),
            ("t6", Value::Time(-3_020_399_000_000)),
            ("ts0", Value::Timestamp(i64::from(i32::MAX) * 1_000_000)),
            ("c", text("trailing")),
            ("v", text("😀 ")),
            ("b8", Value::Bytes(vec![0xff, 0, 0, 0, 0, 0, 0, 0])),
            ("b255", Value::Bytes([vec![1], vec![0; 254]].concat())),
            ("vb", Value::Bytes(vec![1, 0])),
            ("l1", Value::Bytes(vec![])),
            ("e", text("é")),
            ("e2", text("m299")),
            ("s", text("x,z")),
            ("e3", text("line\nbreak")),
            ("gs", text("é!")),
            ("hidden", Value::Int(5)),
        ],
    );
    expect(
        2,
        &[("e", text("")), ("s", text("")), ("s64", text("m0,m63")), ("g", Value::Int(i32::MAX.into()))],
    );
    expect(2, &[("dt", Value::Date(-719_162)), ("ts6", Value::Timestamp(1_000_000)), ("c", text(""))]);
    expect(
        3,
        &[
            ("y", Value::Int(0)),
            ("dt", invalid("0000-00-00")),
            ("dt0", invalid("0000-00-00 00:00:00")),
            ("dt3", invalid("0000-00-00 00:00:00.000")),
            ("ts0", invalid("0000-00-00 00:00:00")),
            ("ts6", invalid("0000-00-00 00:00:00.000000")),
            ("t0", Value::Time(-1_000_000)),
            ("t6", Value::Time(-999_999)),
            ("e", text("")),
            ("i3", Value::Int(-1)),
            ("dec_big", decimal("-0.000000000000000000000000000001", 30)),
        ],
    );
    expect(
        4,
        &[
            ("dt", invalid("2024-00-07")),
            ("dt4", invalid("2024-02-00 12:34:56.7890")),
            ("ts5", Value::Timestamp(1_709_210_096_789_010)),
            ("t1", Value::Time(-45_296_800_000)),
            ("t2", Value::Time(-45_296_790_000)),
            ("t3", Value::Time(-45_296_789_000)),
            ("t6", Value::Time(-45_296_789_012)),
            ("dec_u", decimal("9999999999.99", 2)),
        ],
    );
    expect(
        5,
        &[
            ("d", Value::Double(5e-324)),
            ("t6", Value::Time(1)),
            ("y", Value::Int(1970)),
            ("e2", text("m255")),
        ],
    );
    expect(6, &[("e", text("back\\slash")), ("dt1", Value::DateTime(-100_000)), ("ts0", Value::Null)]);
}

/// What latin1's bytes 0x80 to 0x82 are, the second of which Windows-1252 does not define.
const LATIN1_SAMPLE: [char; 3] = ['€', '\u{81}', '‚'];

#[tokio::test]
async fn the_stream_knows_where_it_is() -> anyhow::Result<()> {
    let Some(mut source) = Source::new("position").await? else { return Ok(()) };
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
    // Of all transactions on the server, the one with our rows.
    let first_rows = events.iter().position(|e| matches!(e, BinlogEvent::Rows(_))).expect("there are rows");
    let [begin, one, two, commit] = &events[first_rows - 1..first_rows + 3] else { panic!("{events:?}") };
    let BinlogEvent::Begin { commit_us, .. } = begin else { panic!("{begin:?}") };
    assert!((before..=after).contains(commit_us), "{before} {commit_us} {after}");
    let count = |event: &BinlogEvent| match event {
        BinlogEvent::Rows(rows) => rows.rows.len(),
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

    // A new file, and nothing written into it: the stream arrives there all the same.
    source.sql("FLUSH BINARY LOGS").await?;
    source.upto_now(&mut stream).await?;

    // Another definition is another Arc, and the rows come with it.
    source.sql("ALTER TABLE t ADD COLUMN w INT NOT NULL DEFAULT 7 FIRST").await?;
    source.sql("INSERT INTO t VALUES (7, 5, 'd')").await?;
    let changed = rows(source.upto_now(&mut stream).await?).remove(0);
    assert_eq!(changed.table.columns.len(), 3);
    assert_eq!(changed.rows, [(None, Some(vec![Value::Int(7), Value::Int(5), Value::Text("d".into())]))]);

    // The stream opened from what has been executed begins after it.
    let executed = source.reader.executed().await?;
    source.sql("DELETE FROM t WHERE id = 5").await?;
    drop(stream);
    let mut stream = BinlogStream::open(&source.config, &executed, |t| t.table == "t").await?;
    let deleted = rows(source.upto_now(&mut stream).await?);
    assert_eq!(deleted.len(), 1);
    assert_eq!(deleted[0].kind, RowsKind::Delete);
    source.drop().await
}

#[tokio::test]
async fn statements_name_their_tables() -> anyhow::Result<()> {
    let Some(mut source) = Source::new("ddl").await? else { return Ok(()) };
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
    assert_eq!(ctas[0].rows, [(None, Some(vec![Value::Int(1)]))]);
    Ok(())
}

#[tokio::test]
async fn keys_are_read_exactly_and_by_the_index() -> anyhow::Result<()> {
    let Some(mut source) = Source::new("keys").await? else { return Ok(()) };
    // A key column of each type that may be one, with values in its own order.
    let numbers: Vec<i64> = (0..300).collect();
    let of = |f: &dyn Fn(i64) -> String| numbers.iter().map(|&i| f(i)).collect::<Vec<_>>();
    let columns: Vec<(&str, &str, Vec<String>)> = vec![
        ("i", "INT", of(&|i| (i - 150).to_string())),
        ("u", "BIGINT UNSIGNED", of(&|i| (u64::MAX - 299 + i as u64).to_string())),
        ("dc", "DECIMAL(40,10)", of(&|i| format!("{}.{i:010}", i128::from(i - 150) * 10_i128.pow(25)))),
        ("y", "YEAR", (1901..2156).map(|y| y.to_string()).collect()),
        (
            "dt",
            "DATE",
            of(&|i| if i == 0 { "'0000-00-00'".into() } else { format!("'2024-01-01' + INTERVAL {i} DAY") }),
        ),
        ("tm", "TIME(6)", of(&|i| format!("'{:02}:00:00.000001'", i - 150))),
        (
            "dtm",
            "DATETIME(6)",
            of(&|i| format!("TIMESTAMP '2024-01-01 00:00:00.000001' + INTERVAL {i} HOUR")),
        ),
        ("ts", "TIMESTAMP(3)", of(&|i| format!("TIMESTAMP '2024-03-30 00:00:00.001' + INTERVAL {i} HOUR"))),
        ("v", "VARCHAR(20)", of(&|i| format!("'k{i:03}'"))),
        ("vu", "VARCHAR(20) COLLATE utf8mb4_bin", of(&|i| format!("'漢{i:03}'"))),
        ("v3", "VARCHAR(20) CHARACTER SET utf8mb3", of(&|i| format!("'漢{i:03}'"))),
        ("vl", "VARCHAR(20) CHARACTER SET latin1", of(&|i| format!("'é{i:03}'"))),
        ("vlb", "CHAR(20) CHARACTER SET latin1 COLLATE latin1_bin", of(&|i| format!("'€{i:03}'"))),
        ("va", "VARCHAR(20) CHARACTER SET ascii", of(&|i| format!("'a{i:03}'"))),
        ("b", "BINARY(4)", of(&|i| format!("x'{i:04x}0000'"))),
        ("vb", "VARBINARY(9)", of(&|i| format!("x'{i:04x}'"))),
    ];
    let mut problems = Vec::new();
    for (name, ty, values) in columns {
        let table = format!("key_{name}");
        source
            .sql(&format!("CREATE TABLE {table} (v INT, k {ty} NOT NULL, n INT, PRIMARY KEY (n, k))"))
            .await?;
        source.sql(&format!("CREATE TABLE {table}_1 (v INT, k {ty} NOT NULL PRIMARY KEY)")).await?;
        for (i, value) in values.iter().enumerate() {
            source.sql(&format!("INSERT INTO {table} VALUES ({i}, {value}, {})", i % 3)).await?;
            source.sql(&format!("INSERT INTO {table}_1 VALUES ({i}, {value})")).await?;
        }
        for table in [table.clone(), format!("{table}_1")] {
            source.sql(&format!("ANALYZE TABLE {table}")).await?;
            let def = source.mysql.table_def(&source.table(&table)).await?;
            let upto = source.reader.max_key(&def).await?.expect("there are rows");
            let all = source.reader.read_chunk(&def, None, &upto, 1000).await?;
            assert_eq!(all.len(), values.len(), "{table}");
            let keys: Vec<_> = all.iter().map(|row| def.key_of(row)).collect();
            let read = source.reader.read_keys(&def, &keys).await?;
            assert!(read.iter().zip(&all).all(|(read, row)| read.as_ref() == Some(row)), "{table}");
            // Few keys and a small part must not examine the whole table.
            let before = examined(&mut source, &table).await?;
            let few = source.reader.read_keys(&def, &keys[50..66]).await?;
            assert!(few.iter().zip(&all[50..66]).all(|(read, row)| read.as_ref() == Some(row)), "{table}");
            let part = source.reader.read_chunk(&def, Some(&keys[99]), &keys[119], 1000).await?;
            assert_eq!(part, all[100..120], "{table}");
            let examined = examined(&mut source, &table).await? - before;
            if !(36..=60).contains(&examined) {
                problems.push(format!("{table}: {examined} rows examined"));
            }
        }
    }
    assert_eq!(problems, Vec::<String>::new());

    // A key that is equal only to the collation is another key.
    let def = source.mysql.table_def(&source.table("key_v_1")).await?;
    let text = |s: &str| vec![Value::Text(s.into())];
    let read = source
        .reader
        .read_keys(&def, &[text("K007"), text("k007"), text("none"), text("k007 "), text("k007")])
        .await?;
    let found: Vec<_> = read.iter().map(Option::is_some).collect();
    assert_eq!(found, [false, true, false, false, true]);
    assert_eq!(source.reader.read_keys(&def, &[]).await?, Vec::<Option<Row>>::new());
    assert!(source.reader.approximate_rows(&source.table("key_v_1")).await? > 100);

    // The definition is checked against what comes.
    source.sql("ALTER TABLE key_v_1 MODIFY v BIGINT").await?;
    let changed = source.reader.read_keys(&def, &[text("k007")]).await;
    assert!(matches!(changed, Err(MysqlError::TableChanged { .. })), "{changed:?}");
    source.sql("DROP TABLE key_v_1").await?;
    let gone = source.reader.max_key(&def).await;
    assert!(matches!(gone, Err(MysqlError::TableChanged { .. })), "{gone:?}");
    source.drop().await
}

/// How many rows statements on a table have examined, by the server's own account.
async fn examined(source: &mut Source, table: &str) -> anyhow::Result<u64> {
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(SUM_ROWS_EXAMINED), 0) AS UNSIGNED) FROM
         performance_schema.events_statements_summary_by_digest
         WHERE DIGEST_TEXT LIKE 'EXECUTE SELECT%FROM `{}` . `{table}` WHERE%'",
        source.database
    );
    Ok(source.writer.query_first(sql).await?.unwrap_or(0))
}

#[tokio::test]
async fn what_cannot_be_carried_is_refused() -> anyhow::Result<()> {
    let Some(mut source) = Source::new("refused").await? else { return Ok(()) };
    let errors: Vec<_> =
        source.mysql.preflight().await?.into_iter().filter(|f| f.severity == Severity::Error).collect();
    assert_eq!(errors, []);

    source.sql("CREATE TABLE parent (id INT PRIMARY KEY)").await?;
    source
        .sql(
            "CREATE TABLE bad (e ENUM('a') NOT NULL, p VARCHAR(300) NOT NULL, j JSON, g POINT, bits BIT(3),
             s VARCHAR(9) CHARACTER SET sjis, PRIMARY KEY (e, p(10))) ENGINE=MyISAM",
        )
        .await?;
    source.sql("CREATE TABLE keyless (a INT)").await?;
    source.sql("CREATE VIEW v AS SELECT 1 AS one").await?;
    let refused = |result: Result<TableDef, TableError>| match result {
        Err(TableError::Refused { refusals, .. }) => refusals,
        other => panic!("{other:?}"),
    };
    let refusals = refused(source.mysql.table_def(&source.table("bad")).await);
    assert_eq!(refusals.len(), 7, "{refusals:?}");
    assert!(matches!(
        refused(source.mysql.table_def(&source.table("keyless")).await)[..],
        [Refusal::NoPrimaryKey(_)]
    ));
    assert!(matches!(refused(source.mysql.table_def(&source.table("v")).await)[..], [Refusal::NotATable(_)]));
    assert_eq!(refused(source.mysql.table_def(&source.table("none")).await), [Refusal::NoSuchTable]);
    let listed = source.mysql.list_tables(&source.database).await?;
    assert_eq!(listed, ["bad", "keyless", "parent"].map(|t| source.table(t)));

    // Rows of wanted tables only; the stream stays at the error.
    source.sql("CREATE TABLE j (id INT PRIMARY KEY, doc JSON)").await?;
    let mut stream = source.stream("j").await?;
    source.sql("INSERT INTO j VALUES (1, '{}')").await?;
    let error = source.upto_now(&mut stream).await.unwrap_err().to_string();
    assert!(error.contains("`doc` has the type JSON") && error.contains(".j "), "{error}");
    assert!(matches!(stream.next().await, Err(BinlogError::Table { .. })));
    drop(stream);

    source.sql("CREATE TABLE i (id INT PRIMARY KEY, a INT, b INT)").await?;
    source.sql("INSERT INTO i VALUES (1, 2, 3)").await?;
    let mut stream = source.stream("i").await?;
    source.sql("SET SESSION binlog_row_image = MINIMAL").await?;
    source.sql("UPDATE i SET a = 5").await?;
    let error = source.upto_now(&mut stream).await.unwrap_err().to_string();
    assert!(error.contains("binlog_row_image = FULL"), "{error}");
    source.drop().await
}

#[tokio::test]
async fn a_clash_of_server_ids_is_told() -> anyhow::Result<()> {
    let Some(mut source) = Source::new("clash").await? else { return Ok(()) };
    let mut first = source.stream("t").await?;
    let _second = source.stream("t").await?;
    let error = loop {
        if let Err(error) = first.next().await {
            break error;
        }
    };
    assert_eq!(error, BinlogError::ServerIdClash { server_id: source.config.server_id });
    let tagged = "3e11fa47-71ca-11e1-9e33-c80aa9429562:tag:1".parse()?;
    let refused = BinlogStream::open(&source.config, &tagged, |_| true).await;
    assert_eq!(refused.unwrap_err(), BinlogError::TaggedGtids);
    source.drop().await
}

#[tokio::test]
async fn wrong_addresses_and_accounts_are_told_apart() -> anyhow::Result<()> {
    let Some(source) = Source::new("access").await? else { return Ok(()) };
    let mut url = source.config.url.clone();
    let host = url.split_off(url.rfind('@').map_or("mysql://".len(), |at| at + 1));
    let denied =
        Mysql::connect(&MysqlConfig::new(format!("mysql://nobody:hush@{host}"), 1)).await.unwrap_err();
    // For an account that does not exist the server makes up a method of authentication.
    assert!(matches!(denied, MysqlError::AccessDenied { .. } | MysqlError::AuthPlugin { .. }), "{denied:?}");
    assert!(!format!("{denied} {denied:?}").contains("hush"));
    assert!(!denied.is_transient());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    drop(listener);
    let nobody = Mysql::connect(&MysqlConfig::new(format!("mysql://u:hush@{address}"), 1)).await.unwrap_err();
    assert!(matches!(nobody, MysqlError::Unreachable { .. }), "{nobody:?}");
    assert!(nobody.is_transient() && nobody.to_string().contains(&address.to_string()));
    source.drop().await
}

/// A proxy to the server that can stop passing anything on, as a dead connection does.
async fn proxy(to: String) -> anyhow::Result<(String, Arc<AtomicBool>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let dead = Arc::new(AtomicBool::new(false));
    let stalled = Arc::clone(&dead);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&to).await else { continue };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(pass(from_client, to_server, Arc::clone(&stalled)));
            tokio::spawn(pass(from_server, to_client, Arc::clone(&stalled)));
        }
    });
    Ok((address, dead))
}

async fn pass(
    from: tokio::net::tcp::OwnedReadHalf,
    to: tokio::net::tcp::OwnedWriteHalf,
    dead: Arc<AtomicBool>,
) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut from, mut to) = (from, to);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        while dead.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        to.write_all(&buffer[..n]).await?;
    }
}

#[tokio::test]
async fn a_dead_connection_is_noticed() -> anyhow::Result<()> {
    let Some(mut source) = Source::new("silent").await? else { return Ok(()) };
    let url = source.config.url.clone();
    let at = url.rfind('@').map_or("mysql://".len(), |at| at + 1);
    let host = url[at..].split(['/', '?']).next().unwrap_or_default().to_owned();
    let (address, dead) = proxy(host.clone()).await?;
    source.config.url = url.replace(&host, &address);
    let mut stream = source.stream("t").await?;
    for _ in 0..3 {
        stream.next().await?;
    }
    dead.store(true, Ordering::Relaxed);
    let asked = std::time::Instant::now();
    // Asked again and again, as a loop with other things to do does.
    let error = loop {
        match tokio::time::timeout(Duration::from_millis(300), stream.next()).await {
            Ok(Ok(_)) | Err(_) => assert!(asked.elapsed() < Duration::from_secs(10)),
            Ok(Err(error)) => break error,
        }
    };
    assert!(matches!(error, BinlogError::Silent { .. }) && error.is_transient(), "{error:?}");
    assert!(asked.elapsed() > Duration::from_secs(3));
    source.drop().await
}
